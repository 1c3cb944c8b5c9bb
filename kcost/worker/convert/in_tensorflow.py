"""To a SavedModel, and from it to LiteRT: in a tensorflow process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kcost.core.conversion import PACKED_SIGNATURE, ConvertRequest, LeftOut, ServingAnswer, ServingRequest
from kcost.models.precision import with_precision
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.worker.convert.endpoint import ModelInput, model_inputs
from kcost.worker.convert.packed import packed_function, unpacked_because
from kcost.worker.convert.refusals import refused
from kcost.worker.convert.saved_model import ENDPOINT, Serve, constant_bytes, write_saved_model
from kcost.worker.convert.serving_signatures import more_signatures
from kcost.worker.convert.warm_up import warm_up_requests, write_warm_up
from kcost.worker.inputs import Samples, calibration_batches

MOST_PACKED_BYTES = 128 << 20
"""Constants lie in each graph by themselves: a server that nobody asks for the second one holds them, too."""

CALIBRATION_ROWS, CALIBRATION_BATCH = 64, 8


def convert(request: ConvertRequest, model: keras.Model, samples: Samples) -> dict[str, str]:
    """Writes a SavedModel's folder or a .tflite file; returns the versions of converters besides TensorFlow."""
    if request.runtime == "saved_model":
        request.path.mkdir(exist_ok=True)
        at_precision = with_precision(model, "bfloat16") if request.precision == "bfloat16" else model
        write_saved_model(at_precision, request.keras_file, request.path, portable=request.portable)
        return {}
    with tempfile.TemporaryDirectory(prefix="kcost-litert-") as folder_name:
        write_saved_model(model, request.keras_file, Path(folder_name), portable=True)
        request.path.write_bytes(_tflite(request, model, samples, folder_name))
    return {}


def convert_for_server(
    request: ConvertRequest,
    serving: ServingRequest,
    model: keras.Model,
    inputs: Sequence[ModelInput],
    outputs: Sequence[str],
    samples: Samples,
) -> ServingAnswer:
    """Writes a SavedModel's folder with all that a server takes: more signatures, and what it warms up with."""
    more, left_out = more_signatures(serving, inputs, outputs)
    requests = warm_up_requests(serving, inputs, more, samples)
    request.path.mkdir(exist_ok=True)
    reasons = [] if (reason := _unpacked_because(model, portable=request.portable)) is None else [reason]

    def packed(serve: Serve) -> Any | None:
        rows = next(warming.inputs for warming in requests if warming.signature == ENDPOINT)
        function, reason = packed_function(model, serve, inputs, rows, portable=request.portable)
        reasons.extend([reason] if reason is not None else [])
        return function

    write_saved_model(
        *(model, request.keras_file, request.path),
        portable=request.portable,
        more=more,
        packed=None if reasons else packed,
    )
    if reasons and any(isinstance(layer, EncoderBlock) for layer in model.layers):
        left_out.append(LeftOut(what=PACKED_SIGNATURE, reason=reasons[0]))
    write_warm_up(request.path, requests)
    return ServingAnswer(
        signatures=(*(signature.name for signature in more), *([] if reasons else [PACKED_SIGNATURE])),
        left_out=tuple(left_out),
        warm_up_batches=serving.warm_up_batches,
    )


def _unpacked_because(model: keras.Model, *, portable: bool) -> str | None:
    reason = unpacked_because(model)
    if reason is None and (held := constant_bytes(model, portable=portable)) > MOST_PACKED_BYTES:
        return f"a second graph would hold {held:,} bytes of weights again, which is more than {MOST_PACKED_BYTES:,}"
    return reason


def _tflite(request: ConvertRequest, model: keras.Model, samples: Samples, saved_model: str) -> bytes:
    """The .tflite file: LiteRT's own operations only, so that its plain runtime runs it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=[ENDPOINT])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if request.precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if request.precision == "int8":
        signature = model_inputs(model, request.keras_file)

        def representative() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
            names = [i.model_name for i in signature]
            for batch in calibration_batches(samples, names, CALIBRATION_ROWS, CALIBRATION_BATCH):
                yield ENDPOINT, {i.name: batch[i.model_name].astype(i.dtype) for i in signature}

        converter.representative_dataset = representative
    try:
        converted: Any = converter.convert()
    except MemoryError:
        raise
    except Exception as error:  # the converter raises its own class, ValueError or RuntimeError
        raise refused(request.keras_file, "LiteRT", error) from error
    return bytes(converted)
