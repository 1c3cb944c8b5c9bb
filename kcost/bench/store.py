"""A run on disk: one folder, one file a cell, so that a sweep that was cut short loses one cell at most.

RUN/run.json                the index: plan and models
RUN/environments/<id>.json  the machines that cells were measured on
RUN/cells/<cell_id>.json    one cell: spec, status, raw samples
RUN/cells/<cell_id>.npz     what that cell's model answered
RUN/logs/                   what the workers printed
RUN/built/                  models that were built from module:function or a checkpoint
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np

from kcost.core import schema
from kcost.core.artifact import refuse_existing
from kcost.core.errors import InputError, SchemaError, storage
from kcost.core.garbage_collection import collector_paused
from kcost.core.result import CellResult, Environment, Run, RunIndex

INDEX_FILE = "run.json"
CELLS_FOLDER = "cells"
ENVIRONMENTS_FOLDER = "environments"
LOGS_FOLDER = "logs"
BUILT_FOLDER = "built"
"""Models that were built from `module:function` or a checkpoint, before there is a run."""

LOCAL_HEADER = struct.Struct("<26x2H")
"""What stands before each member of a zip archive: after 26 bytes the lengths of its name and of its extra field."""


class RunStore:
    """Reads and writes one run folder. Every file is written whole or not at all."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)

    @property
    def logs(self) -> Path:
        """The folder for what workers print; `create` makes it."""
        return self.path / LOGS_FOLDER

    def exists(self) -> bool:
        """Whether the folder holds a run's index. Says nothing of whether it can be read."""
        return (self.path / INDEX_FILE).is_file()

    def refuse_taken(self) -> None:
        """Raises StorageError where the folder holds something else than a run, or models that were built for one."""
        if not self.exists():
            self._refuse_content()

    def _refuse_content(self) -> None:
        if not (self.path.is_dir() and [p.name for p in self.path.iterdir()] == [BUILT_FOLDER]):
            refuse_existing(self.path)

    def create(self, index: RunIndex) -> None:
        """Makes the folder of a new run, which may hold models that were built for it.

        Raises:
            StorageError: the folder holds something else already, or cannot be written to.
        """
        self._refuse_content()
        with storage(self.path):
            for folder in (CELLS_FOLDER, ENVIRONMENTS_FOLDER, LOGS_FOLDER):
                (self.path / folder).mkdir(parents=True, exist_ok=True)
        schema.write(self.path / INDEX_FILE, index)

    def update(self, index: RunIndex) -> None:
        """Replaces the index of an existing run. Raises StorageError where it cannot be written."""
        schema.write(self.path / INDEX_FILE, index)

    def outputs_file(self, cell_id: str) -> Path:
        """Where a cell's outputs lie."""
        return self.path / CELLS_FOLDER / f"{cell_id}.npz"

    def open(self) -> RunIndex:
        """The index of an existing run.

        Raises:
            InputError: the folder is not there, or holds no run.
            SchemaError: the index is damaged or of a newer schema.
        """
        if not self.exists():
            what = "a folder without it" if self.path.is_dir() else "which is no folder"
            raise InputError(
                f"A run is a folder that holds {INDEX_FILE}.",
                received=f"{self.path}, {what}",
                remedy="Name a folder that `kcost bench --out` made.",
            )
        return schema.read("run", self.path / INDEX_FILE, RunIndex)

    def write_environment(self, environment: Environment) -> str:
        """Stores an environment, once, and returns its id. Raises StorageError where it cannot be written."""
        environment_id = environment.environment_id
        path = self.path / ENVIRONMENTS_FOLDER / f"{environment_id}.json"
        if not path.exists():  # its name is a hash of its content
            schema.write(path, environment)
        return environment_id

    def write_cell(self, result: CellResult) -> None:
        """Stores a cell in the place of what the run held of it. Raises StorageError where it cannot be written."""
        schema.write(self.path / CELLS_FOLDER / f"{result.spec.cell_id}.json", result)

    def write_outputs(self, cell_id: str, **arrays: np.ndarray) -> str:
        """Stores what a cell's model answered and returns the value for `CellResult.outputs_file`.

        Args:
            arrays: by name; `outputs` of the parity probe, `predictions` and `labels`, any shape, no objects.

        Raises:
            StorageError: the file cannot be written.
        """
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # numpy types its own flag into **kwds
        name = f"{cell_id}.npz"
        schema.write_bytes(self.path / CELLS_FOLDER / name, buffer.getvalue())
        return name

    def read_outputs(self, cell: CellResult) -> dict[str, np.ndarray] | None:
        """The arrays that `write_outputs` stored for a cell, read-only; None for a cell without any.

        Raises:
            SchemaError: the file that the cell names is missing or damaged.
        """
        if cell.outputs_file is None:
            return None
        path = self.path / CELLS_FOLDER / Path(cell.outputs_file).name
        try:
            return dict(_arrays(path.read_bytes()))
        except Exception as error:  # zipfile, zlib and numpy meet damage with a dozen kinds of exception
            raise SchemaError(
                "The outputs of a cell are an npz file beside it.",
                received=f"{path}: {error}",
                remedy="Delete the cell's .json and .npz files and run `kcost bench` again: it measures what is gone.",
            ) from error

    def read_cell(self, cell_id: str) -> CellResult | None:
        """One cell, None where the run does not hold it. Raises SchemaError, naming the file, as `load` does."""
        path = self.path / CELLS_FOLDER / f"{cell_id}.json"
        return schema.read("cell", path, CellResult) if path.exists() else None

    @collector_paused()
    def load(self) -> Run:
        """The whole run, cells in the order of their file names.

        Raises:
            InputError: the folder holds no run.
            SchemaError: one of its files is damaged or of a newer schema, or a cell names an environment
                that the run does not hold; the message names the file.
        """
        index = self.open()
        environments = {
            path.stem: schema.read("environment", path, Environment)
            for path in sorted((self.path / ENVIRONMENTS_FOLDER).glob("*.json"))
        }
        cells = []
        for path in sorted((self.path / CELLS_FOLDER).glob("*.json"), key=str):
            cell = schema.read("cell", path, CellResult)
            if cell.environment_id not in environments:
                raise SchemaError(
                    f"A run holds the environment of each of its cells in {ENVIRONMENTS_FOLDER}/.",
                    received=f"{path}: environment {cell.environment_id}, which is not there",
                    remedy="Copy run folders whole. Delete the cell to have it measured again.",
                )
            cells.append(cell)
        return Run(index=index, environments=environments, cells=tuple(cells))


