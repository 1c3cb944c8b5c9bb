"""What there is to work with: this machine, data sets and prices."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kcost.api.doctor import DoctorReport
    from kcost.cost.price_rules import PriceCheck
    from kcost.cost.pricebook import PriceBook
    from kcost.data import CatalogueEntry


def run_doctor(*, devices: bool = True) -> DoctorReport:
    """What is installed here, what this machine is, and what of kcost works on it.

    Args:
        devices: also start each installed backend to list its devices, a few seconds each.

    Example:
        >>> report = kcost.run_doctor(devices=False)
        >>> [backend.backend for backend in report.backends]
        ['tensorflow', 'jax', 'torch']
    """
    from kcost.api.doctor import examine

    return examine(devices=devices)


def data_sets() -> list[CatalogueEntry]:
    """The data sets that kcost knows by name, with licence, size, and where each was found.

    Example:
        >>> "digits" in [entry.name for entry in kcost.data_sets()]
        True
    """
    from kcost.data import catalogue

    return list(catalogue())


def fetch_data(name: str) -> dict[str, Path]:
    """The files of a known data set by part, downloaded and checked where they are not here yet.

    Raises:
        DataError: the name is unknown, or a file is neither here nor to be had; it says which to put where.

    Example:
        >>> kcost.fetch_data("digits")
        {}
    """
    from kcost.data import fetch

    return fetch(name)


def prices(file: Path | str | None = None) -> PriceBook:
    """The price book in the package, or one of your own. Raises PriceError for one that cannot be read.

    Example:
        >>> {price.provider for price in kcost.prices().find(provider="aws", region="us-east-1")}
        {'aws'}
    """
    from kcost.cost.pricebook import PriceBook

    return PriceBook.read(None if file is None else Path(file))


def check_prices(file: Path | str | None = None) -> PriceCheck:
    """Every problem of a price book, and what to look at again. Raises PriceError for one that is no price book.

    Example:
        >>> kcost.check_prices().problems
        ()
    """
    from kcost.cost.price_rules import PriceCheck

    book = prices(file)
    found, doubtful = tuple(book.check()), tuple(book.warnings())
    return PriceCheck(name=book.name, rows=len(book.prices), problems=found, warnings=doubtful)
