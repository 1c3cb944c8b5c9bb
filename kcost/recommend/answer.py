"""What `kcost recommend` answers: `verdict.json`, and its words."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from kcost.core.schema import VERSIONS, Record
from kcost.core.units import format_usd, significant
from kcost.cost.assumptions import Assumptions
from kcost.cost.basis import CostBasis
from kcost.cost.budget import Budget
from kcost.cost.placements import Placement
from kcost.cost.traffic import Traffic
from kcost.cost.uncertainty import SURE, Band, Swing
from kcost.recommend.candidates import Candidate, LeftOut
from kcost.recommend.doubt import WORTH_USD, Doubt
from kcost.recommend.drop import DropBound
from kcost.recommend.variants import MadeVariant
from kcost.risk.figures import Figure
from kcost.risk.gates import Verdict as GateVerdict

Outcome = Literal["decided", "can't tell", "same bill", "only one", "measured beside other work", "nothing may be used"]
"""decided: the winner costs least with a probability of 95% or more. same bill: it and the next cost the same to the
cent. measured beside other work: by that or another disturbance no figure is to be believed. nothing may be used: no
way keeps the limits."""

ALL_INVALID = "no figure: each way that keeps the limits is INVALID. Do what stands beside it, then run it again"
SWINGS = 2


class Request(Record):
    """The request, so that it can be repeated."""

    model: str
    model_sha256: str
    data: str | None
    traffic: Traffic
    assumed: Assumptions
    p99_ms: float
    max_drop: float
    provider: str | None
    region: str | None
    instance: str | None
    prices_file: str | None = None
    minutes: float
    variants: bool = Field(default=False, description="cheaper versions of the model were to be made")
    probe: str | None = None
    thorough: bool = Field(default=False, description="everything that can win was to be tried")
    backends: tuple[str, ...] = Field(description="empty for all that are installed")
    batches: tuple[int, ...]
    device: str = "cpu"
    gates: str | None = None
    seed: int


class Ranked(Record):
    """One way that holds every limit, with its price."""

    name: str
    is_plain: bool
    probability: float = Field(description="that it costs least of all that are priced")
    usd_per_month: Band = Field(description="serving and energy, 730 hours")
    usd_total: Band = Field(description="over the horizon, with what is paid once; without errors")
    usd_with_errors: float = Field(description="the total, and what errors cost over the horizon; what is ranked by")
    errors_usd_per_month: Figure | None = Field(default=None, description="expected loss by the table [loss]")
    instance: str
    instances: int
    replicas: int
    batch_limit: int | None
    wait_ms: float | None
    p99_ms: float | None = Field(description="simulated")
    rounds: int
    basis: CostBasis
    drop: DropBound | None = Field(default=None, description="None for float32, whose outputs are held to 1e-4")


class Tried(Record):
    """A candidate, and what became of it."""

    name: str
    state: Literal["priced", "dearer", "refused", "disturbed", "failed", "not tried"]
    reason: str


class Recommendation(Record):
    """`verdict.json` of `kcost recommend`."""

    schema_: int = Field(default=VERSIONS["recommendation"], alias="schema")
    made_at: str
    request: Request
    outcome: Outcome
    winner: str | None = Field(description="the way to run; None where no figure may be given")
    words: tuple[str, ...] = Field(description="the answer in sentences, the first says what to run")
    ranked: tuple[Ranked, ...] = Field(description="the cheapest first")
    saved_usd_per_month: Band | None = Field(
        description="against plain Keras; None where that has no figure, or lacks a batch size that the winner has"
    )
    doubt: Doubt | None
    swings: tuple[Swing, ...] = Field(
        default=(), description="what each cause alone does to the saving a month over the next way, the widest first"
    )
    budget: Budget | None = Field(description="the bills of the ranked ways, each line with its basis")
    candidates: tuple[Candidate, ...] = Field(description="in the order in which they are measured")
    tried: tuple[Tried, ...] = Field(description="what became of each of them")
    left_out: tuple[LeftOut, ...] = Field(description="ways that could not be tried here")
    variants: tuple[MadeVariant, ...] = Field(default=(), description="cheaper versions of the model that were made")
    rescored: dict[str, DropBound] = Field(
        default={}, description="way -> its drop on more examples than its cells answered, where those did not decide"
    )
    refused_by_gates: dict[str, str] = Field(
        default={}, description="way -> the gate that it fails on its own answers, where the model as it is does not"
    )
    gates: tuple[GateVerdict, ...] = ()
    projected: tuple[Placement, ...] = Field(default=(), description="the winner on other machines, projected")
    notices: tuple[str, ...] = ()
    seconds: float = Field(description="that measuring took in this call")
    first_figures_s: float | None = None
    waves: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether a gate failed, or no way keeps the limits."""
        return self.outcome == "nothing may be used" or any(v.answer == "fail" for v in self.gates)

    @property
    def undecided(self) -> bool:
        """Whether something that was asked has no answer yet."""
        open_ = self.outcome in ("can't tell", "measured beside other work")
        return open_ or any(v.answer == "can't tell" for v in self.gates)


def outcome_of(ranked: Sequence[Ranked]) -> Outcome:
    """What a ranking comes to."""
    if not ranked:
        return "nothing may be used"
    if len(ranked) == 1:
        return "only one"
    if round(ranked[0].usd_with_errors, 2) == round(ranked[1].usd_with_errors, 2):
        return "same bill"
    return "decided" if ranked[0].probability >= SURE else "can't tell"


