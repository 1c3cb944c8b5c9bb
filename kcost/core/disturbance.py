"""Whether what went on beside a cell's turns leaves its figures worth believing. Derived when a run is read."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from kcost.core.result import CellResult, Environment, Round, Run, Watch
from kcost.core.schema import Record
from kcost.core.units import format_percent

Kind = Literal["other-work", "steal", "busy-parent", "frequency", "throttled", "swapping", "gpu-shared", "quota"]

INVALID_CELLS = 0.25
"""A run is INVALID when more than this share of its measured cells is."""


class Limits(NamedTuple):
    """From where on something is told, and from where on it makes a cell INVALID."""

    tell: float
    invalid: float


LIMITS: dict[Kind, Limits] = {
    "other-work": Limits(0.05, 0.20),
    "steal": Limits(0.02, 0.10),
    "busy-parent": Limits(0.05, 0.25),
    "frequency": Limits(0.05, 0.20),
    "throttled": Limits(0.0, 0.25),
    "swapping": Limits(0.0, 0.25),
    "gpu-shared": Limits(0.0, 0.25),
    "quota": Limits(0.05, 0.25),
}
"""Shares: of the machine's CPU time (other-work, steal), of the time of the turns (busy-parent), of the lowest clock
(frequency), of the quota's periods (quota), of the turns (the others). They are choices, not laws: two busy processes
beside a cell on two to eight cores make it INVALID, an idle desktop does not."""

_TEXTS: dict[Kind, tuple[str, str]] = {
    "other-work": ("other processes took {} of the machine's CPU time", "Measure again while nothing else runs."),
    "steal": ("a hypervisor kept {} of the CPU time for other machines", "Use a machine of its own, or another hour."),
    "busy-parent": ("the waiting parent took {} of the turns' time itself", "Run kcost without a debugger or tracer."),
    "frequency": ("the CPU's clock moved by {}", "Fix the clock: cpupower frequency-set -g performance, no turbo."),
    "throttled": ("the CPU was slowed for heat or power in {} of the turns", "Cool it, or measure shorter rounds."),
    "swapping": ("memory was swapped in {} of the turns", "Free memory, or measure fewer cells at a time."),
    "gpu-shared": ("another process was on the GPU in {} of the turns", "End it, or choose another GPU."),
    "quota": (
        "a CPU quota of fewer cores than threads stopped these in {} of its periods, which a median step does not hold",
        "Measure with no more threads than the quota has cores, or give the container the time of more cores.",
    ),
}


_STOPPED_BY_OTHERS = (
    "a CPU quota stopped the container in {} of its periods, with no more threads of these than the quota has cores",
    "Stop what else runs in the container, measure one backend at a time, or give it the time of one more core.",
)
"""The text of `quota` where a cell's own threads cannot use it up. All of the container count: the parent, workers that
wait for their turn without sleeping, other programs."""


class Disturbance(Record):
    """Something that went on beside a cell's turns, beyond its limit."""

    kind: Kind
    text: str
    number: float
    limit: float
    invalid: bool
    remedy: str

    @property
    def with_remedy(self) -> str:
        """What it is and what to do about it, within a sentence."""
        return f"{self.text}: {self.remedy[0].lower()}{self.remedy[1:].removesuffix('.')}"


def disturbances(cell: CellResult, environment: Environment) -> tuple[Disturbance, ...]:
    """What disturbed a cell's turns, in the order of `Kind`; empty for rounds that nobody watched."""
    watched = disturbances_of([r.watch for r in cell.rounds if r.watch is not None], environment)
    texts: dict[Kind, tuple[str, str]] = {"quota": _of_quota(cell, environment)}
    return (*watched, *_beyond_limits([("quota", _throttled_periods(cell.rounds))], texts))


def disturbances_of(watched: Sequence[Watch], environment: Environment) -> tuple[Disturbance, ...]:
    """What disturbed the turns that were watched, in the order of `Kind`; empty for none.

    A CPU quota isn't among it: it disturbs medians of steps alone, and percentiles hold its pauses.
    """
    if not watched:
        return ()
    return tuple(_beyond_limits(_shares(watched, environment.cores)))


def _beyond_limits(
    shares: Iterable[tuple[Kind, float | None]], texts: Mapping[Kind, tuple[str, str]] = _TEXTS
) -> Iterator[Disturbance]:
    for kind, number in shares:
        tell, invalid = LIMITS[kind]
        if number is not None and number > tell:
            text, remedy = texts[kind]
            beyond = number > invalid
            yield Disturbance(
                kind=kind,
                text=text.format(format_percent(number)),
                number=number,
                limit=invalid if beyond else tell,
                invalid=beyond,
                remedy=remedy,
            )


