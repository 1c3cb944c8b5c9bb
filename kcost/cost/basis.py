"""What a cost rests on: seconds of the very machine that is billed, of a smaller sister, or a model of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from kcost.core.result import Environment
from kcost.cost.machine_match import CPU_FAMILIES, accelerator_in_book, instruction_set
from kcost.cost.price_rules import Price

CostBasis = Literal["measured", "scaled", "projected", "published", "simulated"]
"""measured: seconds of a machine with the vCPUs, processor family and accelerator of the instance that is billed.
scaled: the same family, another count of cores. projected: of another machine. published: somebody else's figure.
simulated: made up."""

STRONGEST_FIRST: tuple[CostBasis, ...] = ("measured", "scaled", "projected", "published", "simulated")


def weakest(bases: Iterable[CostBasis]) -> CostBasis:
    """The basis of a sum: a sum is worth what its weakest part is. Raises ValueError without any.

    Examples:
        >>> weakest(["measured", "projected", "scaled"])
        'projected'
    """
    return max(bases, key=STRONGEST_FIRST.index)


def basis_of(environment: Environment, price: Price) -> CostBasis:
    """What seconds of a machine are worth on the instance of a price."""
    if environment.accelerators:
        known = [] if price.accelerator is None else [price.accelerator]
        same = accelerator_in_book(environment.accelerators[0], known) is not None
        return "measured" if same else "projected"
    if price.accelerator is not None or _family(price) != instruction_set(environment):
        return "projected"
    return "measured" if price.vcpus == environment.cores else "scaled"


def is_arm(price: Price) -> bool:
    """Whether an instance is known to have Arm processors."""
    return _family(price) == "arm"


def _family(price: Price) -> str | None:
    """The most telling instruction set of an instance's processors, as the vendors' pages have it; None where
    unknown."""
    named = (family for provider, pattern, family in CPU_FAMILIES if provider == price.provider)
    patterns = (pattern for provider, pattern, _ in CPU_FAMILIES if provider == price.provider)
    return next((f for f, pattern in zip(named, patterns, strict=True) if re.match(pattern, price.instance)), None)
