"""What measured models would cost on machines that are not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.api.inventory import prices
from kcost.core.errors import ArtifactError, InputError, PriceError

if TYPE_CHECKING:
    from kcost.cost.devices import Number
    from kcost.cost.payment import Pay
    from kcost.cost.placements import ProjectionReport
    from kcost.cost.price_rules import Price
    from kcost.cost.pricebook import PriceBook


def project_run(
    run: Path | str,
    to: Sequence[str],
    *,
    provider: str | None = None,
    region: str | None = None,
    precision: Number | None = None,
    batches: Sequence[int] = (),
    pay: Pay = "on-demand",
    prices_file: Path | str | None = None,
) -> ProjectionReport:
    """The measured forward passes of a run beside what they would cost on other instances, projected.

    Args:
        run: a run folder, measured with profiles.
        to: instances, or accelerators, of the price book: the cheapest row of each is taken.
        provider, region: whose instances.
        precision: fp32, tf32, fp16, bf16 or int8; None takes what the framework computes in there.
        batches: batch sizes there; none takes those that were measured.
        pay: on-demand, spot or committed; of the instances that are projected to.
        prices_file: a price book of your own, or a prices.toml.

    Raises:
        InputError: the run cannot be read or has no forward pass, a batch below 1, or an unknown precision or device.
        PriceError: an instance that the book does not have.
    """
    from kcost.bench.store import RunStore
    from kcost.core.artifact import open_model
    from kcost.core.keras_file import class_counts
    from kcost.cost.devices import NUMBERS
    from kcost.cost.placements import report
    from kcost.cost.verdict import prices_for

    if not to:
        raise InputError("A projection names where to.", received="no instance", remedy="Give one: --to g6.xlarge.")
    if precision is not None and precision not in NUMBERS:
        raise InputError(f"A step computes in one of {', '.join(NUMBERS)}.", received=precision)
    if any(batch < 1 for batch in batches):
        raise InputError("A batch has at least one example.", received=min(batches))
    loaded = RunStore(run).load()
    book = prices(prices_file).checked()
    targets = [_target(book, name, provider, region, pay) for name in to]
    classes = {}
    for entry in loaded.index.models:
        try:
            model = open_model(entry.path)
        except ArtifactError as error:
            raise InputError(
                "A projection reads the layers of a model in its file.",
                received=f"{entry.name}: {error.received}",
                remedy="Put the file back where the run measured it.",
            ) from error
        if model.sha256 != entry.sha256:
            raise InputError(
                "A projection is of the model that was measured.",
                received=f"{entry.path}, which has changed since",
                remedy="Measure it again.",
            )
        classes[entry.name] = class_counts(model.keras_file)
    matched = prices_for(loaded, book)
    return report(loaded, matched, targets, classes, pay=pay, precision=precision, batches=batches)


def _target(book: PriceBook, name: str, provider: str | None, region: str | None, pay: Pay) -> Price:
    """The cheapest price of an instance or an accelerator. Raises PriceError for neither, or not sold in that way."""
    from kcost.cost.payment import offers, usd_per_hour

    rows = book.find(provider, region, name) or tuple(
        p for p in book.find(provider, region) if (p.accelerator or "").lower() == name.lower()
    )
    if not rows:
        where = "".join(f", {v}" for v in (provider, region) if v is not None)
        raise PriceError(
            f"{book.name} has the instances that are projected to.",
            received=f"{name}{where}",
            remedy="`kcost prices list` shows what there is; prices.toml takes more.",
        )
    sold = [p for p in rows if offers(p, pay)]
    return min(sold or rows[:1], key=lambda p: usd_per_hour(p, pay) / max(1, p.accelerator_count))
