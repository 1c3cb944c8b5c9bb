"""What a server and the process that runs its model tell one another: how it starts, and what it serves."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from kcost.core.schema import Record

MODEL_SOCKET_FD = "a socket that the process inherits"


class ServeRequest(Record):
    """Loads a SavedModel and runs what comes on a socket until that closes."""

    folder: Path = Field(description="with saved_model.pb")
    socket_fd: int = Field(description=f"{MODEL_SOCKET_FD}; its messages are those of core/frames.py")
    threads: int = Field(description="CPU threads, 0 for every core")
    cores: tuple[int, ...] = Field(description="CPU cores that the process may use")


class ServeAnswer(Record):
    """The socket was closed."""

    runs: int = Field(description="of the model")


class ServedTensor(Record):
    """An input or output of a signature."""

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None = Field(description="None on a free axis; None where the rank is free")
    graph_name: str = Field(description="as TensorFlow calls it, such as x:0; empty for a sparse one")


class ServedSignature(Record):
    """A signature of a loaded model."""

    name: str
    method: str
    inputs: tuple[ServedTensor, ...]
    outputs: tuple[ServedTensor, ...]
    refused_because: str | None = Field(default=None, description="why it cannot be run; None where it can")


class ServedModel(Record):
    """What a process serves, in the order that RUN messages count in."""

    signatures: tuple[ServedSignature, ...]
    library_version: str
