"""How far a job is, on the standard output of its worker: the parent passes that on to standard error."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from kcost.core.progress import shown_on

Passes = Callable[[str], Callable[[int], None]]
"""What is done in a pass -> what is told, in it, how many more examples are done."""


@contextmanager
def counted(total: int, unit: str) -> Iterator[Passes]:
    """What a job tells as it goes through `total` examples, over all of its passes.

    Args:
        unit: what they are, such as sentences.
    """
    with shown_on(sys.stdout, transient=True) as on_progress:
        done = 0

        def of_pass(what: str) -> Callable[[int], None]:
            def count(more: int) -> None:
                nonlocal done
                done = min(total, done + more)  # a pass over a part of a split ends with a whole batch
                on_progress(done, total, f"{what}: {done:,} of {total:,} {unit}")

            return count

        yield of_pass
