"""What is concluded from measurements, as it shows itself in a notebook: budget, risk, payoff, export."""

from __future__ import annotations

from typing import Any

from kcost.core.units import format_bytes, format_usd, significant
from kcost.cost.budget import Budget
from kcost.cost.payoff import Payoff
from kcost.report.budget_plots import plots_of_budget
from kcost.report.interval_chart import Axis, Mark
from kcost.report.notebook import ONE_COLOUR, Chart, Says, Shown, Standing, View, ratio_fields, ratio_text
from kcost.report.plots import COLOURS, Plot
from kcost.report.risk_terminal import conclusion, figures_of, limits, number
from kcost.risk.report import RiskReport
from kcost.ship.export_report import ExportReport


class ShownBudget(Shown, Budget):
    """A budget (`kcost.cost.budget.Budget`) that shows itself in a notebook."""

    def view(self) -> View:
        """What is shown."""
        standing: Standing = "bad" if self.invalid else "good" if self.outcome == "decided" else "open"
        says = [Says(self.sentence, standing)]
        if self.invalid is not None and self.options:
            says.append(Says(f"INVALID: {self.invalid}.", "bad"))
        marks = [
            Mark(
                f"{p.bill.option.name}{' *' if p.bill.option.is_plain else ''}",
                p.usd_per_month.value,
                p.usd_per_month.low,
                p.usd_per_month.high,
                ONE_COLOUR,
                format_usd(p.usd_per_month.value),
                p.bill.option.simulated or p.bill.option.basis != "measured",
            )
            for p in self.options
        ]
        return View(
            says=says,
            headings=(
                "option",
                "instance",
                "replicas",
                "USD a month",
                "90% interval",
                f"USD in {self.horizon_days:g} days",
                "basis",
            ),
            rows=[
                (
                    mark.label,
                    p.bill.option.instance,
                    str(p.bill.replicas),
                    mark.text,
                    f"{significant(p.usd_per_month.low)} to {significant(p.usd_per_month.high)}",
                    format_usd(p.usd_total.value),
                    "simulated" if p.bill.option.simulated else p.bill.option.basis,
                )
                for mark, p in zip(marks, self.options, strict=True)
            ],
            texts=frozenset({0, 1, 6}),
            chart=Chart(marks, Axis("USD a month, with 90% intervals; * runs today"), "What each way of serving costs")
            if marks
            else None,
            notes=self.notes,
        )

    def records(self) -> list[dict[str, Any]]:
        """Every option."""
        return [
            {
                "option": p.bill.option.name,
                "model": p.bill.option.model,
                "instance": p.bill.option.instance,
                "replicas": p.bill.replicas,
                "batch_limit": p.bill.option.batch_limit,
                "wait_ms": p.bill.option.wait_ms,
                "usd_per_month": p.usd_per_month.value,
                "usd_per_month_low": p.usd_per_month.low,
                "usd_per_month_high": p.usd_per_month.high,
                "usd_total": p.usd_total.value,
                "usd_total_low": p.usd_total.low,
                "usd_total_high": p.usd_total.high,
                "usd_per_million": p.bill.usd_per_million,
                "kg_co2e_per_month": None if p.bill.carbon is None else p.bill.carbon.kg_co2e_per_month,
                "basis": p.bill.option.basis,
                "simulated": p.bill.option.simulated,
                "is_plain_keras": p.bill.option.is_plain,
            }
            for p in self.options
        ]

    def plots(self) -> list[Plot]:
        """The bill by kind, when it pays back, what moves the answer."""
        return plots_of_budget(self)


