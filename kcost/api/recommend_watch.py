"""An earlier recommendation: reading it, and whether it still holds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.api.recommend_live import live_of
from kcost.api.recommend_pricing import PricedRun, terms_of
from kcost.api.risk import read_gates
from kcost.core import schema
from kcost.core.artifact import open_model
from kcost.core.errors import InputError, KcostError

if TYPE_CHECKING:
    from kcost.recommend.answer import Recommendation
    from kcost.recommend.watching import Watched

VERDICT_FILE = "verdict.json"


def watch_recommendation(
    out: Path | str,
    *,
    qps: float | None = None,
    daily: Sequence[float] | None = None,
    weekly: Sequence[float] | None = None,
    log: Path | str | None = None,
    prices_file: Path | str | None = None,
    monitor: Path | str | None = None,
) -> Watched:
    """Prices what a recommendation measured again, as prices, traffic and the model are now; measures nothing.

    Args:
        out: the folder of a recommendation.
        qps, daily, weekly, log: the traffic as it is now; none keeps that of before.
        prices_file: prices as they are now; None takes those of before, or the book that kcost has.
        monitor: what watches live traffic, a URL of `kcost serve --upstream`, or a file that `kcost monitor --json`
            wrote: the answer holds no more where live rows have drifted. None looks at no traffic.

    Raises:
        InputError: the folder holds no recommendation, or nothing that watches is there.
    """
    from kcost.api.costing import traffic_of
    from kcost.recommend.candidates import Listed
    from kcost.recommend.watching import watched

    folder = Path(out)
    before = read_recommendation(folder)
    request = before.request
    live = None if monitor is None else live_of(str(monitor), Path(request.model))
    changes: dict[str, object] = {}
    if any(v is not None for v in (qps, daily, weekly, log)):
        changes["traffic"] = traffic_of(qps, daily, weekly, log)
    if prices_file is not None:
        changes["prices_file"] = str(Path(prices_file).absolute())
    request = request.model_copy(update=changes)
    why_gone = None
    try:
        opened = open_model(request.model)
        sha256 = opened.sha256
    except KcostError as error:
        opened, sha256, why_gone = None, None, " ".join(str(error).split())
    limits = None if request.gates is None or not Path(request.gates).is_file() else read_gates(Path(request.gates))
    terms = terms_of(request)
    # From their names: what is installed now changes no stored cell.
    listed = Listed(candidates=before.candidates, left_out=before.left_out)
    made = {v.variant: v for v in before.variants}
    now = PricedRun.of(folder, listed, terms, limits, made, before.rescored, before.refused_by_gates)
    return watched(before, now.priced, terms, folder, sha256, why_gone, live, now.none_because)


def read_recommendation(out: Path | str) -> Recommendation:
    """The recommendation in a folder. Raises InputError where there is none, SchemaError where it is damaged."""
    from kcost.recommend.answer import Recommendation

    path = Path(out) / VERDICT_FILE
    try:
        return schema.read("recommendation", path, Recommendation)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise InputError(
            f"A recommendation is a folder with {VERDICT_FILE}.",
            received=f"{out} without it",
            remedy="Make one first: kcost recommend MODEL --qps 200 --p99-ms 50 --out DIR.",
        ) from error
