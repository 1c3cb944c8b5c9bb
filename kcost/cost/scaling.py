"""Seconds of a step on another size of the same family of processors: on fewer vCPUs, or beside other workers.

With c cores here and v < c vCPUs there a step takes at least as long as here, and at most c / v times as long, as no
step gains more from cores than there are. Nothing else is known of a step that was measured at one count of threads, so
that these are taken as the ends of its 90% interval, and their geometric mean as its value (Amdahl, 1967, doi
10.1145/1465482.1465560: what does not run in parallel decides where between the two it lies). Where the same step was
measured here with v threads, that is the value, and `beside_spread` its doubt: fewer cores also share a memory.

On more vCPUs several workers of the measured size run side by side. None is taken to slow another, and `beside_spread`
is the doubt of that for each doubling.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from kcost.core.stats import NORMAL_95, location
from kcost.core.units import significant
from kcost.cost.instances import Offer
from kcost.cost.serving_ways import Scaled, Way


def fewer_cores(cores: int, vcpus: int, beside_spread: float, with_threads: float | None = None) -> Scaled:
    """A step of `cores` cores on an instance with fewer vCPUs.

    Args:
        with_threads: how many times as long it took here with `vcpus` threads; None where that was not measured.

    Examples:
        >>> scaling = fewer_cores(4, 1, 0.1)
        >>> scaling.times, round(scaling.low, 6), round(scaling.high, 6)
        (2.0, 1.0, 4.0)
    """
    most = cores / vcpus
    what = f"Its {vcpus} vCPUs are fewer than the {cores} cores that measured: "
    if with_threads is not None:
        why = f"{what}with {vcpus} threads a step took {significant(with_threads)} times as long."
        return Scaled(with_threads, math.log1p(beside_spread) / NORMAL_95, why)
    times = math.sqrt(most)
    why = (
        f"{what}a step is taken to last {significant(times)} times as long (1 to {significant(most)}, scaled); "
        f"measuring with --threads {vcpus} too would narrow that."
    )
    return Scaled(times, math.log(most) / 2 / NORMAL_95, why)


def workers_sd(workers: int, beside_spread: float) -> float:
    """Standard deviation of the logarithm of a step beside so many workers of its kind on one instance."""
    return math.log2(workers) * math.log1p(beside_spread) / NORMAL_95


def on_offers(ways: Sequence[Way], offers: Mapping[str, Sequence[Offer]], beside_spread: float) -> list[Way]:
    """The ways with the seconds that they would take on their instances, where these have fewer vCPUs.

    Args:
        offers: name of a way -> instances; one that has fewer vCPUs than the machine is the only one of its way.
        beside_spread: see `Assumptions.scaling_spread`.
    """
    scaled = []
    for way in ways:
        vcpus = min((o.price.vcpus for o in offers[way.name] if o.price.vcpus is not None), default=None)
        cores = way.spec.threads or way.environment.default_threads
        if vcpus is None or vcpus >= cores or way.spec.device != "cpu" or way.scaling is not None:
            scaled.append(way)
            continue
        scaling = fewer_cores(cores, vcpus, beside_spread, _measured_with(way, ways, vcpus))
        medians = {
            batch: {key: ns * scaling.times for key, ns in rounds.items()} for batch, rounds in way.medians_ns.items()
        }
        scaled.append(way._replace(service=way.service.scaled(scaling.times), medians_ns=medians, scaling=scaling))
    return scaled


def _measured_with(way: Way, ways: Sequence[Way], threads: int) -> float | None:
    """How many times as long the same way took with so many threads, at the largest batch size that both have."""
    for other in ways:
        alike = other.spec.model_copy(update={"threads": way.spec.threads, "batch": way.spec.batch}) == way.spec
        if other.spec.threads == threads and alike and other.environment_id == way.environment_id:
            shared = sorted(way.medians_ns.keys() & other.medians_ns.keys())
            if shared:
                both = (location(list(one.medians_ns[shared[-1]].values())).value for one in (other, way))
                return next(both) / next(both)
    return None
