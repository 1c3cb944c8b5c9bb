"""What was measured: environments, cells with their raw samples, and the run folder's index.

Only raw values are stored. Medians, intervals, scores and costs are derived when a run is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Annotated, Literal

from pydantic import ConfigDict, Field
from pydantic.dataclasses import dataclass

from kcost.core.answer import Answers
from kcost.core.cpu_quota import threads_within
from kcost.core.plan import CellSpec, Plan
from kcost.core.profile import Profile
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
    cpu_quota_cores: float | None = Field(
        default=None, description="cores whose time a container may take; None without a quota, and in older files"
    )
    memory_bytes: int
    numa_nodes: int | None = Field(default=None, description="memory nodes that the cores belong to")
    accelerators: tuple[str, ...] = ()
    python: str
    packages: dict[str, str] = Field(description="name -> version of the packages that matter")
    variables: dict[str, str] = Field(description="environment variables that change speed or results")
    git_revision: str | None = None

    @property
    def default_threads(self) -> int:
        """How many threads a process has there, where nobody names a number."""
        return threads_within(self.cores, self.cpu_quota_cores)

    @property
    def quota_below_cores(self) -> float | None:
        """The CPU quota, where it is less than the cores; another holds no thread back."""
        quota = self.cpu_quota_cores
        return None if quota is None or quota >= self.cores else quota

    @property
    def environment_id(self) -> str:
        """First 12 hexadecimal digits of the SHA-256 of the content.

        The revision is left out: one machine with the same packages is one environment over many commits. So is a CPU
        quota that holds nothing back, which older files know nothing of. One that does is another environment: other
        threads are started there.
        """
        left_out = {"git_revision"}
        if self.numa_nodes is None:
            left_out.add("numa_nodes")
        if self.quota_below_cores is None:
            left_out.add("cpu_quota_cores")
        return hashlib.sha256(self.model_dump_json(exclude=left_out).encode()).hexdigest()[:12]

    def differences(self, other: Environment) -> tuple[str, ...]:
        """Names of the fields, packages and variables in which two environments differ."""
        mine, theirs = ({**one.model_dump(), "cpu_quota_cores": one.quota_below_cores} for one in (self, other))
        differing: list[str] = []
        for field, value in mine.items():
            if isinstance(value, dict):
                names = sorted(k for k in value.keys() | theirs[field].keys() if value.get(k) != theirs[field].get(k))
                differing.extend(f"{field}.{name}" for name in names)
            elif value != theirs[field]:
                differing.append(field)
        return tuple(differing)


SAMPLES = ConfigDict(extra="forbid")
"""For what a large run has a hundred thousand of. As models, all of them, they would take three times the memory."""


@dataclass(frozen=True, slots=True, kw_only=True, config=SAMPLES)
class Watch:
    """What went on beside a cell in its turn: raw, as differences of counters. None where the system does not say."""

    wall_s: float = Field(description="of the turn, as the parent saw it")
    worker_cpu_s: float | None = Field(default=None, description="CPU time of the worker, all its threads")
    parent_cpu_s: float = Field(description="CPU time of the process that waits for the worker")
    machine_busy_s: float | None = Field(default=None, description="CPU time of all processes, over all cores")
    steal_s: float | None = Field(default=None, description="time in which a hypervisor ran other machines")
    cpu_mhz: float | None = Field(default=None, description="mean of the cores when the turn ended")
    throttles: int | None = Field(default=None, description="times that cores were slowed for heat or power")
    quota_periods: int | None = Field(default=None, description="periods of a CPU quota that the container ran in")
    quota_throttles: int | None = Field(default=None, description="those of them whose quota was used up")
    swapped_pages: int | None = Field(default=None, description="pages of memory swapped in or out")
    gpu_mhz: float | None = None
    gpu_other_processes: int | None = Field(default=None, description="processes on the GPU that are not kcost's")


@dataclass(frozen=True, slots=True, kw_only=True, config=SAMPLES)
class Round:
    """The samples of one cell in one round."""

    session: str = Field(description="one start of `kcost bench`; rounds pair only within a session")
    number: int = Field(ge=0)
    step_ns: tuple[int, ...] = Field(min_length=1, description="duration of each step, nanoseconds")
    load_1min: float | None = Field(default=None, description="system load average when the round began")
    watch: Watch | None = None
    peak_host_bytes: int | None = Field(default=None, description="peak resident memory of the worker in this turn")
    energy_uj: int | None = Field(default=None, description="counted for the whole machine or GPU in this turn")


class Preparation(Record):
    """What it took a worker to get a cell ready, and the settings that were really in force."""

    import_s: float = Field(description="importing the backend and Keras, once a worker")
    load_s: float = Field(description="reading the model and changing its precision, once a worker and precision")
    first_call_s: float = Field(description="the first step, compilation included")
    warmup_ns: tuple[int, ...] = Field(description="duration of each warm-up step, nanoseconds")
    settled: bool | None = Field(default=None, description="whether the warm-up settled before its longest time")
    started_beside: int = Field(default=0, description="other workers that were importing at the same time")
    backend_version: str
    device_name: str
    threads: int
    jit: bool
    tf32: bool | None = Field(description="None where the device has no TF32")
    inputs_on: Literal["host", "device"] = Field(description="where inputs and outputs of a step live")
    computed_dtype: str | None = Field(
        default=None,
        description="what the layers of the loaded model compute in, such as `float32` or `bfloat16 and float32`; None "
        "in older runs",
    )
    not_scored: str | None = Field(default=None, description="why its answers could not be kept to be judged")
    parameters: int
    peak_host_bytes: int | None = Field(default=None, description="peak resident memory of the worker by then")
    imported_host_bytes: int | None = Field(default=None, description="resident memory after importing, before a model")
    idle_watts: float | None = Field(default=None, description="what the energy counter shows while nothing runs")
    energy_source: str | None = Field(default=None, description="which counter; None where none can be read")
    peak_device_bytes: int | None = None
    simulated: bool = False
    answers: Answers | None = Field(
        default=None, description="what each output was taken as, the scored one among them; None in cells of before"
    )
    not_finite: str | None = Field(
        default=None, description="which outputs on samples, or which weights, were NaN or infinite, and how many"
    )


class MeasuredScenario(Record):
    """What the results of all scenarios have in common."""

    environment_id: str
    seed: int = Field(description="of the arrivals")
    scenario_s: float
    scenario_max_s: float
    failure: str | None = Field(default=None, description="why it did not come to its end, such as `crash: ...`")


class SingleStream(MeasuredScenario):
    """Queries of one sample, each issued when the one before had its answer."""

    scenario: Literal["single-stream"] = "single-stream"
    latency_ns: tuple[int, ...] = ()
    watch: Watch | None = None


class Offline(MeasuredScenario):
    """All samples are there from the beginning: steps of the cell's batch size, back to back."""

    scenario: Literal["offline"] = "offline"
    step_ns: tuple[int, ...] = ()
    watch: Watch | None = None


