"""A search as a table in the terminal: the trials, what matters, and what to take from it last."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import format_usd, significant
from kcost.report.tables import titled_table
from kcost.search.result import SearchResult, TrialRecord
from kcost.search.space import Choice, Parameter

ROWS = 20
OBJECTIVES = {"inference": "million predictions", "training": "training run"}
"""What the dollars of an objective are paid for."""


def show_search(console: Console, result: SearchResult, *, rows: int = ROWS) -> None:
    """Prints a search.

    Args:
        rows: most complete trials shown.
    """
    shown = [t for t in by_rank(result) if t.state == "complete"]
    if shown:
        console.print(_table(result, shown[:rows]))
        if len(shown) > rows:
            console.print(f"and {len(shown) - rows} more: --json has them all", highlight=False)
    for trial in result.in_state("failed", "stopped"):
        console.print(escape(f"trial {trial.number} {trial.state}: {trial.reason}"), highlight=False)
    for importance in result.importances:
        shares = ", ".join(f"{name} {share:.2f}" for name, share in importance.shares.items())
        console.print(f"what matters for {importance.objective} (PED-ANOVA, shares of 1): {shares}", highlight=False)
    for line in space_text(result):
        console.print(escape(line), highlight=False)
    for notice in result.notices:
        console.print(f"[yellow]{escape(notice)}[/yellow]", highlight=False)
    for sentence in summary(result):
        console.print(f"[bold]{escape(sentence)}[/bold]", highlight=False)


def _table(result: SearchResult, trials: list[TrialRecord]) -> Table:
    title = f"{result.study}: predicted USD per {OBJECTIVES[result.objective]}; * is on the Pareto front"
    table = titled_table(title)
    names = [p.name for p in result.space]
    for heading in ("trial", "score", "95% interval", "USD", *names):
        table.add_column(heading, justify="right", no_wrap=heading not in names)
    for trial in trials:
        assert trial.score is not None  # every complete trial has both
        assert trial.predicted is not None
        table.add_row(
            f"{trial.number}{' *' if trial.number in result.pareto else ''}",
            f"{trial.score.value:.4f}",
            f"{trial.score.low:.4f} to {trial.score.high:.4f}",
            format_usd(trial.predicted.usd),
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
    lines.append(
        "Scores are of the validation split, which picked the winner: they flatter it. "
        f"The test split was not looked at to choose: `kcost evaluate {cheap.artifact}` gives its score there."
    )
    assert cheap.predicted is not None
    assumptions = " ".join(cheap.predicted.assumptions)
    lines.append(f"Costs are predicted, not billed; basis: {cheap.predicted.basis}, {cheap.measured_as}. {assumptions}")
    return lines


def _how_much_cheaper(cheap: TrialRecord, best: TrialRecord) -> str:
    assert best.predicted is not None
    assert cheap.predicted is not None
    if cheap.predicted.high is None or cheap.predicted.high >= best.predicted.low:
        return " (but can't tell: the intervals of the two costs overlap)"
    return f", {significant(best.predicted.usd / cheap.predicted.usd)} times cheaper"


def _choice(result: SearchResult, trial: TrialRecord) -> str:
    assert trial.score is not None
    assert trial.predicted is not None
    score, cost = trial.score, trial.predicted
    high = "unbounded" if cost.high is None else format_usd(cost.high)
    return (
        f"trial {trial.number}, {score.name} {score.value:.4f} (95%: {score.low:.4f} to {score.high:.4f}, "
        f"{score.count} {score.unit}), {format_usd(cost.usd)} predicted per {OBJECTIVES[result.objective]} "
        f"(95%: {format_usd(cost.low)} to {high}), in {trial.artifact}"
    )
