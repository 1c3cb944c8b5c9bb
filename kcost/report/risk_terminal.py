"""A risk report in the terminal: the answer first, on one screen, then what limits it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kcost.core.units import significant
from kcost.report.tables import ROWS, show_lines, show_more, show_notices
from kcost.risk.figures import Figure
from kcost.risk.gates import Verdict
from kcost.risk.out_of_distribution import OutOfDistribution
from kcost.risk.report import RiskReport
from kcost.risk.robustness import Robustness
from kcost.risk.seeds import Seeds

CHANGES = 6
"""Of a table of changes on one screen."""

_NUMBERS = frozenset({"value", "measured", "95% interval", "lower by", "confidence"})
STYLES = {"pass": "green", "fail": "bold red", "can't tell": "yellow"}


def show_risk(console: Console, report: RiskReport, *, everything: bool = False) -> None:
    """What a report says: on one screen, or every gate, figure, change and limit."""
    console.print(f"[bold]{escape(conclusion(report))}[/bold]", highlight=False)
    if report.verdicts:
        verdicts = sorted(report.verdicts, key=lambda v: ("fail", "can't tell", "pass").index(v.answer))
        shown = verdicts if everything else verdicts[:ROWS]
        console.print(_verdicts(shown))
        show_more(console, len(verdicts) - len(shown), "gates")
    if everything or not report.verdicts:
        figures = figures_of(report)
        count = len(figures) if everything else ROWS
        console.print(_figures(dict(list(figures.items())[:count])))
        show_more(console, len(figures) - count, "figures")
    if report.robustness is not None:
        console.print(_changes(report.robustness, everything))
        show_more(console, 0 if everything else len(report.robustness.conditions) - CHANGES, "changes, which cost less")
    show_notices(console, limits(report), everything=everything)
    where = report.evidence
    footer = (
        f"Everything else, such as the reliability table: --json. From {where.predictions_file} on {where.backend}."
    )
    console.print(escape(footer), highlight=False)


def show_verified(console: Console, lines: Sequence[str], *, everything: bool = False) -> None:
    """Whether a card is as its evidence has it, then each line that is not."""
    sentence = f"{len(lines)} line(s) differ:" if lines else "every figure is as its evidence has it"
    show_lines(console, [sentence], style="bold")
    shown = lines if everything else lines[:ROWS]
    show_lines(console, [f"  {line}" for line in shown])
    show_more(console, len(lines) - len(shown))


def conclusion(report: RiskReport) -> str:
    """The report in a sentence."""
    test = report.test_score
    if report.verdicts:
        counts = {answer: sum(v.answer == answer for v in report.verdicts) for answer in STYLES}
        gates = ", ".join(f"{n} {word}" for word, n in counts.items() if n)
        standing = "fails" if report.failed else "is open" if report.undecided else "passes"
        return f"{report.model} {standing}: of {len(report.verdicts)} gates {gates}. {text_of(test)} on test."
    before, after = report.calibration.error, report.calibration_at_temperature.error
    sentence = f"{report.model}: {text_of(test)} on test; its probabilities are off by {text_of(before, named=False)}"
    if report.temperature.no_optimum:
        return sentence + "."
    lean = "sure of itself" if report.temperature.value > 1 else "doubtful of itself"
    return f"{sentence}, too {lean}; a temperature of {report.temperature.value:.2f} makes that {after.value:.4f}."


def _verdicts(verdicts: Sequence[Verdict]) -> Table:
    table = _table("gate", "limit", "measured", "95% interval", "answer")
    for verdict in verdicts:
        figure, name = verdict.figure, verdict.gate
        if verdict.slice is not None:
            name += f" ({verdict.slice})"
        value = "-" if figure is None else number(figure.value)
        interval = "-" if figure is None else f"{number(figure.low)} to {number(figure.high)}"
        limit = verdict.limit if isinstance(verdict.limit, str) else f"{verdict.limit:g}"
        style = STYLES[verdict.answer]
        table.add_row(escape(name), escape(limit), value, interval, f"[{style}]{escape(verdict.sentence)}[/]")
    return table


def figures_of(report: RiskReport) -> dict[str, Figure]:
    """The main figures of a report, by what they are of."""
    rows = {f"{one.score.name}, {one.split}": one.score for one in report.scores}
    rows |= {"train less test": report.gap, "calibration error, test": report.calibration.error}
    rows |= {"the same at the temperature": report.calibration_at_temperature.error}
    rows |= {"log loss, test": report.calibration.log_loss, "Brier score, test": report.calibration.brier}
    worst = report.slices.worst
    if worst is not None:
        rows[f"worst slice, {worst.name}"] = worst.score
    if report.flips is not None:
        rows[f"drop from {report.flips.against}"] = report.flips.drop
    if report.label_noise is not None:
        rows["labels that look wrong"] = report.label_noise.share
    if report.loss is not None:
        rows["USD of errors a million"] = report.loss
    if report.robustness is not None:
        worst_change = report.robustness.worst
        rows[f"{worst_change.score.name} under {worst_change.name}"] = worst_change.score
    if report.out_of_distribution is not None:
        for detection in report.out_of_distribution.detections:
            rows[f"AUROC of {detection.by} against {report.out_of_distribution.other.name}"] = detection.auroc
    if report.seeds is not None:
        rows |= {"mean over seeds": report.seeds.mean, "deviation between seeds": report.seeds.deviation}
    return rows


def _figures(figures: Mapping[str, Figure]) -> Table:
    table = _table("", "value", "95% interval", "rests on")
    for name, figure in figures.items():
        interval = f"{number(figure.low)} to {number(figure.high)}"
        table.add_row(escape(name), number(figure.value), interval, f"{figure.count:,} {figure.unit}")
    return table


def _changes(robustness: Robustness, everything: bool) -> Table:
    table = _table("under", "value", "95% interval", "lower by", "95% interval", "confidence")
    clean = robustness.clean
    table.add_row(
        f"nothing, {robustness.examples:,} examples",
        number(clean.value),
        f"{number(clean.low)} to {number(clean.high)}",
        "",
        "",
        number(robustness.clean_confidence),
    )
    for one in robustness.conditions if everything else robustness.conditions[:CHANGES]:
        table.add_row(
            escape(one.name),
            number(one.score.value),
            f"{number(one.score.low)} to {number(one.score.high)}",
            number(one.drop.value),
            f"{number(one.drop.low)} to {number(one.drop.high)}",
            number(one.mean_confidence),
        )
    return table


def robustness_lines(robustness: Robustness) -> list[str]:
    """What a model's scores under changes say, and what they leave out."""
    worst, lines = robustness.worst, []
    falls = text_of(worst.drop, named=False)
    if not worst.attack:
        lines.append(
            f"of {sum(not c.attack for c in robustness.conditions)} changes of the test examples {worst.name} costs "
            f"most: {falls} of {worst.score.name}, at a confidence of {worst.mean_confidence:.2f} "
            f"where it was {robustness.clean_confidence:.2f}"
        )
    if robustness.not_attacked_because is not None:
        lines.append(robustness.not_attacked_because)
    return lines


