"""The tensors of a Hugging Face folder, read without running anything that the folder brings along."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open

from kcost.core.errors import ArtifactError

WEIGHTS_FILE = "model.safetensors"
SHARDS_FILE = "model.safetensors.index.json"
_FLOATS = ("F64", "F32", "F16", "BF16")


class Tensors:
    """The tensors of a checkpoint by name: shapes at once, values when asked for."""

    def __init__(self, handles: dict[str, Any]) -> None:
        self._handles = handles

    def __iter__(self) -> Iterator[str]:
        return iter(self._handles)

    def __contains__(self, name: str) -> bool:
        return name in self._handles

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a tensor."""
        return tuple(self._handles[name].get_slice(name).get_shape())

    def is_float(self, name: str) -> bool:
        """Whether a tensor holds floating-point numbers."""
        return self._handles[name].get_slice(name).get_dtype() in _FLOATS

    def read(self, name: str) -> np.ndarray:
        """A tensor as float32."""
        return np.asarray(self._handles[name].get_tensor(name)).astype(np.float32)


@contextmanager
def open_tensors(folder: Path) -> Iterator[Tensors]:
    """Opens the safetensors files of a folder, one or several.

    Raises:
        ArtifactError: there are none, or one of them is damaged.
    """
    with ExitStack() as stack:
        handles: dict[str, Any] = {}
        for path in _files(folder):
            try:
                handle = stack.enter_context(safe_open(path, framework="numpy"))
            except (SafetensorError, OSError) as error:
                raise ArtifactError(
                    "The weights of a checkpoint are whole safetensors files.",
                    received=f"{path}: {error}",
                    remedy="The file is damaged, cut short or of another kind. Copy it again.",
                ) from error
            for name in handle.keys():  # noqa: SIM118 -- a handle is no mapping
                handles[name] = handle
        yield Tensors(handles)


def _files(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).is_file():
        return [folder / WEIGHTS_FILE]
    if (folder / SHARDS_FILE).is_file():
        return _shards(folder)
    pickles = sorted(p.name for p in folder.glob("pytorch_model*.bin"))
    if pickles:
        raise ArtifactError(
            "Weights are read from safetensors: loading a pickle can run code that the file brings along.",
            received=f"{folder} with {pickles[0]} only",
            remedy="If you trust the file, convert it once with transformers: "
            'AutoModelForTokenClassification.from_pretrained("DIR").save_pretrained("NEW_DIR") writes '
            f"{WEIGHTS_FILE} (AutoModel for a plain encoder).",
        )
    raise ArtifactError(
        f"A Hugging Face folder holds its weights in {WEIGHTS_FILE}.",
        received=f"{folder} without it",
        remedy="Copy the whole folder again, weights included.",
    )


def _shards(folder: Path) -> list[Path]:
    index = folder / SHARDS_FILE
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        paths = [folder / name for name in names]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            "The index of a sharded checkpoint maps each tensor to its file.",
            received=f"{index}: {type(error).__name__}: {error}",
            remedy="The file is damaged. Copy it again.",
        ) from error
    for name, path in zip(names, paths, strict=True):
        if Path(name).name != name or not path.is_file():
            raise ArtifactError(
                "The files of a sharded checkpoint lie beside its index.",
                received=f"{name!r} in {index}",
                remedy="Copy the whole folder again.",
            )
    return paths
