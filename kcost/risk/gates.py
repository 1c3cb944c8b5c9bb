"""Gates: limits in a file, each held against a figure with its interval: pass, fail, or what would decide."""

from __future__ import annotations

import math
import tomllib
from typing import Annotated, Literal

from pydantic import Field, ValidationError, model_validator

from kcost.core.errors import InputError
from kcost.core.schema import Record, describe_validation
from kcost.core.stats import normal_quantile
from kcost.core.suggestion import did_you_mean
from kcost.risk.expected_loss import LossTable
from kcost.risk.figures import Figure

POWER = 0.8
"""How likely it is to be that as many more labels decide a gate."""

DECIDED_BY = 0.975
"""A gate passes where the whole 95% interval is within the limit: one-sided, that is 97.5%."""

OPEN = 1.9
"""Standard errors that a figure is taken to be from its limit at most where it is not decided: an interval that is
longer on one side may hold a limit further away."""

Share = Annotated[float, Field(ge=0, le=1)]
Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Answer = Literal["pass", "fail", "can't tell"]


class Gates(Record):
    """`gates.toml`: what a model may be used with. Each limit that is None is not asked for."""

    min_score: Share | None = Field(default=None, description="of the main score on test: accuracy, or entity F1")
    max_score_drop: Share | None = Field(default=None, description="below the model of --against, on the same examples")
    max_calibration_error: Share | None = Field(default=None, description="expected calibration error on test")
    calibrated: bool = Field(default=False, description="judge it at the temperature that validation gives")
    max_overfitting_gap: Share | None = Field(default=None, description="score on train less that on test")
    min_worst_slice_score: Share | None = Field(default=None, description="of every slice of one column, on test")
    min_attacked_score: Share | None = Field(default=None, description="under FGSM of attack_epsilon")
    attack_epsilon: Amount = 0.05
    min_corrupted_score: Share | None = Field(default=None, description="under every change of --robustness")
    min_ood_auroc: Share | None = Field(default=None, description="of telling the data of --ood, by what tells best")
    max_leaked_share: Share | None = Field(default=None, description="of test examples that stand in train, or nearly")
    max_personal_data: Annotated[int, Field(ge=0)] | None = Field(default=None, description="in texts of all splits")
    max_label_noise: Share | None = Field(default=None, description="of test labels, as a mixture has it")
    max_loss_usd_per_million: Amount | None = Field(default=None, description="of errors, by the table [loss]")
    max_p99_ms: Amount | None = Field(default=None, description="of the cheapest cell of --run")
    max_usd_per_million: Amount | None = Field(default=None, description="of the cheapest cell of --run")
    max_memory_mib: Amount | None = Field(default=None, description="of the cheapest cell of --run")
    allowed_licences: tuple[str, ...] | None = Field(default=None, min_length=1, description="of the data")
    usd_per_label: Amount | None = Field(default=None, description="price of one more labelled example")
    loss: LossTable | None = None

    @model_validator(mode="after")
    def _refuse_loss_without_table(self) -> Gates:
        if self.max_loss_usd_per_million is not None and self.loss is None:
            raise InputError(
                "A limit on the loss needs the price of each error.",
                received="max_loss_usd_per_million without a table [loss]",
                remedy="Add [loss] with wrong_usd = 0.05, or leave the limit out.",
            )
        return self

    @property
    def limits(self) -> tuple[str, ...]:
        """The names of the limits that are set."""
        return tuple(n for n in _LIMITS if getattr(self, n) is not None)


_LIMITS = tuple(n for n in Gates.model_fields if n.startswith(("min_", "max_", "allowed_")))
_REMEDY = f"The limits are {', '.join(_LIMITS)}."