def _shares(watched: Sequence[Watch], cores: int) -> Iterator[tuple[Kind, float | None]]:
    # Summed over all turns: the kernel counts in hundredths of a second, and a turn may be as short as that.
    wall_s = sum([w.wall_s for w in watched])
    machine_s = wall_s * cores
    yield "other-work", _share([_foreign_cpu_s(w) for w in watched], machine_s)
    yield "steal", _share([w.steal_s for w in watched], machine_s)
    yield "busy-parent", sum([w.parent_cpu_s for w in watched]) / wall_s if wall_s else None
    clocks = [w.cpu_mhz for w in watched if w.cpu_mhz]
    yield "frequency", max(clocks) / min(clocks) - 1 if clocks else None
    yield "throttled", _turns_with([w.throttles for w in watched])
    yield "swapping", _turns_with([w.swapped_pages for w in watched])
    yield "gpu-shared", _turns_with([w.gpu_other_processes for w in watched])


def _foreign_cpu_s(watch: Watch) -> float | None:
    if watch.machine_busy_s is None or watch.worker_cpu_s is None:
        return None
    return watch.machine_busy_s - watch.worker_cpu_s - watch.parent_cpu_s


def _share(parts: Iterable[float | None], whole: float) -> float | None:
    known = [p for p in parts if p is not None]
    return max(0.0, sum(known) / whole) if known and whole else None


def _throttled_periods(rounds: Sequence[Round]) -> float | None:
    """Part of a quota's periods in which it was used up, of rounds whose steps are shorter than a period.

    A longer step has the pauses in it: it takes as long as that in this container.
    """
    counted = [
        (r.watch.quota_throttles, r.watch.quota_periods)
        for r in rounds
        if r.watch is not None and r.watch.quota_periods and r.watch.quota_throttles is not None
        if not _is_longer_than_a_period(r)
    ]
    return sum(throttled for throttled, _ in counted) / sum(periods for _, periods in counted) if counted else None


def _is_longer_than_a_period(one: Round) -> bool:
    """Whether the steps of a round are longer than the periods of a quota that were counted in it."""
    return one.watch is not None and one.watch.quota_periods is not None and len(one.step_ns) <= one.watch.quota_periods


def _uses_up_quota(cell: CellResult, environment: Environment) -> bool:
    """Whether a cell has more threads than the quota of its container has cores. Older runs do not tell the quota."""
    quota = environment.cpu_quota_cores
    return quota is None or cell.preparation is None or cell.preparation.threads > quota


def _of_quota(cell: CellResult, environment: Environment) -> tuple[str, str]:
    """What is said of a quota that stopped a cell's turns, and the remedy."""
    if not _uses_up_quota(cell, environment):
        return _STOPPED_BY_OTHERS
    text, remedy = _TEXTS["quota"]
    quota = environment.cpu_quota_cores
    return text, remedy if quota is None or quota >= 1 else "Give the container the time of one core at least."


def holds_pauses(cell: CellResult, environment: Environment) -> bool:
    """Whether the pauses that a CPU quota makes are in a cell's steps, as these are longer than its periods."""
    return _uses_up_quota(cell, environment) and any(
        r.watch is not None and r.watch.quota_throttles and _is_longer_than_a_period(r) for r in cell.rounds
    )


def _turns_with(counts: Iterable[int | None]) -> float | None:
    known = [c for c in counts if c is not None]
    return sum(c > 0 for c in known) / len(known) if known else None


def invalid_cell(cell: CellResult, environment: Environment) -> str | None:
    """Why a cell's figures are not to be believed, and what to do about it; None where nothing says so."""
    return invalid_by(disturbances(cell, environment))


def invalid_by(disturbed: Iterable[Disturbance]) -> str | None:
    """What of the disturbances makes figures not to be believed, with their remedies; None where none does."""
    return "; ".join(d.with_remedy for d in disturbed if d.invalid) or None


def invalid_run(run: Run) -> str | None:
    """Why a run as a whole is INVALID; None where at most INVALID_CELLS of its measured cells are."""
    return invalid_if_many([invalid_cell(c, run.environments[c.environment_id]) for c in run.measured()])


def invalid_if_many(cells: Sequence[str | None]) -> str | None:
    """As `invalid_run`, from what `invalid_cell` says of each measured cell."""
    reasons = [reason for reason in cells if reason is not None]
    if not cells or len(reasons) / len(cells) <= INVALID_CELLS:
        return None
    return f"{len(reasons)} of {len(cells)} cells were disturbed beyond the limits: {reasons[0]}"
