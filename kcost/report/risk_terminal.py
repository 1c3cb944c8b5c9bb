"""A risk report in the terminal: the answer first, on one screen, then what limits it."""

from __future__ import annotations

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.risk.figures import Figure
from kcost.risk.report import RiskReport


def show_risk(console: Console, report: RiskReport) -> None:
    """What a report says."""
    console.print(f"[bold]{escape(conclusion(report))}[/bold]", highlight=False)
    console.print(_scores(report))
    for line in limits(report):
        console.print(escape(line), highlight=False)
    where = report.evidence
    console.print(
        escape(f"All figures, with reliability table and risk-coverage curve: --json. From {where.predictions_file} "
               f"({where.predictions_sha256[:12]}), {where.backend}."),
        highlight=False,
    )


def conclusion(report: RiskReport) -> str:
    """The report in a sentence."""
    test = next(s.score for s in report.scores if s.split == "test")
    before, after = report.calibration.error, report.calibration_at_temperature.error
    lean = "sure of itself" if report.temperature.value > 1 else "doubtful of itself"
    told = f"{report.model}: {text_of(test)} on test; its probabilities are off by {text_of(before, named=False)}"
    return f"{told}, too {lean}; a temperature of {report.temperature.value:.2f} makes that {after.value:.4f}."


def _scores(report: RiskReport) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in ("", "value", "95% interval", "rests on"):
        table.add_column(heading, justify="left" if heading in ("", "rests on") else "right")
    for one in report.scores:
        _add(table, f"{one.score.name}, {one.split}", one.score)
    _add(table, "calibration error, test", report.calibration.error)
    _add(table, "the same at the temperature", report.calibration_at_temperature.error)
    _add(table, "log loss, test", report.calibration.log_loss)
    _add(table, "Brier score, test", report.calibration.brier)
    return table


def _add(table: Table, name: str, figure: Figure) -> None:
    interval = f"{figure.low:.4f} to {figure.high:.4f}"
    table.add_row(escape(name), f"{figure.value:.4f}", interval, f"{figure.count:,} {figure.unit}")


def limits(report: RiskReport) -> list[str]:
    """What is to be known before the figures are used."""
    told = []
    wanted = report.coverage.abstention
    if wanted is not None and wanted.threshold is None:
        told.append(f"no threshold meets an error of {wanted.target_error:g} for sure (95%) on validation")
    elif wanted is not None:
        assert wanted.coverage is not None
        assert wanted.error is not None
        told.append(
            f"answering from {wanted.threshold:.4f} on: {text_of(wanted.coverage, named=False)} of test "
            f"answered, of that {text_of(wanted.error, named=False)} wrong; {wanted.target_error:g} was the target"
        )
    if report.temperature.no_optimum:
        told.append("no temperature does best on validation, as where no answer of it is wrong: it stays at 1")
    if report.evidence.dataset.synthetic:
        told.append(f"{report.evidence.dataset.name} is synthetic: figures on it say that a pipeline works")
    return told


def text_of(figure: Figure, *, named: bool = True) -> str:
    """A figure with its interval."""
    name = f"{figure.name} " if named else ""
    return f"{name}{figure.value:.4f} (95%: {figure.low:.4f} to {figure.high:.4f})"
