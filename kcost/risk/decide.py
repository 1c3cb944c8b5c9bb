"""Every limit that is set, held against the figure that it is of."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from pydantic import Field

from kcost.core.schema import Record
from kcost.core.stats import normal_quantile
from kcost.risk.figures import Figure
from kcost.risk.gates import Gates, Verdict, exactly, judge, no_evidence
from kcost.risk.report import RiskReport

MEASURED = ("max_p99_ms", "max_usd_per_million", "max_memory_mib")
"""The limits on what a cell of a run shows."""

_ORDER = {"fail": 0, "can't tell": 1, "pass": 2}


class Measured(Record):
    """Evidence from other measurements than predictions; None where there is none."""

    attacked: Figure | None = Field(default=None, description="the main score under attack")
    not_attacked_because: str = "the model was not attacked"
    p99_ms: Figure | None = None
    usd_per_million: Figure | None = None
    memory_mib: float | None = Field(default=None, description="peak of the cheapest cell")
    not_measured_because: str = "name a run of kcost bench with --run"
    no_p99_because: str | None = Field(default=None, description="where the p99 alone is not known")


def decide(report: RiskReport, gates: Gates, measured: Measured) -> RiskReport:
    """The report with a verdict for each limit, failures first."""
    verdicts = [_RULES[name](report, gates, measured) for name in gates.limits]
    return report.model_copy(update={"verdicts": failures_first(verdicts)})


def failures_first(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """The same verdicts: those that fail, those that can't tell, those that pass."""
    return tuple(sorted(verdicts, key=lambda v: _ORDER[v.answer]))


