"""What there is to work with: this machine, data sets and prices."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.core.errors import PriceError, UnavailableError

if TYPE_CHECKING:
    from kcost.api.doctor import DoctorReport
    from kcost.cost.price_rules import PriceCheck
    from kcost.cost.price_update import PriceDiff
    from kcost.cost.pricebook import PriceBook
    from kcost.data import CatalogueEntry


def run_doctor(*, devices: bool = True) -> DoctorReport:
    """What is installed here, what this machine is, and what of kcost works on it.

    Args:
        devices: also start each installed backend to list its devices, a few seconds each.

    Examples:
        >>> report = kcost.run_doctor(devices=False)
        >>> [backend.backend for backend in report.backends]
        ['tensorflow', 'jax', 'torch']
    """
    from kcost.api.doctor import examine

    return examine(devices=devices)


def data_sets() -> list[CatalogueEntry]:
    """The data sets that kcost knows by name, with licence, size, and where each was found.

    Examples:
        >>> "digits" in [entry.name for entry in kcost.data_sets()]
        True
    """
    from kcost.data import catalogue

    return list(catalogue())


def fetch_data(name: str) -> dict[str, Path]:
    """The files of a known data set by part, downloaded and checked where they are not here yet.

    Raises:
        DataError: the name is unknown, or a file is neither here nor to be had; it says which to put where.

    Examples:
        >>> kcost.fetch_data("digits")
        {}
    """
    from kcost.data import fetch

    return fetch(name)


OWN_PRICES = "prices.toml"
"""The file in the working directory whose prices win over those of the package."""

MOST_BYTES = 256 * 2**20
"""Longest list that is read from a URL; SkyPilot's longest is about 50 MB."""

TIMEOUT_S = 60


def prices(file: Path | str | None = None) -> PriceBook:
    """The price book in the package, or one of your own. Raises PriceError for one that cannot be read.

    Args:
        file: a price book (.csv), or prices of your own over one (.toml). None takes prices.toml from the working
            directory where it is there, else the package's book.

    Examples:
        >>> {price.provider for price in kcost.prices().find(provider="aws", region="us-east-1")}
        {'aws'}
    """
    from kcost.cost.pricebook import PriceBook

    if file is None and Path(OWN_PRICES).is_file():
        return PriceBook.read(Path(OWN_PRICES))
    return PriceBook.read(None if file is None else Path(file))


def update_prices(
    source: Path | str,
    *,
    book: Path | str | None = None,
    out: Path | str | None = None,
    provider: str | None = None,
    as_of: date | None = None,
    add: bool = False,
) -> PriceDiff:
    """Reads a price list that others keep into a price book, and says what changed.

    Args:
        source: a file or an http(s) URL: a book of kcost, SkyPilot's vms.csv, or a Karpenter provider's table.
        book: what to update; None takes the package's own.
        out: the file to write the book to; None writes nothing.
        provider: whose prices the list holds, where neither its name nor its content says it.
        as_of: the day of the prices, where the list says none.
        add: also take instances and regions that the book does not have.

    Raises:
        PriceError: no known format, no prices, or a book that breaks a rule afterwards.
        UnavailableError: the URL cannot be read.
        StorageError: `out` cannot be written.
    """
    from kcost.core.schema import write_bytes
    from kcost.cost.price_sources import read_list
    from kcost.cost.price_update import book_csv, diff, updated, without_older
    from kcost.cost.pricebook import PriceBook

    base = PriceBook.read(None if book is None else Path(book)).checked()
    read = read_list(_content(str(source)), str(source), base.prices, provider=provider, as_of=as_of)
    newer = without_older(base.prices, read.prices)
    merged, unknown = updated(base.prices, newer, add=add)
    content = book_csv(merged)
    PriceBook.parse(content, f"{base.name} with {read.name}").checked()
    changes = diff(base.prices, merged, (base.name, read.name))
    written = None
    if out is not None:
        write_bytes(Path(out), content)
        written = str(out)
    left_out = dict(read.left_out)
    if (older := len(read.prices) - len(newer)) > 0:
        left_out["older than the price that the book has"] = older
    return changes.model_copy(update={"not_in_book": unknown, "left_out": left_out, "out": written})


def diff_prices(before: Path | str, after: Path | str | None = None) -> PriceDiff:
    """What changed from one price book to another. Raises PriceError for one that cannot be read.

    Args:
        after: None takes the book that prices are taken from: prices.toml, else the package's own.

    Examples:
        >>> from importlib.resources import files
        >>> kcost.diff_prices(files("kcost.cost") / "data" / "prices.csv").changes
        ()
    """
    from kcost.cost.price_update import diff

    old, new = prices(before), prices(after)
    return diff(old.prices, new.prices, (old.name, new.name))


def _content(source: str) -> bytes:
    """The bytes of a file or URL."""
    if not source.startswith(("http://", "https://")):
        try:
            return Path(source).read_bytes()
        except OSError as error:
            received = f"{source}: {error.strerror}"
            raise PriceError("A price list is a file or an http(s) URL.", received=received) from error
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(source, timeout=TIMEOUT_S) as answer:
            content: bytes = answer.read(MOST_BYTES + 1)
    except (urllib.error.URLError, OSError, ValueError) as error:
        raise UnavailableError(
            "The URL of a price list answers.", received=f"{source}: {error}", remedy="Download it, and name the file."
        ) from error
    if len(content) > MOST_BYTES:
        raise PriceError(f"A price list has at most {MOST_BYTES // 2**20} MiB.", received=source)
    return content


def check_prices(file: Path | str | None = None) -> PriceCheck:
    """Every problem of a price book, and what to look at again. Raises PriceError for one that is no price book.

    Examples:
        >>> kcost.check_prices().problems
        ()
    """
    from kcost.cost.price_rules import PriceCheck

    book = prices(file)
    problems, doubtful = tuple(book.check()), tuple(book.warnings())
    return PriceCheck(name=book.name, rows=len(book.prices), problems=problems, warnings=doubtful)
