"""What was measured: environments, cells with their raw samples, and the run folder's index.

Only raw values are stored. Medians, intervals, scores and costs are derived when a run is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Literal

from pydantic import Field

from kcost.core.plan import CellSpec, Plan
from kcost.core.schema import VERSIONS, Record

Status = Literal["ok", "partial", "unsupported", "oom", "timeout", "crash"]
"""ok: measured as planned. partial: its run was cut short and goes on from here. The others carry a reason."""


class Environment(Record):
    """The machine and software that a cell was measured on."""

    schema_: int = Field(default=VERSIONS["environment"], alias="schema")
    host: str
    os: str
    machine: str
    cpu_model: str
    cpu_features: tuple[str, ...] = Field(description="instruction sets that decide the speed of a model")
    cores: int = Field(description="cores that this process may run on")
    memory_bytes: int
    accelerators: tuple[str, ...] = ()
    python: str
    packages: dict[str, str] = Field(description="name -> version of the packages that matter")
    variables: dict[str, str] = Field(description="environment variables that change speed or results")
    git_revision: str | None = None

    @property
    def environment_id(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the content.

        The revision is left out: one machine with the same packages is one environment over many commits.
        """
        return hashlib.sha256(self.model_dump_json(exclude={"git_revision"}).encode()).hexdigest()[:12]


class Round(Record):
    """The samples of one cell in one round."""

    session: str = Field(description="one start of `kcost bench`; rounds pair only within a session")
    number: int = Field(ge=0)
    step_ns: tuple[int, ...] = Field(min_length=1, description="duration of each step, nanoseconds")
    load_1min: float | None = Field(default=None, description="system load average when the round began")


class Preparation(Record):
    """What it took a worker to get a cell ready, and the settings that were really in force."""

    import_s: float = Field(description="importing the backend and Keras, once a worker")
    load_s: float = Field(description="reading the model and changing its precision, once a worker and precision")
    first_call_s: float = Field(description="the first step, compilation included")
    warmup_ns: tuple[int, ...] = Field(description="duration of each warm-up step, nanoseconds")
    backend_version: str
    device_name: str
    threads: int
    jit: bool
    tf32: bool | None = Field(description="None where the device has no TF32")
    inputs_on: Literal["host", "device"] = Field(description="where inputs and outputs of a step live")
    parameters: int
    peak_host_bytes: int | None = Field(default=None, description="peak resident memory of the worker by then")
    peak_device_bytes: int | None = None
    simulated: bool = False


class CellResult(Record):
    """A cell's spec with what came of it."""

    schema_: int = Field(default=VERSIONS["cell"], alias="schema")
    spec: CellSpec
    environment_id: str
    status: Status
    reason: str | None = Field(default=None, description="why the status is not ok")
    preparation: Preparation | None = None
    rounds: tuple[Round, ...] = ()
    outputs_file: str | None = Field(
        default=None, description="npz beside the cell: `outputs` of the parity probe, `predictions`, `labels`"
    )


class ModelEntry(Record):
    """A model as a run knows it."""

    name: str
    path: str
    sha256: str
    task: str
    dataset: str | None
    synthetic_data: bool
    label_names: tuple[str, ...] = ()
    train_examples: int | None = Field(default=None, description="size of the training split, for the cost of a run")
    train_epochs: int | None = None


class RunIndex(Record):
    """`run.json` of a run folder."""

    schema_: int = Field(default=VERSIONS["run"], alias="schema")
    created_at: str
    plan: Plan
    models: tuple[ModelEntry, ...]


class Run(Record):
    """A run folder in memory: the index, the environments by id and the cells."""

    index: RunIndex
    environments: dict[str, Environment]
    cells: tuple[CellResult, ...]

    def measured(self, model: str | None = None, phase: str | None = None) -> tuple[CellResult, ...]:
        """The cells with status ok, of one model and phase where these are given."""
        return tuple(
            c
            for c in self.cells
            if c.status == "ok" and model in (None, c.spec.model) and phase in (None, c.spec.phase)
        )

    def entry(self, model: str) -> ModelEntry:
        """The index entry of a model by name. Raises KeyError for a name that the run does not know."""
        return {m.name: m for m in self.index.models}[model]


def failed(cells: Iterable[CellResult]) -> tuple[CellResult, ...]:
    """The cells that ended with a status other than ok."""
    return tuple(c for c in cells if c.status != "ok")