@lru_cache(maxsize=64)
def _arrays(npz: bytes) -> dict[str, np.ndarray]:
    """The arrays in the bytes of an npz file. Cells that answer alike have equal files: those are read once."""
    with zipfile.ZipFile(io.BytesIO(npz)) as archive:
        return {m.filename.removesuffix(".npy"): _member(npz, m) for m in archive.infolist()}


def _member(npz: bytes, member: zipfile.ZipInfo) -> np.ndarray:
    """One array of an npz file.

    Cells whose outputs differ, if by a rounding, still have equal labels and mostly equal predictions: those are looked
    up by their packed bytes. `ZipFile.read` would unpack them first, and takes longer than unpacking.
    """
    name_bytes, extra_bytes = LOCAL_HEADER.unpack_from(npz, member.header_offset)
    start = member.header_offset + LOCAL_HEADER.size + name_bytes + extra_bytes
    packed = npz[start : start + member.compress_size]
    unpack = _unpacked if member.filename == "outputs.npy" else _unpacked_once
    return unpack(packed, member.compress_type, member.CRC)


@lru_cache(maxsize=1024)
def _unpacked_once(packed: bytes, method: int, crc: int) -> np.ndarray:
    return _unpacked(packed, method, crc)


def _unpacked(packed: bytes, method: int, crc: int) -> np.ndarray:
    npy = zlib.decompress(packed, -zlib.MAX_WBITS) if method == zipfile.ZIP_DEFLATED else packed
    if zlib.crc32(npy) != crc:
        raise zipfile.BadZipFile("an array does not have the checksum that the archive gives for it")
    return _array(npy)


def _array(npy: bytes) -> np.ndarray:
    """The array in the bytes of an npy file, read-only.

    As numpy's own reader, but for one thing: that one takes longer over the header than over a small array, and the
    thousands of cells of a run have a handful of different headers.
    """
    file = io.BytesIO(npy)
    if np.lib.format.read_magic(file) != (1, 0):
        file.seek(0)
        array: np.ndarray = np.lib.format.read_array(file, allow_pickle=False)
        array.setflags(write=False)
        return array
    end = file.tell() + 2 + int.from_bytes(npy[file.tell() : file.tell() + 2], "little")
    shape, column_major, dtype = _header(npy[:end])
    return np.frombuffer(npy, dtype, offset=end).reshape(shape, order="F" if column_major else "C")


@lru_cache(maxsize=256)
def _header(start: bytes) -> tuple[tuple[int, ...], bool, np.dtype]:
    """Shape, order and dtype from the beginning of an npy file of version 1.0. Raises ValueError for objects."""
    file = io.BytesIO(start)
    np.lib.format.read_magic(file)
    shape, column_major, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded")
    return shape, column_major, dtype


def open_run(path: Path | str) -> Run:
    """A run folder in memory. Raises as `RunStore.load` does."""
    return RunStore(path).load()
