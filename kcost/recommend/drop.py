"""How far a cheaper way's score may truly have dropped: a one-sided bound, so that too few examples refuse."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from kcost.core.schema import Record
from kcost.core.score_drop import ScoreDrop
from kcost.core.stats import NORMAL_95
from kcost.cost.quality import Quality

MOST_LABELS = 10_000_000


class DropBound(Record):
    """The drop of a score below float32, and where it may truly lie."""

    value: float = Field(description="as a fraction of 1; negative where the score rose")
    bound: float = Field(description="one-sided 95% upper bound")
    changed: int = Field(description="examples that are answered otherwise than by float32")
    count: int
    basis: Literal["labels", "agreement"] = Field(description="agreement: without labels each change counts as a loss")

    def more_labels(self, limit: float) -> int | None:
        """Examples beyond these with which the bound would hold a limit, were the shares to stay; None for never."""
        if self.bound <= limit:
            return 0
        if self.value >= limit:
            return None
        low, high = 1.0, 2.0
        while self._bound_at(high) > limit:
            high *= 2
            if self.count * high > MOST_LABELS:
                return None
        for _ in range(40):
            middle = (low + high) / 2
            low, high = (low, middle) if self._bound_at(middle) <= limit else (middle, high)
        return math.ceil(self.count * (high - 1))

    def _bound_at(self, times: float) -> float:
        return _bound(self.value * self.count * times, self.changed * times, self.count * times)

    def chance_within(self, limit: float) -> float:
        """How probable it is that the true drop is within a limit, from the normal behind the bound."""
        error = (self.bound - self.value) / NORMAL_95
        if error <= 0:
            return float(self.value <= limit)
        return 0.5 * (1 + math.erf((limit - self.value) / error / math.sqrt(2)))


def drop_bound(quality: Quality) -> DropBound | None:
    """The drop with its bound; None where nothing was compared.

    Of a tagger with labels it is that of its entity F1. Of an accuracy: among the examples that change, the drop tells
    how many more were lost than gained. What changes from one wrong answer to another is counted as one of each: that
    only widens the bound.

    Source: as `core.score_drop.accuracy_drop`: Agresti and Min (2005), Statistics in Medicine 24, 729-740.

    Examples:
        >>> drop = drop_bound(Quality(agreement=1.0, agreement_count=256))
        >>> round(drop.bound, 4)
        0.0064
    """
    if quality.paired_drop is not None:
        return drop_of(quality.paired_drop)
    if quality.agreement is None or not quality.agreement_count:
        return None
    count = quality.agreement_count
    changed = round((1 - quality.agreement) * count)
    drop = quality.drop
    of_labels = drop is not None and bool(quality.scores) and quality.scores[0].name == "accuracy"
    net = max(-changed, min(changed, (drop or 0.0) * count)) if of_labels else float(changed)
    return DropBound(
        value=net / count,
        bound=_bound(net, changed, count),
        changed=changed,
        count=count,
        basis="labels" if of_labels else "agreement",
    )


def undecidable(count: int, limit: float) -> str | None:
    """Why so many examples without labels cannot allow a lower precision, whatever it answers; None where they may.

    The lowest bound that they show is that of not one answer changed.

    Examples:
        >>> undecidable(200, 0.01)
        >>> undecidable(64, 0.01)
        'a drop within 1.00% takes 163 examples to show, and 64 are at hand: give more with --data'
    """
    if _bound(0.0, 0.0, count) <= limit:
        return None
    if limit <= 0:
        return "no number of examples shows that nothing is lost: give --max-drop above 0"
    # The bound of not one changed is NORMAL_95 / (count + 2).
    wanted = math.ceil(NORMAL_95 / limit - 2)
    at_hand = f"and {count:,} are at hand: give more with --data"
    return f"a drop within {limit:.2%} takes {wanted:,} examples to show, {at_hand}"


def drop_of(score: ScoreDrop) -> DropBound:
    """The drop that a paired test on the whole test split found, with as many changed examples as its bound shows.

    Of an accuracy these are the very ones; of an F1 or R2 as many as would make an accuracy as uncertain.

    Examples:
        >>> from kcost.core.score_drop import accuracy_drop
        >>> right, after = np.array([1] * 90 + [0] * 10), np.array([1] * 85 + [0] * 13 + [1] * 2)
        >>> drop = drop_of(accuracy_drop(right, after))
        >>> drop.value, drop.changed, drop.count
        (0.03, 7, 100)
    """
    total = score.count + 2
    centre = score.value * score.count / total
    spread = max(0.0, score.bound - centre) / NORMAL_95 * math.sqrt(total)
    changed = round(max(0.0, (spread**2 + centre**2) * total - 1))
    return DropBound(
        value=score.value, bound=score.bound, changed=min(changed, score.count), count=score.count, basis="labels"
    )


def _bound(net: float, changed: float, count: float) -> float:
    """Agresti and Min's bound with half an example added to each cell.

    Args:
        net: lost less gained, examples.
        changed: lost and gained.
    """
    total = count + 2
    lost, gained = (changed + net) / 2 + 0.5, (changed - net) / 2 + 0.5
    centre = (lost - gained) / total
    spread = math.sqrt(max(0.0, (lost + gained) / total - centre**2)) / math.sqrt(total)
    return min(1.0, centre + NORMAL_95 * spread)
