"""What measured models would cost on machines that are not at hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.api.inventory import prices
from kcost.core.errors import ArtifactError, InputError, PriceError
from kcost.core.suggestion import did_you_mean

if TYPE_CHECKING:
    from kcost.core.plan import Backend
    from kcost.core.probe import Probe
    from kcost.core.result import Run
    from kcost.cost.devices import Number
    from kcost.cost.payment import Pay
    from kcost.cost.placements import ProjectionReport
    from kcost.cost.price_rules import Price
    from kcost.cost.pricebook import PriceBook


def project_run(
    run: Path | str,
    to: Sequence[str],
    *,
    probes: Sequence[Path | str] = (),
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
        to: instances, or accelerators, of the price book: the cheapest row of each is taken. `NAME=FILE` is an instance
            with a probe that was made on it; named once more for each backend.
        probes: of the machine that measured, one for each backend. With them cells are projected to instances that
            were probed, and to smaller sizes of the same family.
        provider, region: whose instances.
        precision: fp32, tf32, fp16, bf16 or int8; None takes what the framework computes in there.
        batches: batch sizes there; none takes those that were measured.
        pay: on-demand, spot or committed; of the instances that are projected to.
        prices_file: a price book of your own, or a prices.toml.

    Raises:
        InputError: the run cannot be read or has no forward pass that is not INVALID, a batch
            below 1, an unknown precision or device, or a probe that is of another machine than the run.
        SchemaError: a file of a probe that is none.
        PriceError: an instance that the book does not have.
    """
    from kcost.bench.store import RunStore
    from kcost.core.artifact import open_model
    from kcost.core.keras_file import class_counts
    from kcost.cost.devices import NUMBERS
    from kcost.cost.placements import report
    from kcost.cost.probed_placements import ProbedTarget, probed_placements
    from kcost.cost.verdict import prices_for

    if not to:
        raise InputError("A projection names where to.", received="no instance", remedy="Give one: --to g6.xlarge.")
    if precision is not None and precision not in NUMBERS:
        raise InputError(f"A step computes in one of {', '.join(NUMBERS)}.", received=precision)
    if any(batch < 1 for batch in batches):
        raise InputError("A batch has at least one example.", received=min(batches))
    loaded, disturbed = _believed(RunStore(run).load())
    book = prices(prices_file).checked()
    here = _by_backend([_probe(file) for file in probes])
    targets: list[Price] = []
    there: dict[str, ProbedTarget] = {}
    for text in to:
        name, has_probe, file = text.partition("=")
        price = _target(book, name, provider, region, pay)
        if not has_probe and (price.accelerator is not None or not here):
            targets.append(price)
            continue
        if not here:
            raise InputError(
                "A projection to a probed instance begins at a probe of the machine that measured.",
                received=f"{text}, and none",
                remedy="Run `kcost probe --out here.json` there, and add --probe here.json.",
            )
        known = there[price.key].probes if price.key in there else {}
        new = _by_backend([_probe(file)]) if has_probe else {}
        there[price.key] = ProbedTarget(price, {**known, **new})
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
    by_probes = probed_placements(
        loaded, here, tuple(there.values()), classes, pay=pay, precision=precision, batches=batches
    )
    return report(
        loaded,
        matched,
        targets,
        classes,
        pay=pay,
        precision=precision,
        batches=batches,
        probed=by_probes.options,
        not_probed=(*disturbed, *(by_probes.not_projected if there else ())),
    )


def _believed(run: Run) -> tuple[Run, tuple[str, ...]]:
    """The run without its INVALID cells, and a line for each of those.

    Raises InputError where no forward pass is left.
    """
    from kcost.core.disturbance import invalid_cell

    reasons = {c.spec.cell_id: invalid_cell(c, run.environments[c.environment_id]) for c in run.measured()}
    kept = run.model_copy(update={"cells": tuple(c for c in run.cells if reasons.get(c.spec.cell_id) is None)})
    lines = tuple(
        f"{c.spec.model}, {c.spec.label}: INVALID: {reasons[c.spec.cell_id]}"
        for c in run.measured(phase="inference")
        if reasons[c.spec.cell_id] is not None
    )
    if lines and not kept.measured(phase="inference"):
        raise InputError(
            "A projection rests on cells that are not INVALID.",
            received=lines[0],
            remedy="Do what that says, and run `kcost bench` again.",
        )
    return kept, lines


def _probe(file: Path | str) -> Probe:
    """A stored probe. Raises SchemaError for what is none, InputError for a file that cannot be read."""
    from kcost.core import schema
    from kcost.core.probe import Probe

    try:
        return schema.read("probe", Path(file), Probe)
    except OSError as error:
        raise InputError(
            "A probe is a file that `kcost probe` wrote.",
            received=f"{file}: {error.strerror}",
            remedy="Name another file, or run `kcost probe --out FILE`.",
        ) from error


def _by_backend(made: Sequence[Probe]) -> dict[Backend, Probe]:
    """Backend -> probe. Raises InputError for two of one backend."""
    by_backend = {probe.backend: probe for probe in made}
    if len(by_backend) < len(made):
        raise InputError(
            "A machine has one probe of each backend.",
            received=", ".join(probe.backend for probe in made),
            remedy="Name one file of each.",
        )
    return by_backend


def _target(book: PriceBook, name: str, provider: str | None, region: str | None, pay: Pay) -> Price:
    """The cheapest price of an instance or an accelerator. Raises PriceError for neither, or not sold in that way."""
    from kcost.cost.payment import offers, usd_per_hour

    rows = book.find(provider, region, name) or tuple(
        p for p in book.find(provider, region) if (p.accelerator or "").lower() == name.lower()
    )
    if not rows:
        where = "".join(f", {v}" for v in (provider, region) if v is not None)
        known = sorted({n for p in book.find(provider, region) for n in (p.instance, p.accelerator) if n is not None})
        raise PriceError(
            f"{book.name} has the instances that are projected to.",
            received=f"{name}{where}",
            remedy=f"{did_you_mean(name, known)}`kcost prices list` shows what there is; prices.toml takes more.",
        )
    sold = [p for p in rows if offers(p, pay)]
    return min(sold or rows[:1], key=lambda p: usd_per_hour(p, pay) / max(1, p.accelerator_count))
