"""What a proxy that watches live traffic says of the model of a recommendation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kcost.api.monitoring import monitor_proxy
from kcost.core import schema
from kcost.core.errors import InputError

if TYPE_CHECKING:
    from kcost.recommend.live import LiveTraffic
    from kcost.serving.monitor.report import MonitorReport


def live_of(source: str, model: Path) -> LiveTraffic:
    """The drift of a model's live traffic.

    Args:
        source: http://HOST:PORT of `kcost serve --upstream`, or a file of what `kcost monitor --json` printed.
        model: the file or folder that was recommended; a reference bears its name.

    Raises:
        InputError: nothing answers there, there is no such file, or models are watched and none is this one.
        SchemaError: the file is no monitor report.
    """
    from kcost.recommend.live import live_traffic, unwatched

    report = _report(source)
    models = report.watched.models
    if not models:
        return unwatched("the proxy was given no reference; start it with --reference NAME=ARTIFACT")
    mine = [m for m in models if model.stem in (m.drift.model, m.name)] or ([*models] if len(models) == 1 else [])
    if len(mine) != 1:
        raise InputError(
            "A proxy watches the model of a recommendation once.",
            received=f"{model.stem}, and a proxy that watches {', '.join(m.name for m in models)}",
            remedy="Name the proxy that serves it, and make its reference with `kcost monitor reference`.",
        )
    return live_traffic(mine[0].name, mine[0].drift, mine[0].rows_per_s)


def _report(source: str) -> MonitorReport:
    if source.startswith(("http://", "https://")):
        return monitor_proxy(source)
    from kcost.serving.monitor.report import MonitorReport

    try:
        return schema.read("monitor", Path(source), MonitorReport)
    except OSError as error:
        raise InputError(
            "What watches live traffic is a URL, or a file of its report.",
            received=f"{source}: {error.strerror or error}",
            remedy="Such as --monitor http://127.0.0.1:8502, or what `kcost monitor URL --json` printed.",
        ) from error
