"""What a recommendation measured, judged and priced: at the first time, and again when prices or traffic changed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from kcost.api.inventory import prices
from kcost.api.recommend_after import errors_by_way
from kcost.api.recommend_data import RUN_FOLDER
from kcost.core import environment
from kcost.core.errors import InputError
from kcost.core.garbage_collection import collector_paused

if TYPE_CHECKING:
    from kcost.core.result import Environment, Run
    from kcost.recommend.answer import Request
    from kcost.recommend.candidates import Listed
    from kcost.recommend.drop import DropBound
    from kcost.recommend.pricing import Priced
    from kcost.recommend.standings import Judged
    from kcost.recommend.terms import Terms
    from kcost.recommend.variants import MadeVariant
    from kcost.risk.gates import Gates


class PricedRun(NamedTuple):
    """A run as it is priced."""

    run: Run
    judged: Judged
    priced: Priced | None
    none_because: str | None = None
    """Why no way is priced, where the traffic or the p99 is it."""

    @staticmethod
    @collector_paused()
    def of(
        folder: Path,
        listed: Listed,
        terms: Terms,
        gates: Gates | None,
        made: Mapping[str, MadeVariant],
        rescored: Mapping[str, DropBound],
        refused_by_gates: Mapping[str, str] = MappingProxyType({}),
    ) -> PricedRun:
        """Judges and prices what a folder holds.

        Args:
            refused_by_gates: way -> which gate it alone fails.
        """
        from kcost.bench.store import RunStore
        from kcost.recommend.pricing import price
        from kcost.recommend.standings import Capacities, judge

        store = RunStore(folder / RUN_FOLDER)
        run = store.load()
        latest = _latest(run)
        judged = judge(latest, store.read_outputs, terms, listed.candidates, made, rescored)
        judged = _without(judged, refused_by_gates)
        errors = {} if gates is None or gates.loss is None else errors_by_way(latest, store, judged, gates)
        usd_per_label = None if gates is None else gates.usd_per_label
        try:
            priced = price(judged, terms, Capacities(terms.seed), errors=errors, usd_per_label=usd_per_label)
        except InputError as error:  # an answer, too: no way holds the p99, or the traffic with as many replicas
            return PricedRun(latest, judged, None, f"{error.rule} Received: {error.received}.")
        return PricedRun(latest, judged, priced)


def _without(judged: Judged, refused: Mapping[str, str]) -> Judged:
    """The judged ways without some, which the reasons refuse."""
    if not refused:
        return judged
    kept = {n: w for n, w in judged.ways.items() if n not in refused}
    return judged._replace(ways=kept, refused={**judged.refused, **refused})


def _latest(run: Run) -> Run:
    """The cells of one environment: that of most of them, which a machine that was changed between calls has two of."""
    counts: dict[str, int] = {}
    for cell in run.present:
        counts[cell.environment_id] = counts.get(cell.environment_id, 0) + 1
    if len(counts) < 2:
        return run
    now = here().environment_id
    kept = now if now in counts else max(counts, key=lambda key: counts[key])
    return run.model_copy(update={"cells": tuple(c for c in run.cells if c.environment_id == kept)})


def here() -> Environment:
    """This machine, as of now."""
    return environment.collect()


def terms_of(request: Request) -> Terms:
    """What a request prices by. Raises InputError or SchemaError where its price book cannot be read."""
    from kcost.recommend.terms import Limits, Terms

    return Terms(
        traffic=request.traffic,
        assumed=request.assumed,
        limits=Limits(p99_ms=request.p99_ms, max_drop=request.max_drop),
        book=prices(request.prices_file).checked(),
        provider=request.provider,
        region=request.region,
        instance=request.instance,
        seed=request.seed,
    )