def ood_lines(ood: OutOfDistribution) -> list[str]:
    """Whether other data can be told."""
    best, name = ood.best, ood.other.name
    tells = f"{best.by} tells test from {name}" if best.auroc.low > 0.5 else f"{best.by} does not tell test from {name}"
    lines = [
        f"{tells}: AUROC {text_of(best.auroc, named=False)}; a threshold that keeps 95% of test lets "
        f"{text_of(best.let_through, named=False)} of {name} through"
    ]
    if ood.no_energy_because is not None:
        lines.append(f"no energy: {ood.no_energy_because}")
    return lines


def seed_lines(seeds: Seeds) -> list[str]:
    """What one seed cannot say."""
    another = seeds.another
    return [
        f"of {len(seeds.scores)} seeds: one more training would score {another.low:.4f} to {another.high:.4f} (95%, "
        f"taken as normal); one seed against one cannot say of a difference below {seeds.smallest_difference:.4f} "
        "whether it is of the settings or of the seed"
    ]


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="right" if heading in _NUMBERS else "left")
    return table


def limits(report: RiskReport) -> list[str]:
    """What is to be known before the figures are used, the most serious first."""
    lines = []
    if report.evidence.dataset.synthetic:
        lines.append(f"{report.evidence.dataset.name} is synthetic: figures on it say that a pipeline works")
    lines += _data_lines(report)
    for one in report.slices.search.slices[:3]:
        lines.append(
            f"wrong more often in {one.name}: {one.rate:.1%} of {one.examples:,}, elsewhere {one.rate_elsewhere:.1%} "
            f"(of {report.slices.search.looked_at:,} slices looked at; p {one.p_value:.2g} after Holm)"
        )
    for apart in report.disparities:
        if apart.difference.low > 0:
            lines.append(
                f"{apart.measure} differs by {apart.column}: {apart.largest_in} above {apart.least_in} by "
                f"{text_of(apart.difference, named=False)}"
            )
    flips = report.flips
    if flips is not None:
        where = "".join(f"; lost more often in {s.name}" for s in flips.lost_on.slices[:2])
        lines.append(
            f"from {flips.against}: {flips.answers_changed.value:.2%} of {flips.drop.unit} changed, {flips.lost:,} "
            f"lost, {flips.gained:,} gained{where}"
        )
    if report.robustness is not None:
        lines += robustness_lines(report.robustness)
    if report.out_of_distribution is not None:
        lines += ood_lines(report.out_of_distribution)
    if report.seeds is not None:
        lines += seed_lines(report.seeds)
    wanted = report.coverage.abstention
    if wanted is not None and wanted.threshold is None:
        lines.append(f"no threshold meets an error of {wanted.target_error:g} for sure (95%) on validation")
    elif wanted is not None:
        assert wanted.coverage is not None
        assert wanted.error is not None
        lines.append(
            f"answering from {wanted.threshold:.4f} on: {text_of(wanted.coverage, named=False)} of test "
            f"answered, of that {text_of(wanted.error, named=False)} wrong; {wanted.target_error:g} was the target"
        )
    if report.temperature.no_optimum:
        lines.append(
            "no temperature does best on validation, as where no answer of it is wrong or none better than chance: it "
            "stays at 1"
        )
    return lines


