"""To a SavedModel, and from it to LiteRT: in a tensorflow process."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kcost.core.conversion import ConvertRequest
from kcost.models.precision import with_precision
from kcost.worker import export
from kcost.worker.convert.refusals import refused
from kcost.worker.inputs import Samples, calibration_batches

CALIBRATION_ROWS, CALIBRATION_BATCH = 64, 8


def convert(asked: ConvertRequest, model: keras.Model, samples: Samples) -> tuple[str, dict[str, str]]:
    """Writes `saved_model/` or `model.tflite`; returns its name and the versions of converters besides TensorFlow."""
    if asked.runtime == "saved_model":
        folder = asked.folder / "saved_model"
        folder.mkdir()
        at_precision = with_precision(model, "bfloat16") if asked.precision == "bfloat16" else model
        _write_saved_model(at_precision, asked.keras_file, folder, portable=False)
        return folder.name, {}
    with tempfile.TemporaryDirectory(prefix="kcost-litert-") as folder_name:
        _write_saved_model(model, asked.keras_file, Path(folder_name), portable=True)
        (asked.folder / "model.tflite").write_bytes(_tflite(asked, model, samples, folder_name))
    return "model.tflite", {}


def _write_saved_model(model: keras.Model, keras_file: Path, folder: Path, *, portable: bool) -> None:
    names = export.output_names(model)
    export.write_saved_model(model, export.model_inputs(model, keras_file), names, str(folder), portable)


def _tflite(asked: ConvertRequest, model: keras.Model, samples: Samples, saved_model: str) -> bytes:
    """The .tflite file: LiteRT's own operations only, so that its plain runtime runs it."""
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(saved_model, signature_keys=[export.ENDPOINT])
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
    if asked.precision != "float32":
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if asked.precision == "int8":
        signature = export.model_inputs(model, asked.keras_file)

        def representative() -> Iterator[tuple[str, dict[str, np.ndarray]]]:
            names = [i.model_name for i in signature]
            for batch in calibration_batches(samples, names, CALIBRATION_ROWS, CALIBRATION_BATCH):
                yield export.ENDPOINT, {i.name: batch[i.model_name].astype(i.dtype) for i in signature}

        converter.representative_dataset = representative
    try:
        converted: Any = converter.convert()
    except MemoryError:
        raise
    except Exception as error:  # the converter raises its own class, ValueError or RuntimeError
        raise refused(asked.keras_file, "LiteRT", error) from error
    return bytes(converted)
