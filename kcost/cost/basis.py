"""What a cost rests on: seconds of the very machine that is billed, of a smaller sister, or a model of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from kcost.core.result import Environment
from kcost.cost.machine_match import accelerator_in_book, family_of, is_same_family
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
    if not is_same_family(environment, price):
        return "projected"
    return "measured" if price.vcpus == environment.cores else "scaled"


def is_arm(price: Price) -> bool:
    """Whether an instance is known to have Arm processors."""
    return family_of(price) == "arm"