def _data_lines(report: RiskReport) -> list[str]:
    """What the data of a report are to be doubted for."""
    lines = []
    leaks = report.leakage
    if leaks is not None and leaks.exact + leaks.near:
        lines.append(f"{leaks.exact:,} test examples stand in train exactly, {leaks.near:,} nearly ({leaks.criterion})")
    personal = report.personal_data
    if personal is not None and personal.total:
        lines.append(
            f"personal data: {personal.emails:,} e-mail addresses, {personal.phones:,} telephone numbers, "
            f"{personal.cards:,} cards, {personal.ibans:,} IBANs in {personal.texts:,} texts"
        )
    if report.confident_learning is not None:
        learning = report.confident_learning
        lines.append(
            f"cleanlab {learning.version} takes {learning.issues:,} of {learning.examples:,} labels of test for wrong; "
            "--json has those to look at first"
        )
    if report.evidence.trained_on_these is False:
        lines.append("the artifact names another training split than this one: train less test, and leaks, say less")
    return lines


def number(value: float) -> str:
    """A figure in a table: four places of a share, three digits of what is larger."""
    return f"{value:.4f}" if abs(value) < 2 else significant(value)


def text_of(figure: Figure, *, named: bool = True) -> str:
    """A figure with its interval."""
    name = f"{figure.name} " if named else ""
    return f"{name}{figure.value:.4f} (95%: {figure.low:.4f} to {figure.high:.4f})"