def words_of(
    model: str,
    ranked: Sequence[Ranked],
    plain: Ranked | None,
    saved: Band | None,
    doubt: Doubt,
    budget: Budget,
    swings: Sequence[Swing],
    plain_reason: str,
) -> tuple[str, ...]:
    """The answer: what to run where, what it costs and saves, how sure, what the doubt costs, what would change it.

    Args:
        plain: plain Keras among the ranked; None where it has no figure.
        plain_reason: why it has none.
    """
    best = ranked[0]
    words = [_what_to_run(model, best, budget)]
    words.append(_saving(best, plain, saved, budget.horizon_days, plain_reason))
    words.append(_how_sure(ranked))
    words.append(_doubt(doubt, budget.horizon_days))
    if (sentence := _what_would_change(ranked, swings)) is not None:
        words.append(sentence)
    return tuple(words)


def _what_to_run(model: str, best: Ranked, budget: Budget) -> str:
    plural = "" if best.instances == 1 else "s"
    how = "" if best.batch_limit is None else f", batches of up to {best.batch_limit}"
    if best.wait_ms:
        how += f" that wait {significant(best.wait_ms, 2)} ms at most"
    month = best.usd_per_month
    marks = "[simulated] " if budget.simulated else ""
    marks += f"[{best.basis}] " if best.basis not in ("measured", "simulated") else ""
    return (
        f"{marks}Run {model} as {best.name} on {best.instances} instance{plural} {best.instance}{how}: "
        f"{format_usd(month.value)} a month ({format_usd(month.low)} to {format_usd(month.high)}).{_errors(best)}"
    )


def _errors(best: Ranked) -> str:
    """What its errors cost beside the machines, where they have a price."""
    errors = best.errors_usd_per_month
    if errors is None:
        return ""
    between = f"{format_usd(errors.low)} to {format_usd(errors.high)}"
    return f" Its errors cost {format_usd(errors.value)} a month more ({between})."


def _saving(best: Ranked, plain: Ranked | None, saved: Band | None, days: float, plain_reason: str) -> str:
    if best.is_plain:
        return "That is today's way, plain Keras predict: nothing that was tried repays the move."
    if plain is None or saved is None:
        return f"Against today's way, plain Keras predict, no saving can be told: {plain_reason}."
    size = f"{format_usd(abs(saved.value))} a month ({format_usd(saved.low)} to {format_usd(saved.high)})"
    word = "saves" if saved.value >= 0 else "costs more:"
    total = plain.usd_total.value - best.usd_total.value
    takes = f"{plain.instances} instance{'' if plain.instances == 1 else 's'}"
    after = f"Over {days:g} days that is {format_usd(total)}, with the move paid"
    return f"It {word} {size} against plain Keras predict, which takes {takes}. {after}."


def _how_sure(ranked: Sequence[Ranked]) -> str:
    best = ranked[0]
    if len(ranked) == 1:
        return "It is the only way that has a figure and holds the limits."
    tied = [r for r in ranked if round(r.usd_with_errors, 2) == round(best.usd_with_errors, 2)]
    if len(tied) > 1:
        what = "instance" if best.instances == 1 else "instances"
        why = "it runs today" if best.is_plain else "it has most room" + ("" if best.drop else ", in float32")
        return f"{len(tied)} ways come to the same bill, {best.instances} {what} each: this one as {why}."
    chance = "over 99%" if best.probability > 0.995 else f"{best.probability:.0%}"
    if best.probability >= SURE:
        return f"It is the cheapest of {len(ranked)} with {chance} probability."
    rivals = [r for r in ranked[1:] if r.probability >= 0.05]
    named = ", ".join(f"{r.name} {r.probability:.0%}" for r in sorted(rivals, key=lambda r: -r.probability)[:2])
    return f"can't tell for sure: it is the cheapest of {len(ranked)} with {chance} probability" + (
        f"; next {named}." if named else "."
    )


def _doubt(doubt: Doubt, days: float) -> str:
    if not doubt.matters:
        words = (
            f"Choosing now loses less than {format_usd(WORTH_USD)} in {days:g} days on average: no doubt to pay for."
        )
    else:
        usd = format_usd(doubt.expected_loss_usd)
        words = f"The doubt costs {usd}: what choosing now loses on average in {days:g} days"
        parts = [f"{c.cause} alone {format_usd(c.usd)}" for c in doubt.by_cause if c.usd >= WORTH_USD][:2]
        words += f" ({', '.join(parts)})." if parts else "."
        step = next((c.usd for c in doubt.by_cause if c.cause == "step time"), 0.0)
        if doubt.measuring_usd is not None and doubt.measuring_minutes is not None and step >= WORTH_USD:
            price = f"{format_usd(doubt.measuring_usd)} of machine time"
            words += f" {significant(doubt.measuring_minutes, 2)} more minutes of measuring cost {price}."
        elif step < WORTH_USD:
            words += " More measuring would not lower it."
    if doubt.labels_for is not None and doubt.labels is not None:
        price = "" if doubt.labels_usd is None else f" ({format_usd(doubt.labels_usd)})"
        worth = "" if doubt.labels_worth_usd is None else f", worth {format_usd(doubt.labels_worth_usd)}"
        words += f" About {doubt.labels:,} more labels{price} would decide {doubt.labels_for}{worth}."
    return words


def _what_would_change(ranked: Sequence[Ranked], swings: Sequence[Swing]) -> str | None:
    wide = [s for s in swings if s.width_usd > 0][:SWINGS]
    if not wide or len(ranked) < 2:
        return None
    parts = [
        f"{s.cause} ({format_usd(s.low_usd)} to {format_usd(s.high_usd)}"
        + (", which turns it around)" if s.low_usd < 0 else ")")
        for s in wide
    ]
    over = ranked[1].name
    return f"What would change it: the saving a month over {over} moves most with {' and '.join(parts)}."
