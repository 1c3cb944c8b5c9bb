"""Which instance a machine is most like, so that its seconds can be given a price.

The machine that measured is seldom one from a price list. What is chosen here is an assumption, and the
answer says so in words.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import NamedTuple

from pydantic import Field

from kcost.core.errors import PriceError
from kcost.core.result import Environment
from kcost.core.schema import Record
from kcost.core.units import format_bytes
from kcost.cost.own_prices import OWN
from kcost.cost.payment import Pay, paid_text, usd_per_hour
from kcost.cost.price_rules import Price

SAME_MEMORY = 0.2
"""Doublings that the memory of a machine may be off what its owner says: firmware keeps some of it."""


class Match(Record):
    """A price for a machine, and why this one."""

    price: Price
    why: str = Field(description="one sentence: what was matched, and that it is an assumption where it is one")
    is_assumption: bool = Field(description="False only where the user named the instance")
    same_machine: bool = Field(
        description="the instance has the machine's accelerator; without one, its kind of processor and its vCPUs"
    )
    same_family: bool = Field(default=False, description="the instance has the machine's kind of processor, any count")
    share: float = Field(default=1.0, gt=0, le=1, description="part of the instance that one model uses and pays for")
    pay: Pay = "on-demand"

    @property
    def usd_per_hour(self) -> float:
        """What the part of the instance costs that one model uses, as it is paid for."""
        return usd_per_hour(self.price, self.pay) * self.share


class _Family(NamedTuple):
    """A vendor's family of instances without an accelerator."""

    provider: str
    pattern: str
    """Of the instance's name."""
    instructions: str
    """Most telling instruction set; `shared`: no fixed generation, or bursts."""
    maker: str | None = None
    """Of the processor, where the vendor says so: intel or amd."""


CPU_FAMILIES = (
    _Family("aws", r"[cmr]\d+i?g[dn]*\.", "arm"),
    _Family("aws", r"[cmr](7i|8i)\.", "amx", "intel"),
    _Family("aws", r"[cmr](5|6i)\.", "avx512", "intel"),
    _Family("aws", r"[cmr](7a|8a)\.", "avx512", "amd"),
    _Family("aws", r"[cmr](5a|6a)\.", "avx2", "amd"),
    _Family("aws", r"t\d", "shared"),
    _Family("gcp", r"(c4a|t2a)-", "arm"),
    _Family("gcp", r"(c3|c4)-", "amx", "intel"),
    _Family("gcp", r"(n2|c2)-", "avx512", "intel"),
    _Family("gcp", r"c3d-", "avx512", "amd"),
    _Family("gcp", r"(n2d|t2d|c2d)-", "avx2", "amd"),
    _Family("gcp", r"(e2|n1)-", "shared"),
    _Family("azure", r"Standard_[DEF]\d+p\w*_", "arm"),
    _Family("azure", r"Standard_[DEF]\d+a\w*_v6", "avx512", "amd"),
    _Family("azure", r"Standard_[DEF]\d+\w*_v6", "amx", "intel"),
    _Family("azure", r"Standard_[DEF]\d+a\w*_v5", "avx2", "amd"),
    _Family("azure", r"Standard_[DEF]\d+s_(v5|v2)", "avx512", "intel"),
)
"""What the vendors' pages say of the processors of their families, the first that fits an instance.

Used as a hint to order instances of one size, never to refuse one; but Arm and x86 are kept apart.
"""


def instruction_set(environment: Environment) -> str:
    """The most telling instruction set of a machine's processor: arm, amx, avx512, avx2 or none."""
    if environment.machine.lower() in ("aarch64", "arm64"):
        return "arm"
    for name in ("amx", "avx512", "avx2"):
        if any(feature.startswith(name) for feature in environment.cpu_features):
            return name
    return "none"


def family_of(price: Price) -> str:
    """The most telling instruction set of an instance's processors: as `instruction_set`, `shared` where it may be of
    any generation, `unknown` where the vendor is not known."""
    family = _family(price)
    return "unknown" if family is None else family.instructions


def is_same_family(environment: Environment, price: Price) -> bool:
    """Whether an instance without an accelerator has the machine's kind of processor, by instruction set and maker.

    A machine of one's own stands in no vendor's list: it is taken for the one that measured where both its vCPUs and
    its memory say so.
    """
    if price.accelerator is not None or environment.accelerators:
        return False
    if price.provider == OWN:
        same_size = price.vcpus == environment.cores and price.memory_gib is not None
        return same_size and _log_ratio(price.memory_gib, environment.memory_bytes / 2**30) <= SAME_MEMORY
    family = _family(price)
    if family is None or family.instructions != instruction_set(environment):
        return False
    maker = _maker(environment)
    return maker is None or family.maker is None or maker == family.maker


def _family(price: Price) -> _Family | None:
    fitting = (f for f in CPU_FAMILIES if f.provider == price.provider and re.match(f.pattern, price.instance))
    return next(fitting, None)


def _maker(environment: Environment) -> str | None:
    """Who made the processor; None where its name does not say so."""
    name = environment.cpu_model.lower()
    return "amd" if "amd" in name else "intel" if "intel" in name or "xeon" in name else None