def _score(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    return _judged("min_score", report.test_score, gates, "")


def _drop(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    figure = None if report.flips is None else report.flips.drop
    return _judged("max_score_drop", figure, gates, "name the model of before with --against")


def _calibration(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    calibration = report.calibration_at_temperature if gates.calibrated else report.calibration
    return _judged("max_calibration_error", calibration.error, gates, "")


def _gap(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    return _judged("max_overfitting_gap", report.gap, gates, "")


def _worst_slice(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    """Passes where every slice does, so that no correction is needed; fails where one does after Bonferroni's."""
    limit, table = gates.min_worst_slice_score, report.slices.table
    assert limit is not None
    if not table:
        return no_evidence("min_worst_slice_score", limit, "no slice has enough examples; give --columns")
    verdicts = [
        _slice_verdict("min_worst_slice_score", one.name, one.score, one.share, len(table), limit, gates)
        for one in table
    ]
    return _worst_of(verdicts)


def _worst_of(verdicts: list[Verdict]) -> Verdict:
    """The first that fails, else the one that wants most labels, else the first."""
    failed = [v for v in verdicts if v.answer == "fail"]
    opened = [v for v in verdicts if v.answer == "can't tell"]
    if failed:
        return failed[0]
    return max(opened, key=lambda v: v.more_labels or 0) if opened else verdicts[0]


def _slice_verdict(
    gate: str, name: str, score: Figure, share: float, looked_at: int, limit: float, gates: Gates
) -> Verdict:
    def verdict(figure: Figure) -> Verdict:
        return judge(
            gate,
            figure,
            limit,
            at_most=False,
            usd_per_label=gates.usd_per_label,
            slice_name=name,
            share_of_labels=share,
        )

    alone = verdict(score)
    return alone if alone.answer != "fail" else verdict(_widened(score, looked_at))


def _widened(figure: Figure, looked_at: int) -> Figure:
    """The interval for as many figures together: longer as the normal quantile of 5% shared among them is."""
    times = normal_quantile(1 - 0.025 / looked_at) / normal_quantile(0.975)
    low = figure.value - times * (figure.value - figure.low)
    high = figure.value + times * (figure.high - figure.value)
    return figure.model_copy(update={"low": max(0.0, low), "high": min(1.0, high)})


def _attack(report: RiskReport, gates: Gates, measured: Measured) -> Verdict:
    return _judged("min_attacked_score", measured.attacked, gates, measured.not_attacked_because)


def _corrupted(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    """As the worst slice: it passes where every change does, and fails where one does after Bonferroni's correction."""
    limit, tried = gates.min_corrupted_score, report.robustness
    assert limit is not None
    if tried is None:
        return no_evidence("min_corrupted_score", limit, "no change is known for data of whole numbers")
    changes = [c for c in tried.conditions if not c.attack]
    verdicts = [
        _slice_verdict("min_corrupted_score", c.name, c.score, 1.0, len(changes), limit, gates) for c in changes
    ]
    return _worst_of(verdicts)


def _ood(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    limit, detection = gates.min_ood_auroc, report.out_of_distribution
    assert limit is not None
    if detection is None:
        return no_evidence("min_ood_auroc", limit, "name other data with --ood")
    return judge("min_ood_auroc", detection.best.auroc, limit, at_most=False, labelled=False)


def _leaked(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    limit, leakage = gates.max_leaked_share, report.leakage
    assert limit is not None
    if leakage is None:
        return no_evidence("max_leaked_share", limit, "these data cannot be compared")
    share, count = leakage.share.value, leakage.exact + leakage.near
    because = f"{count:,} of {leakage.share.count:,} are in train, {leakage.near:,} nearly"
    return exactly("max_leaked_share", limit, share <= limit, because)


def _personal(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    limit, counted = gates.max_personal_data, report.personal_data
    assert limit is not None
    if counted is None:
        return exactly("max_personal_data", limit, True, "the data hold no text")
    kinds = f"{counted.emails} e-mail, {counted.phones} phone, {counted.cards} card, {counted.ibans} IBAN"
    return exactly("max_personal_data", limit, counted.total <= limit, kinds)


def _noise(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    figure = None if report.label_noise is None else report.label_noise.share
    return _judged("max_label_noise", figure, gates, "it is taken of classifiers alone")


def _loss(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    return _judged("max_loss_usd_per_million", report.loss, gates, "")


def _p99(report: RiskReport, gates: Gates, measured: Measured) -> Verdict:
    because = measured.no_p99_because or measured.not_measured_because
    return _judged("max_p99_ms", measured.p99_ms, gates, because, labelled=False)


def _usd(report: RiskReport, gates: Gates, measured: Measured) -> Verdict:
    because = measured.not_measured_because
    return _judged("max_usd_per_million", measured.usd_per_million, gates, because, labelled=False)


def _memory(report: RiskReport, gates: Gates, measured: Measured) -> Verdict:
    limit = gates.max_memory_mib
    assert limit is not None
    if measured.memory_mib is None:
        return no_evidence("max_memory_mib", limit, measured.not_measured_because)
    used = measured.memory_mib
    return exactly("max_memory_mib", limit, used <= limit, f"{used:,.0f} MiB at most in a measured turn")


def _licences(report: RiskReport, gates: Gates, _: Measured) -> Verdict:
    assert gates.allowed_licences is not None
    licence, dataset = report.evidence.dataset.licence, report.evidence.dataset.name
    holds = licence in gates.allowed_licences
    return exactly("allowed_licences", ", ".join(gates.allowed_licences), holds, f"{dataset}: {licence}")


_RULES: dict[str, Callable[[RiskReport, Gates, Measured], Verdict]] = {
    "min_score": _score,
    "max_score_drop": _drop,
    "max_calibration_error": _calibration,
    "max_overfitting_gap": _gap,
    "min_worst_slice_score": _worst_slice,
    "min_attacked_score": _attack,
    "min_corrupted_score": _corrupted,
    "min_ood_auroc": _ood,
    "max_leaked_share": _leaked,
    "max_personal_data": _personal,
    "max_label_noise": _noise,
    "max_loss_usd_per_million": _loss,
    "max_p99_ms": _p99,
    "max_usd_per_million": _usd,
    "max_memory_mib": _memory,
    "allowed_licences": _licences,
}


def _judged(name: str, figure: Figure | None, gates: Gates, missing: str, *, labelled: bool = True) -> Verdict:
    limit = getattr(gates, name)
    if figure is None:
        return no_evidence(name, limit, missing)
    at_most = name.startswith("max_")
    return judge(name, figure, limit, at_most=at_most, usd_per_label=gates.usd_per_label, labelled=labelled)
