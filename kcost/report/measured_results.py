"""What is measured, as it shows itself in a notebook: a run, its verdict, two runs held against each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from kcost.bench.compare import Change, Comparison, Figure as ComparedFigure
from kcost.core.conversion import RUNTIMES
from kcost.core.result import Run, failed
from kcost.core.units import UsdScale, significant
from kcost.cost.estimate import step_ns
from kcost.cost.notices import most_serious_first
from kcost.cost.ranking import RankedCell, Ranking
from kcost.cost.verdict import Conclusion, Verdict
from kcost.report.bench_terminal import (
    compared,
    headings_of,
    largest_first,
    row_of,
    scale_of,
    sentence_of,
)
from kcost.report.interval_chart import Axis, Mark
from kcost.report.notebook import ONE_COLOUR, Chart, Says, Shown, Standing, View, ratio_fields, ratio_text
from kcost.report.plots import COLOURS, Plot, plots_of
from kcost.report.terminal import usd_text


class ShownVerdict(Shown, Verdict):
    """A verdict over a run (`kcost.cost.verdict.Verdict`) that shows itself in a notebook."""

    @property
    def main_ranking(self) -> Ranking | None:
        """The ranking that is shown: forward passes before training steps; None where nothing was measured."""
        return min(self.rankings, key=lambda r: (bool(r.apart), r.phase != "inference"), default=None)

    def view(self) -> View:
        """What is shown."""
        says = [Says(c.sentence, _standing(c)) for c in self.conclusions]
        ranking = self.main_ranking
        if ranking is None:
            return View([Says("No cell was measured: there is nothing to rank.", "bad")], (), [], frozenset(), None)
        scale = ranking.usd_scale
        ratio = f"times cheaper than {_baseline(ranking)}"
        notes = [f"{code}: {several[0].text} {several[0].remedy}" for code, several in most_serious_first(self.notices)]
        if len(self.rankings) > 1:
            notes.insert(
                0, f"Shown is {ranking.model}, {ranking.phase}; to_frame() has all {len(self.rankings)} rankings."
            )
        return View(
            says=says,
            headings=("#", "run as", "dtype", "batch", f"USD per {scale.unit}", ratio, "step, ms", "score"),
            rows=[_cell_row(ranking, cell) for cell in _in_order(ranking)],
            texts=frozenset({1, 2}),
            chart=usd_chart(ranking),
            notes=notes,
            then=_how_to_call(ranking),
        )

    def records(self) -> list[dict[str, Any]]:
        """Every cell of every ranking."""
        return [_cell_record(ranking, cell) for ranking in self.rankings for cell in ranking.cells]

    def plots(self) -> list[Plot]:
        """Dollars with their intervals, then step time and score of the ranking that is shown."""
        ranking = self.main_ranking
        return [] if ranking is None else [*Shown.plots(self), *plots_of(ranking)]


def usd_chart(ranking: Ranking) -> Chart | None:
    """Dollars of each way of running a model, the cheapest first, on a logarithmic axis.

    Without those that are INVALID; None where all are.
    """
    scale, costs = ranking.usd_scale, {c.cell_id: cost for c, cost in ranking.priced}
    if not costs:
        return None
    marks = [
        Mark(
            label=f"{c.backend}/{c.method} {c.dtype}, batch {c.batch}{' *' if c.cell_id == ranking.baseline else ''}",
            value=cost.usd * scale.factor,
            low=cost.low * scale.factor,
            high=None if cost.high is None else cost.high * scale.factor,
            colour=COLOURS[c.backend],
            text=scale.text(cost.usd),
            faded=c.rank is None,
        )
        for c in _in_order(ranking)
        if (cost := costs.get(c.cell_id)) is not None
    ]
    star = "; * is plain Keras" if ranking.baseline is not None else ""
    left_out = len(ranking.cells) - len(costs)
    without = f", without {left_out} INVALID" if left_out else ""
    return Chart(
        marks,
        Axis(f"USD per {scale.unit}, with 95% intervals{star}", logarithmic=True),
        f"{ranking.model}: what it costs{without}",
    )


def _how_to_call(ranking: Ranking) -> str | None:
    """The cheapest way as a call; None where there is none to tell, or it is no forward pass."""
    best = ranking.best
    if best is None or not best.valid or ranking.phase != "inference":
        return None
    if best.method in RUNTIMES:
        return "kcost.program(RUN) gives the program that runs it."
    precision = "" if best.precision == "float32" else f', precision="{best.precision}"'
    way = f'backend="{best.backend}", method="{best.method}", batch={best.batch}{precision}'
    return f"To call it: kcost.load(MODEL, {way}). As a program of its own: kcost.program(RUN)."


def _in_order(ranking: Ranking) -> list[RankedCell]:
    """All cells, plain Keras among those that are shown first."""
    first = ranking.first(12)
    ids = {c.cell_id for c in first}
    return [*first, *(c for c in ranking.cells if c.cell_id not in ids)]


def _baseline(ranking: Ranking) -> str:
    return "plain Keras" if ranking.baseline is not None else "(no plain Keras)"


def _standing(conclusion: Conclusion) -> Standing:
    return "good" if conclusion.outcome == "cheaper" else "open" if conclusion.valid else "bad"


def _cell_row(ranking: Ranking, cell: RankedCell) -> tuple[str, ...]:
    plain = " *" if cell.cell_id == ranking.baseline else ""
    standing = "" if cell.rank else f" [{cell.standing}]"
    times = "-" if cell.times_cheaper is None else ratio_text(cell.times_cheaper)
    return (
        "-" if cell.rank is None else str(cell.rank),
        f"{cell.backend}/{cell.method}{plain}{standing}",
        cell.dtype,
        str(cell.batch),
        usd_text(cell, ranking.usd_scale),
        times,
        significant(cell.step_ms),
        f"{cell.quality.scores[0].value:.4f}" if cell.quality.scores else "-",
    )


def _cell_record(ranking: Ranking, cell: RankedCell) -> dict[str, Any]:
    scores, cost = cell.quality.scores, cell.cost
    return {
        "model": ranking.model,
        "phase": ranking.phase,
        "apart": "; ".join(ranking.apart),
        "rank": cell.rank,
        "standing": cell.standing,
        "valid": cell.valid,
        "backend": cell.backend,
        "method": cell.method,
        "dtype": cell.dtype,
        "device": cell.device,
        "batch": cell.batch,
        "step_ms": cell.step_ms,
        "step_p95_ms": cell.step_p95_ms,
        "examples_per_s": cell.examples_per_s,
        "usd": None if cost is None else cost.usd,
        "usd_low": None if cost is None else cost.low,
        "usd_high": None if cost is None else cost.high,
        "usd_unit": ranking.unit,
        "usd_basis": None if cost is None else cost.basis,
        **ratio_fields("times_cheaper", cell.times_cheaper),
        "score_name": scores[0].name if scores else None,
        "score": scores[0].value if scores else None,
        "is_plain_keras": cell.cell_id == ranking.baseline,
        "cell_id": cell.cell_id,
    }


class ShownComparison(Shown, Comparison):
    """What changed between two runs (`kcost.bench.compare.Comparison`), as a notebook shows it."""

    def view(self) -> View:
        """What is shown."""
        invalid = [f"{change.cell}: {change.invalid}" for change in self.changes if change.invalid is not None]
        says = [Says(sentence_of(self))]
        if invalid:
            says.append(Says(f"INVALID: {len(invalid)} cells. {invalid[0]}.", "bad"))
        says += [Says(f"FAILED: {f.model}, {f.cell}: {f.reason}", "bad") for f in self.failures]
        if self.fail_if and not self.failures:
            says.append(Says(f"No cell is over {', '.join(self.fail_if)}.", "good"))
        scale, changes = scale_of(self), largest_first(self.changes)
        return View(
            says=says,
            headings=headings_of(self),
            rows=[row_of(change, scale) for change in changes],
            texts=frozenset({0, 1}),
            chart=_change_chart(changes, scale),
            notes=[f"environments differ: {', '.join(self.differences)}"] if self.differences else (),
        )

    def records(self) -> list[dict[str, Any]]:
        """Every cell that both runs hold."""
        return [
            {
                "model": change.model,
                "cell": change.cell,
                "valid": change.invalid is None,
                "how": change.how,
                "rounds_a": change.rounds_a,
                "rounds_b": change.rounds_b,
                **_figure_fields("median_ms", change.median_ms),
                **({} if change.usd_per_million is None else _figure_fields("usd_per_million", change.usd_per_million)),
                "probability_b_faster": change.probability_b_faster,
                "probability_b_cheaper": change.probability_b_cheaper,
            }
            for change in self.changes
        ]


def _change_chart(changes: Sequence[Change], scale: UsdScale | None) -> Chart | None:
    """B over A of each cell, in the order given: without INVALID ones; None where all are."""
    marks = [_change_mark(c, several=len({c.model for c in changes}) > 1) for c in changes if c.invalid is None]
    if not marks:
        return None
    what, better = ("step time", "faster") if scale is None else ("USD", "cheaper")
    without = f", without {len(changes) - len(marks)} INVALID" if len(marks) < len(changes) else ""
    title = f"B over A of {what}, with 95% intervals; below 1 run B is {better}"
    return Chart(marks, Axis(title, reference=1.0), f"Run B against run A{without}")


def _change_mark(change: Change, *, several: bool) -> Mark:
    figure, label = compared(change), f"{change.model} {change.cell}" if several else change.cell
    return Mark(label, figure.ratio, figure.low, figure.high, ONE_COLOUR, significant(figure.ratio))


def _figure_fields(name: str, figure: ComparedFigure) -> Mapping[str, float | None]:
    fields = {"a": figure.a, "b": figure.b, "ratio": figure.ratio, "ratio_low": figure.low, "ratio_high": figure.high}
    return {f"{name}_{key}": value for key, value in fields.items()}


class ShownRun(Shown, Run):
    """What was measured (`kcost.core.result.Run`), as a notebook shows it: times, no dollars."""

    def view(self) -> View:
        """What is shown."""
        cells, bad = self.measured(), failed(self.present)
        sentence = f"{len(cells)} cells were measured, {len(bad)} were not; kcost.estimate_cost says what they cost."
        steps_ms = [step_ns(cell).scaled(1e-6) for cell in cells]
        labels = [f"{c.spec.model} {c.spec.label}" for c in cells]
        return View(
            says=[Says(sentence, "bad" if bad and not cells else "open")],
            headings=("model", "cell", "step, ms", "95% interval", "rounds"),
            rows=[
                (
                    c.spec.model,
                    c.spec.label,
                    significant(step.value),
                    f"{significant(step.low)} to {significant(step.high)}",
                    str(len(c.rounds)),
                )
                for c, step in zip(cells, steps_ms, strict=True)
            ],
            texts=frozenset({0, 1}),
            chart=Chart(
                [
                    Mark(label, s.value, s.low, s.high, COLOURS[c.spec.backend], f"{significant(s.value)} ms")
                    for label, s, c in zip(labels, steps_ms, cells, strict=True)
                ],
                Axis("milliseconds a step, with 95% intervals", logarithmic=True),
                "How long a step takes",
            ),
            notes=[f"{c.spec.model} {c.spec.label}: {c.status}, {c.reason or 'no reason was given'}" for c in bad],
        )

    def records(self) -> list[dict[str, Any]]:
        """Every cell, those that were not measured with their reason."""
        return [
            {
                "model": c.spec.model,
                "phase": c.spec.phase,
                "backend": c.spec.backend,
                "method": c.spec.method,
                "precision": c.spec.precision,
                "batch": c.spec.batch,
                "status": c.status,
                "reason": c.reason,
                "rounds": len(c.rounds),
                "step_ms": step_ns(c).value / 1e6 if c.rounds else None,
                "cell_id": c.spec.cell_id,
            }
            for c in self.present
        ]
