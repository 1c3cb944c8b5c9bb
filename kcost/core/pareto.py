"""What is worth a look where both cost and score count."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

T = TypeVar("T")


def pareto_front(things: Iterable[T], usd: Callable[[T], float], score: Callable[[T], float]) -> list[T]:
    """The things that no other one equals or beats in both cost and score, the cheapest first.

    Of things that are equal in both, the first one is taken.

    Args:
        usd: what a thing costs; less is better.
        score: more is better.
    """
    front: list[T] = []
    for thing in sorted(things, key=lambda t: (usd(t), -score(t))):
        if not front or score(thing) > score(front[-1]):
            front.append(thing)
    return front
