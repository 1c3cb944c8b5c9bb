"""Forecasts of what serving costs, read from budgets and runs, for the proxy to put beside its invoice."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from kcost.core import schema
from kcost.core.errors import InputError

if TYPE_CHECKING:
    from kcost.cost.forecast import Forecast

_NAMED = re.compile(r"([^=/]+)(?:/([^=/]+))?=(.+)")


class _Named(NamedTuple):
    model: str
    """As it is served; empty for the name that it has in the file."""
    version: str
    """Empty for all."""
    path: Path
    way: str | None


def read_forecasts(texts: Sequence[str], usd_per_hour: float) -> dict[tuple[str, str], Forecast]:
    """Reads forecasts.

    Args:
        texts: [NAME[/VERSION]=]FILE[@WAY]; FILE is a budget, what `kcost cost RUN --qps Q --p99-ms T --json` prints, or
            the folder of a recommendation or of a run. WAY is a part of the name of one of its ways of serving.
        usd_per_hour: price of the machine, which a run has not.

    Returns:
        (model, version) -> forecast; an empty version is for all that are not named.

    Raises:
        InputError: a file cannot be read, or does not say which model and way are meant.
    """
    forecasts: dict[tuple[str, str], Forecast] = {}
    for text in texts:
        named = _named(text)
        forecast = _read(named, usd_per_hour)
        model = named.model or forecast.model
        if not model:
            raise InputError(
                "A forecast is of a model by the name that it is served by.",
                received=f"{text}, which names none",
                remedy="Say --forecast NAME=FILE.",
            )
        if (model, named.version) in forecasts:
            raise InputError(
                "Each model and version has one forecast.",
                received=f"{text}, the second of {model}{f' version {named.version}' if named.version else ''}",
                remedy="Say --forecast NAME=FILE, or NAME/VERSION=FILE.",
            )
        forecasts[model, named.version] = forecast
    return forecasts


def _named(text: str) -> _Named:
    match = None if Path(text).exists() else _NAMED.fullmatch(text)
    model, version, rest = (match[1], match[2] or "", match[3]) if match else ("", "", text)
    path, separator, way = rest.rpartition("@")
    if Path(rest).exists() or not separator:
        return _Named(model, version, Path(rest), None)
    return _Named(model, version, Path(path), way)


def _read(named: _Named, usd_per_hour: float) -> Forecast:
    from kcost.api.recommend_watch import VERDICT_FILE, read_recommendation
    from kcost.bench.store import RunStore
    from kcost.cost.budget import Budget
    from kcost.cost.forecast import forecast_of_budget, forecast_of_run

    source = str(named.path)
    if (named.path / VERDICT_FILE).is_file():
        budget = read_recommendation(named.path).budget
        if budget is None:
            raise InputError(
                "A forecast is a recommendation with a budget.",
                received=f"{source}, which has none",
                remedy="Look at it with kcost recommend --watch, and measure again.",
            )
        return forecast_of_budget(budget, named.way, source)
    if named.path.is_dir():
        return forecast_of_run(RunStore(named.path).load(), named.way, source, usd_per_hour)
    try:
        return forecast_of_budget(schema.read("budget", named.path, Budget), named.way, source)
    except OSError as error:
        raise InputError(
            "A forecast is a budget or the folder of a run.",
            received=f"{source}: {error.strerror}",
            remedy="Write one: kcost cost RUN --qps Q --p99-ms T --json > budget.json",
        ) from error
