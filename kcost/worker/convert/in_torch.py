"""To ONNX, and from it to OpenVINO: in a torch process."""

from __future__ import annotations

import contextlib
import importlib.metadata
import logging
import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np
import torch

from kcost.core.conversion import DENSE_ALONE, ConvertRequest
from kcost.core.errors import ArtifactError
from kcost.worker.convert.endpoint import ModelInput, model_inputs, output_names
from kcost.worker.convert.refusals import need, refused
from kcost.worker.inputs import Samples, calibration_batches

CALIBRATION_ROWS, CALIBRATION_BATCH = 64, 4
EXAMPLE_BATCH = 3
"""Rows of the inputs that the exporter follows; torch takes a size of 0 or 1 for one that never changes."""

DENSE_OPERATIONS = ["MatMul", "Gemm"]
"""ONNX operations that are quantized in every precision in int8."""


def convert(request: ConvertRequest, model: keras.Model, samples: Samples) -> dict[str, str]:
    """Writes an .onnx file, or OpenVINO's .xml and .bin; returns the versions of the converters."""
    need("onnx", request.runtime)
    need("onnxscript", request.runtime)
    with tempfile.TemporaryDirectory(prefix="kcost-onnx-") as folder_name:
        plain = Path(folder_name) / "model.onnx"
        _write_onnx(request, model, samples, plain)
        feeds = _calibration(request, model, samples)
        versions = _versions("onnx", "onnxscript")
        if request.runtime == "openvino":
            _openvino(request, plain, feeds)
            return {**versions, **_versions("openvino", "nncf")}
        if request.precision == "float32":
            shutil.copyfile(plain, request.path)
        else:
            need("onnxruntime", "onnx")
            _quantize_onnx(request, plain, request.path, feeds)
            versions |= _versions("onnxruntime")
        return versions


def _calibration(request: ConvertRequest, model: keras.Model, samples: Samples) -> list[dict[str, np.ndarray]]:
    """Inputs by the names in the converted file."""
    signature = model_inputs(model, request.keras_file)
    names = [i.model_name for i in signature]
    return [
        {i.name: batch[i.model_name].astype(i.dtype) for i in signature}
        for batch in calibration_batches(samples, names, CALIBRATION_ROWS, CALIBRATION_BATCH)
    ]


class _Flat(torch.nn.Module):  # type: ignore[misc]  # torch is not read by the type checker
    """The model as a module of flat inputs and outputs, in inference mode."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, *tensors: torch.Tensor) -> Any:
        structure = keras.tree.pack_sequence_as(self.model.input, list(tensors))
        return tuple(keras.tree.flatten(self.model(structure, training=False)))


def _write_onnx(request: ConvertRequest, model: keras.Model, samples: Samples, path: Path) -> None:
    import onnx

    from kcost.worker.convert.onnx_graph import replace_einsum

    signature = model_inputs(model, request.keras_file)
    rows = samples.rows(0, EXAMPLE_BATCH).inputs
    example = tuple(torch.from_numpy(rows[i.model_name].astype(i.dtype)) for i in signature)
    free = torch.export.Dim.DYNAMIC
    axes = tuple({axis: free for axis, size in enumerate(i.shape) if size is None} for i in signature)
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        try:
            program = torch.export.export(_Flat(model).eval(), example, dynamic_shapes={"tensors": axes}, strict=False)
            torch.onnx.export(
                program,
                (),
                str(path),
                input_names=[i.name for i in signature],
                output_names=output_names(model),
                dynamo=True,
                external_data=False,
                verbose=False,
            )
            graph = onnx.load(path)
        except MemoryError:
            raise
        except Exception as error:  # the exporters raise classes of their own, by the dozen
            raise refused(request.keras_file, request.runtime, error) from error
    replace_einsum(graph)
    _refuse_fixed_axes(request, graph, signature)
    onnx.checker.check_model(graph)
    onnx.save(graph, path)


def _refuse_fixed_axes(request: ConvertRequest, graph: Any, signature: list[ModelInput]) -> None:
    """An exporter that follows one example may take a size of the example for a size of the model."""
    for wanted, graph_input in zip(signature, graph.graph.input, strict=True):
        sizes = [d.dim_value for d in graph_input.type.tensor_type.shape.dim]
        if any(size is None and fixed for size, fixed in zip(wanted.shape, sizes, strict=True)):
            raise ArtifactError(
                "A converted model keeps the free axes of the model.",
                received=f"{request.keras_file}: {wanted.model_name!r} of shape {wanted.shape} became {sizes}",
                remedy="A layer computes with the size of that axis as a Python number. Use keras.ops.shape there.",
            )


def _quantize_onnx(request: ConvertRequest, source: Path, target: Path, feeds: list[dict[str, np.ndarray]]) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_dynamic,
        quantize_static,
    )

    class Feeds(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime is not read by the type checker
        def __init__(self) -> None:
            self._left = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    dense_alone = (request.runtime, request.precision) in DENSE_ALONE
    options = {
        "per_channel": True,
        "weight_type": QuantType.QInt8,
        "op_types_to_quantize": [*DENSE_OPERATIONS, *([] if dense_alone else ["Conv"])],
        "extra_options": {"MatMulConstBOnly": True},
    }
    logging.getLogger().setLevel(logging.ERROR)  # it advises a preparation that this graph does not need
    try:
        if request.precision == "int8_dynamic":
            quantize_dynamic(source, target, **options)
        else:
            activations = {"quant_format": QuantFormat.QDQ, "activation_type": QuantType.QUInt8}
            quantize_static(source, target, Feeds(), **activations, **options)
    except MemoryError:
        raise
    except Exception as error:
        raise refused(request.keras_file, f"ONNX in {request.precision}", error) from error


def _openvino(request: ConvertRequest, source: Path, feeds: list[dict[str, np.ndarray]]) -> None:
    need("openvino", "openvino")
    import openvino

    try:
        # read_model, not convert_model: the latter reports each use to its maker.
        model = openvino.Core().read_model(source)
        _keep_names(model, source)
        if request.precision == "int8":
            model = _quantize_openvino(model, feeds)
        openvino.save_model(model, request.path, compress_to_fp16=False)
    except MemoryError:
        raise
    except RuntimeError as error:
        raise refused(request.keras_file, "OpenVINO", error) from error


def _keep_names(model: Any, source: Path) -> None:
    """Names inputs and outputs as the ONNX file does: OpenVINO merges their names with those of casts beside them."""
    import onnx

    graph = onnx.load(source, load_external_data=False).graph
    for ports, wanted in ((model.inputs, graph.input), (model.outputs, graph.output)):
        for port, one in zip(ports, wanted, strict=True):
            port.get_tensor().set_names({one.name})


def _quantize_openvino(model: Any, feeds: list[dict[str, np.ndarray]]) -> Any:
    need("nncf", "openvino")
    os.environ["NNCF_CI"] = "1"  # or nncf reports each use to its maker
    import nncf

    nncf.set_log_level(logging.ERROR)
    # A layer normalisation (OpenVINO's MVN) tells a transformer, whose activations want another scheme.
    transformer = any(operation.get_type_name() == "MVN" for operation in model.get_ops())
    return nncf.quantize(
        model,
        nncf.Dataset(feeds),
        subset_size=len(feeds),
        model_type=nncf.ModelType.TRANSFORMER if transformer else None,
    )


def _versions(*packages: str) -> dict[str, str]:
    versions = {}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions
