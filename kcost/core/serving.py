"""What a server and the process that runs its model tell one another: how it starts, and what it serves."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from kcost.core.conversion import Runtime
from kcost.core.schema import Record

MODEL_SOCKET_FD = "a socket that the process inherits"


class ServeRequest(Record):
    """Loads a model and runs what comes on a socket until that closes."""

    folder: Path = Field(description="with saved_model.pb, or with conversion.json")
    runtime: Runtime = "saved_model"
    socket_fd: int = Field(description=f"{MODEL_SOCKET_FD}; its messages are those of core/frames.py")
    threads: int = Field(ge=1, description="CPU threads")
    cores: tuple[int, ...] = Field(description="CPU cores that the process may use")
    tries: bool = Field(default=True, description="whether the model is called before it is READY")


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
    alone_because: str | None = Field(
        default=None, description="why a request has to run by itself; None where several may run as one"
    )
    pads: bool = Field(
        default=False, description="whether zeros behind a row change none of its answers, as was tried at loading"
    )
    step_places: int = Field(
        default=0, description="how many places of padded rows a step costs by itself, as was timed at loading"
    )
    packed: int | None = Field(
        default=None,
        ge=0,
        description="the place of the signature that takes its rows end to end, as was tried at loading; None for none",
    )
    attention_places: float = Field(
        default=0.0,
        ge=0,
        description="how many places of rows cost as much as one of a row that looks at one of a line, as was timed at "
        "loading; of rows that lie end to end",
    )


class ServedModel(Record):
    """What a process serves, in the order that RUN messages count in."""

    signatures: tuple[ServedSignature, ...]
    library_version: str
    platform: str = Field(default="tensorflow_savedmodel", description="as the Open Inference Protocol calls it")


class Batching(Record):
    """How a server puts requests together, chosen from measured step times for some traffic."""

    allowed_batch_sizes: tuple[int, ...] = Field(
        min_length=1, description="that were measured, ascending; the last is the largest"
    )
    timeout_us: int = Field(ge=0, description="how long the first request of a batch that is not full waits")
    max_enqueued_batches: int = Field(ge=1, description="more of them could not be answered within the p99")
    replicas: int = Field(ge=1, description="that the traffic takes")
    threads: int = Field(
        ge=0, description="CPU threads of a replica, 0 for every core, or as many as a CPU quota allows"
    )
    busy_percent: int = Field(ge=1, le=100, description="of a replica's time, at the highest rate that holds the p99")
    p99_ms: float = Field(description="of a replica at its part of the traffic, simulated from measured steps")
    why: str = Field(description="what it was chosen from, a sentence")
