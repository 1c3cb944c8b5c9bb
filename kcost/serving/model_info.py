"""Status and metadata of models, as TensorFlow Serving prints these messages in JSON."""

from __future__ import annotations

from typing import Any

from kcost.core.serving import ServedTensor
from kcost.serving.model_version import ModelVersion
from kcost.serving.status import Code

_DATA_TYPES = {
    "float32": "DT_FLOAT",
    "float64": "DT_DOUBLE",
    "float16": "DT_HALF",
    "bool": "DT_BOOL",
}


def status_document(versions: list[ModelVersion]) -> dict[str, Any]:
    """GetModelStatusResponse. Numbers of 64 bits are strings, as protocol buffers have them in JSON."""
    return {"model_version_status": [_status(version) for version in versions]}


def _status(version: ModelVersion) -> dict[str, Any]:
    code, text = load_error(version)
    return {
        "version": str(version.version),
        "state": version.state,
        "status": {"error_code": code.name, "error_message": text},
    }


def load_error(version: ModelVersion) -> tuple[Code, str]:
    """Why a version was not loaded: a code and a line; OK where it was, with what its trial at loading ended by."""
    failure = version.failure
    if failure is None:
        return Code.OK, f"Served without a trial: {version.untried_because}" if version.untried_because else ""
    code = Code.NOT_FOUND if "not find" in str(failure) else Code.INTERNAL
    return code, " ".join(str(failure).split("\n"))


def metadata_document(version: ModelVersion) -> dict[str, Any]:
    """GetModelMetadataResponse with the one field `signature_def`."""
    signatures = () if version.served is None else version.served.signatures
    described = {
        s.name: {
            "inputs": {tensor.name: _tensor(tensor) for tensor in s.inputs},
            "outputs": {tensor.name: _tensor(tensor) for tensor in s.outputs},
            "method_name": s.method,
            "defaults": {},
        }
        for s in signatures
    }
    return {
        "model_spec": {"name": version.name, "signature_name": "", "version": str(version.version)},
        "metadata": {"signature_def": {"signature_def": described}},
    }


def _tensor(tensor: ServedTensor) -> dict[str, Any]:
    axes = () if tensor.shape is None else tensor.shape
    named = _DATA_TYPES.get(tensor.dtype, f"DT_{tensor.dtype.upper()}")
    return {
        "dtype": "DT_INVALID" if tensor.dtype.startswith("DataType") else named,
        "tensor_shape": {
            "dim": [{"size": "-1" if size is None else str(size), "name": ""} for size in axes],
            "unknown_rank": tensor.shape is None,
        },
        "name": tensor.graph_name,
    }