class ShownRisk(Shown, RiskReport):
    """A risk report (`kcost.risk.report.RiskReport`) that shows itself in a notebook."""

    def view(self) -> View:
        """What is shown."""
        standing: Standing = "bad" if self.failed else "good" if self.verdicts and not self.undecided else "open"
        says = [Says(conclusion(self), standing)]
        says += [Says(f"{v.gate}: {v.sentence}", "bad") for v in self.verdicts if v.answer == "fail"]
        figures = figures_of(self)
        shares = {name: f for name, f in figures.items() if f.low >= -1 and f.high <= 1}
        return View(
            says=says,
            headings=("", "value", "95% interval", "rests on"),
            rows=[
                (name, number(f.value), f"{number(f.low)} to {number(f.high)}", f"{f.count:,} {f.unit}")
                for name, f in figures.items()
            ],
            texts=frozenset({0, 3}),
            chart=Chart(
                [Mark(name, f.value, f.low, f.high, ONE_COLOUR, number(f.value)) for name, f in shares.items()],
                Axis("with 95% intervals", reference=0.0),
                f"{self.model}: scores and errors",
            ),
            notes=limits(self),
        )

    def records(self) -> list[dict[str, Any]]:
        """Every figure that has an interval, and the gates."""
        figures = [
            {"what": name, **{k: getattr(f, k) for k in ("value", "low", "high", "count", "unit")}, "answer": None}
            for name, f in figures_of(self).items()
        ]
        gates = [
            {
                "what": f"gate {v.gate}",
                **{
                    k: None if v.figure is None else getattr(v.figure, k)
                    for k in ("value", "low", "high", "count", "unit")
                },
                "answer": v.answer,
            }
            for v in self.verdicts
        ]
        return [*figures, *gates]


class ShownPayoff(Shown, Payoff):
    """What optimizing brought (`kcost.cost.payoff.Payoff`), as a notebook shows it."""

    def view(self) -> View:
        """What is shown."""
        standing: Standing = "bad" if self.refused else "good" if self.word == "pays" else "open"
        scale = self.usd_scale
        return View(
            says=[Says(f"{self.word}: {self.sentence}", standing)],
            headings=("batch", "run as", "before, ms", "after, ms", "times faster", f"USD per {scale.unit}", "after"),
            rows=[
                (
                    str(s.batch),
                    f"{self.backend}/{s.method}",
                    significant(s.before_ms),
                    significant(s.after_ms),
                    ratio_text(s.times_faster),
                    scale.text(s.before_usd_per_million),
                    scale.text(s.after_usd_per_million),
                )
                for s in self.speeds
            ],
            texts=frozenset({1}),
            chart=Chart(
                [
                    Mark(
                        f"batch {s.batch}",
                        r.value,
                        r.low,
                        r.high,
                        COLOURS[self.backend],
                        f"{significant(r.value)} times",
                    )
                    for s in self.speeds
                    for r in [s.times_faster]
                ],
                Axis("times faster than before, with 95% intervals", reference=1.0),
                f"{self.model}: before and after",
            ),
            notes=(
                f"file {format_bytes(self.before.file_bytes)} -> {format_bytes(self.after.file_bytes)}, in {self.out}",
                *self.assumptions,
            ),
        )

    def records(self) -> list[dict[str, Any]]:
        """Both models at each batch size."""
        return [
            {
                "batch": s.batch,
                "backend": self.backend,
                "method": s.method,
                "before_ms": s.before_ms,
                "after_ms": s.after_ms,
                **ratio_fields("times_faster", s.times_faster),
                "before_usd_per_million": s.before_usd_per_million,
                "after_usd_per_million": s.after_usd_per_million,
            }
            for s in self.speeds
        ]


class ShownExport(Shown, ExportReport):
    """An exported version (`kcost.ship.export.ExportReport`), as a notebook shows it."""

    def view(self) -> View:
        """What is shown."""
        sentence = (
            f"{self.name} version {self.version} was loaded by TensorFlow {self.library_version} without Keras, and "
            f"gives the outputs of {self.model}."
        )
        return View(
            says=[Says(sentence, "good")],
            headings=("batch", "largest difference of an output"),
            rows=[(str(c.batch), f"{c.max_abs_difference:.1e}") for c in self.checks],
            texts=frozenset(),
            chart=None,
            notes=self.warnings,
        )

    def records(self) -> list[dict[str, Any]]:
        """The checks, one for each batch size."""
        return [{"batch": c.batch, "max_abs_difference": c.max_abs_difference} for c in self.checks]
