"""What the measuring worker is asked, operation by operation, and what it answers to each."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from kcost.core.conversion import Runtime
from kcost.core.profile import Profile
from kcost.core.request import MeasureRequest
from kcost.core.result import Preparation
from kcost.core.scenario import Ask
from kcost.core.schema import Record


class StartRequest(Record):
    """Import the backend, or the runtime in its place."""

    op: Literal["start"] = "start"
    runtime: Runtime | None = None


class StartAnswer(Record):
    """What importing took."""

    op: Literal["start"] = "start"
    import_s: float


class PrepareRequest(Record):
    """Get a cell ready for its turns."""

    op: Literal["prepare"] = "prepare"
    request: MeasureRequest
    started_beside: int = Field(default=0, ge=0, description="other workers that were importing at the same time")


class PrepareAnswer(Record):
    """The cell is ready."""

    op: Literal["prepare"] = "prepare"
    preparation: Preparation


class RoundRequest(Record):
    """Give a cell that is ready a turn."""

    op: Literal["round"] = "round"
    cell_id: str
    round_s: float = Field(description="shortest time of the turn; its last step ends after that")


class RoundAnswer(Record):
    """What a turn took."""

    op: Literal["round"] = "round"
    step_ns: tuple[int, ...] = Field(description="duration of each step, nanoseconds")
    cpu_s: float = Field(description="CPU time, all threads")
    peak_host_bytes: int | None = Field(description="most memory that was resident in this turn")


class ScenarioRequest(Record):
    """Have a cell that is ready answer queries: a whole scenario, or one rate of it."""

    op: Literal["scenario"] = "scenario"
    cell_id: str
    ask: Ask


class ScenarioAnswer(Record):
    """What the queries took."""

    op: Literal["scenario"] = "scenario"
    durations_ns: tuple[int, ...] = Field(description="latencies; for offline durations of steps")
    cpu_s: float = Field(description="CPU time, all threads")


class ProfileRequest(Record):
    """Look into a cell that is ready."""

    op: Literal["profile"] = "profile"
    cell_id: str


class ProfileAnswer(Record):
    """Where the time of a cell goes."""

    op: Literal["profile"] = "profile"
    profile: Profile


class ReleaseRequest(Record):
    """Forget all cells."""

    op: Literal["release"] = "release"


class ReleaseAnswer(Record):
    """All cells are forgotten."""

    op: Literal["release"] = "release"


class FailureAnswer(Record):
    """The cell failed by itself; the worker goes on."""

    op: Literal["failure"] = "failure"
    status: Literal["oom", "crash"]
    reason: str


MeasureOperation = Annotated[
    StartRequest | PrepareRequest | RoundRequest | ScenarioRequest | ProfileRequest | ReleaseRequest,
    Field(discriminator="op"),
]
MeasureAnswer = Annotated[
    StartAnswer | PrepareAnswer | RoundAnswer | ScenarioAnswer | ProfileAnswer | ReleaseAnswer | FailureAnswer,
    Field(discriminator="op"),
]
