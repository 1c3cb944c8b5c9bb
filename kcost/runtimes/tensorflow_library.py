"""TensorFlow's C library, from its wheel, by ctypes: what kcost calls of it.

Sources: tensorflow/c/{c_api,tf_tensor,tf_status,tf_buffer,tf_tstring}.h.
"""

from __future__ import annotations

import ctypes
import functools
import os
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

from kcost.core.errors import UnavailableError

_LIBRARIES = ("libtensorflow_framework.so.2", "libtensorflow_cc.so.2")

Pointer = ctypes.c_void_p


class Buffer(ctypes.Structure):
    """TF_Buffer: bytes, how many, and who frees them."""

    _fields_ = (("data", Pointer), ("length", ctypes.c_size_t), ("deallocator", Pointer))


class Output(ctypes.Structure):
    """TF_Output: one output of an operation."""

    _fields_ = (("operation", Pointer), ("index", ctypes.c_int))


_FUNCTIONS: dict[str, tuple[Any, tuple[Any, ...]]] = {
    "TF_Version": (ctypes.c_char_p, ()),
    "TF_NewStatus": (Pointer, ()),
    "TF_DeleteStatus": (None, (Pointer,)),
    "TF_GetCode": (ctypes.c_int, (Pointer,)),
    "TF_Message": (ctypes.c_char_p, (Pointer,)),
    "TF_NewBuffer": (ctypes.POINTER(Buffer), ()),
    "TF_DeleteBuffer": (None, (ctypes.POINTER(Buffer),)),
    "TF_NewGraph": (Pointer, ()),
    "TF_DeleteGraph": (None, (Pointer,)),
    "TF_GraphOperationByName": (Pointer, (Pointer, ctypes.c_char_p)),
    "TF_OperationNumOutputs": (ctypes.c_int, (Pointer,)),
    "TF_OperationOutputType": (ctypes.c_int, (Output,)),
    "TF_NewSessionOptions": (Pointer, ()),
    "TF_DeleteSessionOptions": (None, (Pointer,)),
    "TF_SetConfig": (None, (Pointer, ctypes.c_char_p, ctypes.c_size_t, Pointer)),
    "TF_LoadSessionFromSavedModel": (
        Pointer,
        (
            *(Pointer, Pointer, ctypes.c_char_p, ctypes.POINTER(ctypes.c_char_p), ctypes.c_int),
            *(Pointer, ctypes.POINTER(Buffer), Pointer),
        ),
    ),
    "TF_CloseSession": (None, (Pointer, Pointer)),
    "TF_DeleteSession": (None, (Pointer, Pointer)),
    "TF_SessionRun": (
        None,
        (
            *(Pointer, Pointer),
            *(ctypes.POINTER(Output), ctypes.POINTER(Pointer), ctypes.c_int),
            *(ctypes.POINTER(Output), ctypes.POINTER(Pointer), ctypes.c_int),
            *(Pointer, ctypes.c_int, Pointer, Pointer),
        ),
    ),
    "TF_AllocateTensor": (Pointer, (ctypes.c_int, ctypes.POINTER(ctypes.c_int64), ctypes.c_int, ctypes.c_size_t)),
    "TF_DeleteTensor": (None, (Pointer,)),
    "TF_NumDims": (ctypes.c_int, (Pointer,)),
    "TF_Dim": (ctypes.c_int64, (Pointer, ctypes.c_int)),
    "TF_TensorData": (Pointer, (Pointer,)),
    "TF_StringInit": (None, (Pointer,)),
    "TF_StringCopy": (None, (Pointer, ctypes.c_char_p, ctypes.c_size_t)),
    "TF_StringDealloc": (None, (Pointer,)),
    "TF_StringGetSize": (ctypes.c_size_t, (Pointer,)),
    "TF_StringGetDataPointer": (Pointer, (Pointer,)),
}
"""Name -> (result, arguments)."""


@functools.cache
def library() -> ctypes.CDLL:
    """TensorFlow's C library, from the wheel.

    The path finder is asked directly: a worker that hides the tensorflow package from imports may still use
    the library, and nothing of the package is imported.
    """
    spec = PathFinder.find_spec("tensorflow")
    folders = [Path(p) for p in (spec.submodule_search_locations or ())] if spec is not None else []
    for folder in folders:
        if all((folder / name).is_file() for name in _LIBRARIES):
            for name in _LIBRARIES:
                loaded = ctypes.CDLL(str(folder / name), mode=os.RTLD_LOCAL)
            for function, (result, arguments) in _FUNCTIONS.items():
                getattr(loaded, function).restype = result
                getattr(loaded, function).argtypes = arguments
            return loaded
    raise UnavailableError(
        "Running a SavedModel needs the TensorFlow library.",
        received=f"an environment without {' and '.join(_LIBRARIES)}",
        remedy="Install it, on Linux: pip install 'kcost[tensorflow]'",
    )


def library_version() -> str:
    """Version of the TensorFlow library. Raises UnavailableError where there is none."""
    version: bytes = library().TF_Version()
    return version.decode()
