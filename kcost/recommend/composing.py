"""Puts the document of a recommendation together from what was judged, priced and spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from kcost.cost.placements import Placement
from kcost.recommend.answer import ALL_INVALID, Ranked, Recommendation, Request, Tried, outcome_of, words_of
from kcost.recommend.candidates import Listed
from kcost.recommend.pricing import Priced
from kcost.recommend.spent import Spent
from kcost.recommend.standings import Judged
from kcost.recommend.variants import MadeVariant
from kcost.risk.gates import Verdict as GateVerdict


def compose(
    request: Request,
    model: str,
    listed: Listed,
    judged: Judged,
    priced: Priced | None,
    spent: Spent,
    *,
    gates: tuple[GateVerdict, ...],
    notices: Sequence[str],
    projected: tuple[Placement, ...],
    made: Sequence[MadeVariant],
    made_at: str,
    none_because: str | None = None,
) -> Recommendation:
    """The document; without a way that is priced it has words and no figure.

    Args:
        none_because: why none is priced, where neither the answers nor other work is it.
    """
    tried = _tried(listed, judged, priced, spent)
    more = [*(_version_told(v, request.max_drop) for v in made), *notices]
    if judged.invalid and priced is not None:
        counted = f"{len(judged.invalid)} of {len(judged.ways) or 1} ways have no figure here"
        name, reason = next(iter(judged.invalid.items()))
        more.insert(0, f"{counted}: {name}: {reason}. Then run the same command again.")
    known = {
        "made_at": made_at,
        "request": request,
        "candidates": listed.candidates,
        "tried": tried,
        "left_out": listed.left_out,
        "variants": tuple(made),
        "gates": gates,
        "projected": projected,
        "notices": tuple(more),
        "seconds": spent.seconds,
        "first_figures_s": spent.first_figures_s,
        "waves": spent.waves,
    }
    if priced is None:
        disturbed = bool(judged.invalid)
        none_measured = not (judged.ways or judged.refused)
        why = "no way could be measured" if none_measured else "no way keeps the limits"
        why = ALL_INVALID if disturbed else why
        reasons = judged.invalid if disturbed else {**judged.refused, **spent.failed}
        reasons_told = [f"{name}: {reason}" for name, reason in list(reasons.items())[:3]]
        words = (f"{model}: {why}.", *((none_because,) if none_because is not None and not disturbed else reasons_told))
        return Recommendation(
            outcome="measured beside other work" if disturbed else "nothing may be used",
            winner=None,
            words=words,
            ranked=(),
            saved_usd_per_month=None,
            doubt=None,
            budget=None,
            **known,
        )
    plain = next((r for r in priced.ranked if r.is_plain), None)
    words = words_of(
        model,
        priced.ranked,
        plain,
        priced.saved,
        priced.doubt,
        priced.budget,
        priced.swings,
        _why_no_saving(listed, judged, tried, plain, priced.ranked[0]),
    )
    return Recommendation(
        outcome=outcome_of(priced.ranked),
        winner=priced.ranked[0].name,
        words=words,
        ranked=priced.ranked,
        saved_usd_per_month=priced.saved,
        doubt=priced.doubt,
        swings=priced.swings,
        budget=priced.budget,
        **known,
    )


def _version_told(version: MadeVariant, max_drop: float) -> str:
    """What a cheaper version of the model scores beside it, and whether it may be used."""
    score = version.score
    text = (
        f"{version.variant}: {score.score} {score.before:.2%} before, {score.after:.2%} after, on {score.count:,} "
        f"{score.unit}; it may have dropped by {score.bound:.2%} (bound of 95%)"
    )
    return f"{text}, more than --max-drop {max_drop:.2%}: not used." if score.bound > max_drop else f"{text}."


def _why_no_saving(listed: Listed, judged: Judged, tried: Sequence[Tried], priced: Ranked | None, best: Ranked) -> str:
    """Why none is told, where none is.

    Args:
        priced: plain Keras, where it has a figure: of fewer batch sizes than the best way then.
    """
    if priced is not None:
        sizes = ", ".join(str(batch) for batch in judged.lacking(priced.name, best.name))
        return f"it was not measured at batch {sizes}, as {best.name} was: the same command with more --minutes goes on"
    plain = next((c.name for c in listed.candidates if c.is_plain), None)
    if plain is None:
        return "it was not among the candidates"
    fate = next((t for t in tried if t.name == plain), None)
    if fate is not None and fate.state == "refused":
        return f"it does not hold the limits ({fate.reason})"
    return judged.invalid.get(plain) or ("it was not measured" if fate is None else fate.reason)


def _tried(listed: Listed, judged: Judged, priced: Priced | None, spent: Spent) -> tuple[Tried, ...]:
    """What became of each candidate, in the order in which they were listed."""
    ranked: Mapping[str, int] = {} if priced is None else {r.name: i for i, r in enumerate(priced.ranked, start=1)}
    dearer = {} if priced is None else priced.dearer
    refused = {**judged.refused, **({} if priced is None else priced.refused)}
    fates = []
    for candidate in listed.candidates:
        name = candidate.name
        if name in ranked:
            fates.append(Tried(name=name, state="priced", reason=f"place {ranked[name]} of {len(ranked)}"))
        elif name in judged.invalid:
            fates.append(Tried(name=name, state="disturbed", reason=judged.invalid[name]))
        elif name in refused:
            fates.append(Tried(name=name, state="refused", reason=refused[name]))
        elif name in dearer:
            fates.append(Tried(name=name, state="dearer", reason=dearer[name]))
        elif name in spent.failed:
            fates.append(Tried(name=name, state="failed", reason=spent.failed[name]))
        else:
            why = spent.skipped.get(name, "no time went to it")
            fates.append(Tried(name=name, state="not tried", reason=why))
    return tuple(fates)
