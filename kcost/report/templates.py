"""Pages from templates: one setting for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kcost.version import __version__


def page_of(template: str, filters: Mapping[str, Callable[..., object]], **values: Any) -> bytes:
    """A page in UTF-8; values are escaped, and a name that the template misses is an error.

    Args:
        template: name of a file in the folder templates.
        filters: functions that the template calls by these names.
        values: what the template shows.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    templates = Environment(
        loader=PackageLoader("kcost.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    templates.filters.update(filters)
    return templates.get_template(template).render(**values, version=__version__).encode()