class AfterIdle(MeasuredScenario):
    """Steps of the cell's batch size that each begin after the model had nothing to do for a while."""

    scenario: Literal["after-idle"] = "after-idle"
    gap_ns: tuple[int, ...] = Field(default=(), description="how long it had nothing to do before each step")
    step_ns: tuple[int, ...] = Field(default=(), description="duration of each step, nanoseconds")
    watch: Watch | None = None


class Trial(Record):
    """One rate of arrivals: queries of one sample come as a Poisson process, whether or not the server keeps up."""

    queries_per_s: float = Field(gt=0, description="mean rate of the arrivals")
    queries: int = Field(gt=0, description="how many arrive; it was given up where there are fewer latencies")
    latency_ns: tuple[int, ...] = Field(description="from the scheduled arrival to the answer, in order of arrival")
    watch: Watch | None = None


class Server(MeasuredScenario):
    """The search for the highest rate whose p99 latency holds a bound."""

    scenario: Literal["server"] = "server"
    latency_bound_ms: float = Field(gt=0)
    capacity_per_s: float | None = Field(description="samples a second offline, above which no rate is tried")
    trials: tuple[Trial, ...] = Field(default=(), description="in the order in which they were made")


ScenarioResult = Annotated[SingleStream | Offline | AfterIdle | Server, Field(discriminator="scenario")]


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
        default=None,
        description="npz beside the cell: `outputs` of the parity probe, `predictions`, `labels`, of a tagger "
        "`unseen_labels`; of outputs other than the main one `outputs/NAME` and `predictions/NAME`; where a plan keeps "
        "outputs, `scored_outputs` of the main one",
    )
    scenarios: tuple[ScenarioResult, ...] = Field(
        default=(), description="one for each scenario and its settings, the latest last; see `core.scenario`"
    )
    profile: Profile | None = Field(default=None, description="where its time goes; None where nobody asked")


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
    train_once_s: float | None = Field(
        default=None, description="seconds of a training run before its steps: reading and starting; None: not measured"
    )
    train_epoch_s: float | None = Field(
        default=None, description="seconds of an epoch beside its steps: evaluating and saving; None: not measured"
    )
    data_sha256: str | None = Field(default=None, description="of the plan's data; None for the model's own samples")


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

    @property
    def present(self) -> tuple[CellResult, ...]:
        """The cells of the models and data in the index. Those of an earlier file of a model, or of other data, stay
        in the folder and are none of these."""
        now = {m.name: (m.sha256, m.data_sha256) for m in self.index.models}
        return tuple(c for c in self.cells if now.get(c.spec.model) == (c.spec.model_sha256, c.spec.data_sha256))

    def measured(self, model: str | None = None, phase: str | None = None) -> tuple[CellResult, ...]:
        """Those of the present cells that are ok, of one model and phase where these are given."""
        return tuple(
            c
            for c in self.present
            if c.status == "ok" and model in (None, c.spec.model) and phase in (None, c.spec.phase)
        )

    def entry(self, model: str) -> ModelEntry:
        """The index entry of a model by name. Raises KeyError for a name that the run does not know."""
        return {m.name: m for m in self.index.models}[model]


def failed(cells: Iterable[CellResult]) -> tuple[CellResult, ...]:
    """The cells that ended with a status other than ok."""
    return tuple(c for c in cells if c.status != "ok")
