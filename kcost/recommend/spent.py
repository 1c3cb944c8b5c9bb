"""What the minutes of a recommendation went to."""

from __future__ import annotations

from typing import NamedTuple


class Spent(NamedTuple):
    """What the minutes went to."""

    skipped: dict[str, str]
    """Candidate -> why no time went to it."""
    failed: dict[str, str]
    """Candidate -> why it could not be measured."""
    waves: tuple[str, ...]
    """Such as `first: 4 candidates, 21 s`."""
    seconds: float
    first_figures_s: float | None
    """When the first figures were told; None where they were there before."""
    interrupted: bool
