"""Gates on time and dollars of what is recommended: as it would be served under the traffic, not as a step is timed."""

from __future__ import annotations

from collections.abc import Iterator

from kcost.cost.assumptions import HOURS_PER_MONTH
from kcost.cost.traffic import Traffic
from kcost.recommend.answer import Ranked
from kcost.risk.gates import Answer, Gates, Verdict, exactly, no_evidence

SERVED_GATES = ("max_p99_ms", "max_usd_per_million")


def served_verdicts(limits: Gates, row: Ranked, traffic: Traffic) -> dict[str, Verdict]:
    """The answers of those of SERVED_GATES that are set, by gate.

    A p99 is the simulated one from a request's arrival to its answer. Dollars are those of a month, idle time included,
    over the requests of a month: they pass or fail where their whole 90% interval does.

    Args:
        row: the way that is judged, as it is priced.
        traffic: that it is priced for.
    """
    return dict(_verdicts(limits, row, traffic))


def _verdicts(limits: Gates, row: Ranked, traffic: Traffic) -> Iterator[tuple[str, Verdict]]:
    basis = "" if row.basis == "measured" else f", {row.basis}"
    if limits.max_p99_ms is not None:
        gate, limit, p99_ms = "max_p99_ms", limits.max_p99_ms, row.p99_ms
        if p99_ms is None:
            yield gate, no_evidence(gate, limit, "the queue was not simulated")
        else:
            said = f"{p99_ms:.3g} ms from arrival to answer, simulated{basis}"
            yield gate, exactly(gate, limit, p99_ms <= limit, said)
    if limits.max_usd_per_million is not None:
        gate, limit = "max_usd_per_million", limits.max_usd_per_million
        millions = traffic.mean_queries_per_s * HOURS_PER_MONTH * 3600 / 1e6
        value, low, high = (
            usd / millions for usd in (row.usd_per_month.value, row.usd_per_month.low, row.usd_per_month.high)
        )
        answer: Answer = "pass" if high <= limit else "fail" if low > limit else "can't tell"
        said = f"${value:.3g} (90%: ${low:.3g} to ${high:.3g}) at this traffic, idle time included{basis}"
        yield gate, Verdict(gate=gate, limit=limit, answer=answer, because=said)