def accelerator_in_book(name: str, known: Sequence[str]) -> str | None:
    """The book's name for an accelerator as a driver names it, None where no name fits.

    A name of the book fits when all its words stand in the driver's name; the one with most words wins, so
    that "NVIDIA H100 NVL" is H100-NVL and not H100.
    """
    text = name.lower()
    for spelling, meant in (("v5 lite", "v5e"), ("v6 lite", "v6e"), ("v5litepod", "v5e")):
        text = text.replace(spelling, meant)
    words = set(re.split(r"[^a-z0-9]+", text))
    fitting = [k for k in known if set(k.lower().split("-")) <= words]
    return max(fitting, key=lambda k: (len(k.split("-")), k), default=None)


def closest_price(
    environment: Environment, candidates: Sequence[Price], *, named: bool, pay: Pay = "on-demand"
) -> Match:
    """The candidate most like the machine.

    With an accelerator: the instances with the same one, the fewest of it first, then the nearest size.
    Without: the CPU instances of the same architecture that are nearest in vCPUs, then in memory, then in
    processor generation; then the cheapest.

    Args:
        candidates: at least one price.
        named: the candidates are one instance that the user named: it is taken whatever the machine is.

    Raises:
        PriceError: no candidate has the machine's accelerator, or its architecture.
    """
    accelerator = _accelerator_of(environment, candidates)
    if named:
        cheapest = min(candidates, key=lambda p: p.on_demand_usd_per_hour)
        return _match(environment, cheapest, accelerator, named=True, pay=pay)
    if environment.accelerators and accelerator is None:
        raise PriceError(
            "The price book has an instance with the machine's accelerator.",
            received=environment.accelerators[0],
            remedy="Name an instance with --instance, or give a price book of your own with --prices.",
        )
    fitting = [p for p in candidates if p.accelerator == accelerator]
    if accelerator is None:
        arm = instruction_set(environment) == "arm"
        fitting = [p for p in fitting if (family_of(p) == "arm") == arm]
    if not fitting:
        raise PriceError(
            "The price book has an instance with the machine's kind of processor, without an accelerator.",
            received=f"{environment.machine}, {environment.cpu_model}",
            remedy="Name an instance with --instance, or give a price book of your own with --prices.",
        )
    best = min(fitting, key=lambda price: _distance(environment, price))
    return _match(environment, best, accelerator, named=False, pay=pay)


def _accelerator_of(environment: Environment, candidates: Sequence[Price]) -> str | None:
    if not environment.accelerators:
        return None
    known = sorted({p.accelerator for p in candidates if p.accelerator is not None})
    return accelerator_in_book(environment.accelerators[0], known)


def _distance(environment: Environment, price: Price) -> tuple[float, ...]:
    wanted = instruction_set(environment)
    family = family_of(price)
    generation = 0 if is_same_family(environment, price) else 1 if family == wanted else 3 if family == "shared" else 2
    return (
        price.accelerator_count,
        _log_ratio(price.vcpus, environment.cores),
        _log_ratio(price.memory_gib, environment.memory_bytes / 2**30),
        generation,
        price.on_demand_usd_per_hour,
    )


def _log_ratio(offered: float | None, wanted: float) -> float:
    """How many doublings two sizes are apart; sizes that sound the same, such as 15.6 and 16 GiB, are."""
    return math.inf if offered is None else float(round(abs(math.log2(offered / wanted)), 1))


def _match(environment: Environment, price: Price, accelerator: str | None, *, named: bool, pay: Pay) -> Match:
    # A machine whose accelerator the book does not know has no instance that is the same.
    same_accelerator = price.accelerator == accelerator and bool(accelerator) == bool(environment.accelerators)
    share = 1.0
    size = "" if price.vcpus is None else f"{price.vcpus} vCPUs, {price.memory_gib:g} GiB, "
    if price.accelerator is not None:
        size += f"{price.accelerator_count} x {price.accelerator}, "
    paid = f"${price.on_demand_usd_per_hour:g} an hour on demand" if pay == "on-demand" else paid_text(price, pay)
    what = f"{price.provider} {price.instance} in {price.region} ({size}{paid})"
    machine = f"{environment.cores} cores and {format_bytes(environment.memory_bytes)}"
    if environment.accelerators:
        machine = f"{environment.accelerators[0]}, {machine}"
    else:
        machine += f", {instruction_set(environment)}"
    if named:
        why = f"Priced as {what}, as asked. It was measured on a machine with {machine}."
    else:
        why = f"Assumed: priced as {what}, the nearest in the price book to this machine's {machine}."
    if price.accelerator is not None and same_accelerator and price.accelerator_count > 1:
        share = 1 / price.accelerator_count
        why += f" One of its {price.accelerator_count} accelerators is counted, as if the others earn their keep too."
    same_family = is_same_family(environment, price)
    # The vCPUs of an instance with an accelerator only feed it.
    same_processor = price.accelerator is not None or (same_family and price.vcpus == environment.cores)
    return Match(
        price=price,
        why=why,
        is_assumption=not named,
        same_machine=same_accelerator and same_processor,
        same_family=same_family,
        share=share,
        pay=pay,
    )
