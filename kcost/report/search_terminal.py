"""A search in the terminal: what to take from it first, then the trials, then what limits it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import UsdScale, significant, usd_scale
from kcost.report.tables import ROWS, show_lines, show_more, show_notices, titled_table
from kcost.search.result import SearchResult, TrialRecord
from kcost.search.space import Choice, Parameter

OBJECTIVES = {"inference": "million predictions", "training": "training run"}
"""What the dollars of an objective are paid for."""

COLUMNS, WIDE = 3, 90
"""Searched settings that a table on one screen shows, on a terminal this wide, beside trial, score and dollars."""


def show_search(console: Console, result: SearchResult, *, everything: bool = False) -> None:
    """Prints a search: on one screen, or every trial, parameter and notice."""
    show_lines(console, conclusions(result), style="bold")
    trials = [t for t in by_rank(result) if t.state == "complete"]
    shown = trials if everything else trials[:ROWS]
    if shown:
        columns = len(result.space) if everything else COLUMNS if console.width >= WIDE else 0
        console.print(_table(result, shown, columns))
    show_more(console, len(trials) - len(shown), "trials")
    failed = [f"trial {t.number} {t.state}: {t.reason}" for t in result.in_state("failed", "stopped")]
    limits = [*result.notices, *failed, *basis(result)]
    show_notices(console, limits, everything=everything, style="yellow")
    for importance in result.importances:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in importance.shares.items())
        show_lines(console, [f"what matters for {importance.objective} (PED-ANOVA, shares of 1): {shares}"])
    show_lines(console, space_text(result))


def _table(result: SearchResult, trials: list[TrialRecord], columns: int) -> Table:
    scale = scale_of(result)
    table = titled_table(f"{result.study}: predicted USD per {scale.unit}; * is on the Pareto front")
    names = [p.name for p in result.space][:columns]
    for heading in ("trial", "score", "95% interval", "USD", *names):
        table.add_column(heading, justify="right", overflow="fold")
    for trial in trials:
        assert trial.score is not None  # every complete trial has both
        assert trial.predicted is not None
        table.add_row(
            f"{trial.number}{' *' if trial.number in result.pareto else ''}",
            f"{trial.score.value:.4f}",
            f"{trial.score.low:.4f} to {trial.score.high:.4f}",
            scale.text(trial.predicted.usd),
            *(_value(trial.params.get(name)) for name in names),
        )
    return table


def _value(value: object) -> str:
    if value is None:
        return "-"
    return significant(value) if isinstance(value, float) else escape(str(value))


def by_rank(result: SearchResult) -> list[TrialRecord]:
    """The trials, complete ones first and the highest score first, then the others as they began."""
    complete = [t for t in result.trials if t.state == "complete"]
    ranked = sorted(
        complete, key=lambda t: (-t.score.value if t.score else 0.0, t.predicted.usd if t.predicted else 0.0, t.number)
    )
    return [*ranked, *(t for t in result.trials if t.state != "complete")]


def space_text(result: SearchResult) -> list[str]:
    """What was searched and what was fixed, a line each."""
    searched = "; ".join(_range(p) for p in result.space) or "nothing"
    fixed = ", ".join(f"{name} {value}" for name, value in result.fixed.items()) or "nothing"
    return [f"searched: {searched}", f"fixed: {fixed}; all else as `kcost train` has it"]


def _range(parameter: Parameter) -> str:
    if isinstance(parameter, Choice):
        return f"{parameter.name} of {', '.join(str(v) for v in parameter.values)}"
    scale = ", log scale" if parameter.log else ""
    return f"{parameter.name} from {parameter.low:g} to {parameter.high:g}{scale}"


def summary(result: SearchResult) -> list[str]:
    """What the search says, a sentence each; how far it may be trusted among them."""
    return [*conclusions(result), *basis(result)]


def conclusions(result: SearchResult) -> list[str]:
    """What to take from the search, a sentence each."""
    states = [(s, len(result.in_state(s))) for s in ("complete", "pruned", "failed", "stopped", "running", "waiting")]
    counts = ", ".join(f"{n} {state}" for state, n in states if n)
    lines = [f"{result.study} on {result.backend}: {counts or 'no trials'}, of {result.trials_asked} wanted."]
    if result.best is None or result.cheapest_as_good is None:
        return [*lines, "No trial is complete: there is nothing to choose from."]
    best, cheap = result.trial(result.best), result.trial(result.cheapest_as_good)
    lines.append(f"Best score: {_choice(result, best)}.")
    if cheap.number == best.number:
        lines.append("No cheaper trial has a score within its 95% interval.")
    else:
        lines.append(f"Cheapest within its 95% interval{_how_much_cheaper(cheap, best)}: {_choice(result, cheap)}.")
    return lines


def basis(result: SearchResult) -> list[str]:
    """What scores and costs of the search rest on, a sentence each."""
    if result.cheapest_as_good is None:
        return []
    cheap = result.trial(result.cheapest_as_good)
    assert cheap.predicted is not None
    assumptions = " ".join(cheap.predicted.assumptions)
    return [
        "Scores are of the validation split, which picked the winner: they flatter it. "
        f"The test split was not looked at to choose: `kcost evaluate {cheap.artifact}` gives its score there.",
        f"Costs are predicted, not billed; basis: {cheap.predicted.basis}, {cheap.measured_as}. {assumptions}",
    ]


def scale_of(result: SearchResult) -> UsdScale:
    """The unit in which the dollars of all trials read at a glance."""
    return usd_scale((t.predicted.usd for t in result.trials if t.predicted is not None), OBJECTIVES[result.objective])


def _how_much_cheaper(cheap: TrialRecord, best: TrialRecord) -> str:
    assert best.predicted is not None
    assert cheap.predicted is not None
    if cheap.predicted.high is None or cheap.predicted.high >= best.predicted.low:
        return " (but can't tell: the intervals of the two costs overlap)"
    return f", {significant(best.predicted.usd / cheap.predicted.usd)} times cheaper"


def _choice(result: SearchResult, trial: TrialRecord) -> str:
    assert trial.score is not None
    assert trial.predicted is not None
    score, cost, scale = trial.score, trial.predicted, scale_of(result)
    high = "unbounded" if cost.high is None else scale.text(cost.high)
    return (
        f"trial {trial.number}, {score.name} {score.value:.4f} (95%: {score.low:.4f} to {score.high:.4f}, "
        f"{score.count} {score.unit}), {scale.text(cost.usd)} predicted per {scale.unit} "
        f"(95%: {scale.text(cost.low)} to {high}), in {trial.artifact}"
    )