def parse_gates(text: str, where: str) -> Gates:
    """Reads gates from TOML.

    Args:
        where: the file's name, for messages.

    Raises:
        InputError: it is no TOML, a name is unknown (the nearest known one is told), a limit is out of its range, or it
            sets no limit.

    Examples:
        >>> parse_gates("min_score = 0.9", "gates.toml").limits
        ('min_score',)
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise InputError(
            "Gates are a TOML file of limits.", f"{where}: {error}", "Write such as min_score = 0.9."
        ) from error
    for name in document:
        if name not in Gates.model_fields:
            remedy = f"{did_you_mean(name, Gates.model_fields)}{_REMEDY}"
            raise InputError("Gates have known names.", f"{name!r} in {where}", remedy)
    try:
        gates = Gates.model_validate(document)
    except ValidationError as error:
        raise InputError(
            "Every limit lies within its range.", f"{where}: {describe_validation(error)}", "Correct these lines."
        ) from error
    if not gates.limits and gates.loss is None:
        raise InputError("Gates set one limit at least.", f"{where}, which sets none", _REMEDY)
    return gates


class Verdict(Record):
    """The answer of one gate."""

    gate: str
    limit: float | str
    answer: Answer
    figure: Figure | None = Field(default=None, description="what it was decided by; None where there is no evidence")
    slice: str | None = Field(default=None, description="of the worst slice: which one it is")
    because: str | None = Field(default=None, description="where there is no figure: why")
    more_labels: int | None = Field(default=None, description="with as many more, it is decided with a power of 80%")
    more_labels_if_estimate_holds: int | None = Field(
        default=None, description="the same where the figure as it stands is taken for the truth: too hopeful"
    )
    more_labels_usd: float | None = None

    @property
    def sentence(self) -> str:
        """Such as `can't tell: 340 more labels ($41) would decide`."""
        if self.answer != "can't tell" or self.more_labels is None:
            return self.answer if self.because is None else f"{self.answer}: {self.because}"
        usd = "" if self.more_labels_usd is None else f" (${self.more_labels_usd:,.0f})"
        return f"{self.answer}: {self.more_labels:,} more labels{usd} would decide"


def judge(
    gate: str,
    figure: Figure,
    limit: float,
    *,
    at_most: bool,
    usd_per_label: float | None = None,
    slice_name: str | None = None,
    share_of_labels: float = 1.0,
    labelled: bool = True,
) -> Verdict:
    """Holds a figure against a limit: pass or fail where the whole 95% interval lies on one side of it.

    A model exactly at its limit passes in at most 2.5 of 100 test sets, as far as the interval keeps its word.

    Args:
        at_most: whether the limit is the largest value that passes; else the least.
        share_of_labels: the share of labelled examples that fall into the slice that the figure is of.
        labelled: whether more labels narrow the interval.
    """
    inside = figure.high <= limit if at_most else figure.low >= limit
    outside = figure.low > limit if at_most else figure.high < limit
    answer: Answer = "pass" if inside else "fail" if outside else "can't tell"
    more = hopeful = None
    if answer == "can't tell" and labelled and figure.count:
        gap = abs(figure.value - limit) / figure.standard_error if figure.standard_error else 0.0
        gap = min(gap, OPEN)
        more = math.ceil(figure.count * (_times_labels(gap) - 1) / share_of_labels)
        hopeful = None if not gap else math.ceil(figure.count * (_times_if_true(gap) - 1) / share_of_labels)
    return Verdict(
        gate=gate,
        limit=limit,
        answer=answer,
        figure=figure,
        slice=slice_name,
        because=None if answer != "can't tell" or labelled else "the interval reaches over the limit",
        more_labels=more,
        more_labels_if_estimate_holds=hopeful,
        more_labels_usd=None if more is None or usd_per_label is None else more * usd_per_label,
    )


def no_evidence(gate: str, limit: float | str, because: str) -> Verdict:
    """The answer of a gate that there is nothing to decide by."""
    return Verdict(gate=gate, limit=limit, answer="can't tell", because=because)


def exactly(gate: str, limit: float | str, holds: bool, because: str) -> Verdict:
    """The answer of a gate on something that is counted or read, not estimated."""
    return Verdict(gate=gate, limit=limit, answer="pass" if holds else "fail", because=because)


def power(gap: float, times: float) -> float:
    """The probability that a gate is decided, either way, once there are `times` as many labels.

    The truth is not the figure as it stands: given it, the truth is normal around it with its standard error, and so
    the figure after N more labels of n + N is normal around the present one with that error times sqrt(N / (n + N)).
    Its own error is then the present one times sqrt(n / (n + N)).

    Source: predictive power, Spiegelhalter, Freedman and Blackburn (1986), Controlled Clinical Trials 7, 8-17.

    Args:
        gap: distance of the figure from the limit in its own standard errors, at least 0.
        times: labels then over labels now, above 1.
    """
    from scipy.special import ndtr

    z = normal_quantile(DECIDED_BY) / math.sqrt(times)
    spread = math.sqrt((times - 1) / times)
    return float(ndtr((gap - z) / spread) + ndtr((-gap - z) / spread))


def _times_labels(gap: float) -> float:
    low, high = 1.0 + 1e-9, 2.0
    while power(gap, high) < POWER:
        high *= 2  # even at a gap of 0 it ends below 61
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if power(gap, middle) >= POWER else (middle, high)
    return high


def _times_if_true(gap: float) -> float:
    """The textbook's count: the truth is the figure, and the labels at hand are a part of the sample."""
    from scipy.special import ndtr

    z = normal_quantile(DECIDED_BY)

    def sure(times: float) -> bool:
        # The mean of all labels then: gap with an error of sqrt((times - 1)) / times of the present one.
        return bool(ndtr((gap - z / math.sqrt(times)) * times / math.sqrt(times - 1)) >= POWER)

    low, high = 1.0 + 1e-9, 2.0
    while not sure(high):
        high *= 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if sure(middle) else (middle, high)
    return high
