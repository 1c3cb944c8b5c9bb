"""The cheaper versions of a model within one call: which are there, and making one before its ways are tried."""

from __future__ import annotations

from collections.abc import Callable

from kcost.core.errors import InputError
from kcost.recommend.candidates import Candidate
from kcost.recommend.standings import drop_told
from kcost.recommend.variants import VARIANTS, MadeVariant, Variant

Make = Callable[[Variant, float], MadeVariant]
"""Makes a cheaper version of the model, in at most so many seconds, where it is not there yet."""

PATIENCE = 3
"""Times what making a version was guessed to take, after which it is given up."""


class Versions:
    """The versions that were made, and what they may lose.

    Args:
        make: makes one; None where none can be made.
        making_s: what that takes, as guessed.
        max_drop: most that the score of one may drop, a fraction of 1.
        tell: told what is made and what it lost, as sentences.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        make: Make | None,
        making_s: float,
        max_drop: float,
        tell: Callable[[str], None],
        clock: Callable[[], float],
    ) -> None:
        self._make, self._making_s, self._max_drop = make, making_s, max_drop
        self._tell, self._clock = tell, clock
        self.made: dict[str, MadeVariant] = {}
        """By variant."""

    def lacks(self, candidate: Candidate) -> bool:
        """Whether the version of the model that a candidate runs is still to be made."""
        return candidate.variant is not None and candidate.variant not in self.made

    def seconds_to_make(self, candidate: Candidate) -> float:
        """What making its version takes, as guessed; 0 where nothing is to be made."""
        return self._making_s if self.lacks(candidate) else 0.0

    def refused(self, version: MadeVariant) -> str | None:
        """Why a version may not be used; None where it may."""
        return None if version.drop.bound <= self._max_drop else drop_told(version.drop, self._max_drop)

    def make(self, variant: str, most_s: float) -> MadeVariant:
        """Makes a version in at most `most_s` seconds, and not in many more than guessed.

        Raises:
            KcostError: it cannot be made.
        """
        one = next(v for v in VARIANTS if v.name == variant)
        began = self._clock()
        self._tell(f"making it {one.name}: {one.what}")
        if self._make is None:
            raise InputError("A version of the model is made with training data.", "none", "Give --data.")
        version = self._make(one, max(1.0, min(most_s, PATIENCE * self._making_s)))
        score = version.score
        drop = f"{score.score} {score.before:.2%} to {score.after:.2%} on {score.count:,} {score.unit}"
        self._tell(f"{one.name}: {drop}, made in {self._clock() - began:.0f} s")
        if (why := self.refused(version)) is not None:
            self._tell(f"  refused: {why}")
        return version
