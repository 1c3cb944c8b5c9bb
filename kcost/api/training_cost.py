"""From the training cells of a run to what a training costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kcost.api.inventory import prices

if TYPE_CHECKING:
    from kcost.cost.option import Refused
    from kcost.cost.payment import Pay
    from kcost.cost.training_bill import TrainingBill, TrainingReport


def estimate_training(
    run: Path | str,
    *,
    epochs: int | None = None,
    examples: int | None = None,
    trials: int = 1,
    provider: str | None = None,
    region: str | None = None,
    instance: str | None = None,
    pay: Pay = "on-demand",
    storage_gib: float = 0.0,
    usd_per_gib_month: float | None = None,
    max_drop: float | None = None,
    prices_file: Path | str | None = None,
) -> TrainingReport:
    """What training a model costs on an instance, by each training cell that a run measured, the cheapest first.

    Args:
        run: a run folder with cells of the phase training.
        epochs, examples: of one training; None takes those of the training that made the model.
        trials: trainings one after another, as a search makes them.
        provider, region, instance: what to price; None takes the closest match to the machine, and says so.
        pay: on-demand, spot or committed; on spot interruptions are a line of their own.
        storage_gib, usd_per_gib_month: storage for as long as it lasts; both or none.
        max_drop: largest drop of the score that is allowed below float32, as a fraction; None means 0.01.
        prices_file: a price book of your own, or a prices.toml.

    Raises:
        InputError: the run cannot be read, has no training cell that may be used, or a number is out of its range.
        PriceError: the book cannot be trusted, or has no price for what was asked.

    Examples:
        >>> plan = kcost.make_plan(["digits-cnn"], backends=["torch"], phases=["training"], settings={"rounds": 2})
        >>> measured = kcost.run_bench(plan, "training-run")
        >>> report = kcost.estimate_training("training-run", trials=20, provider="aws", region="us-east-1")
        >>> [part.part for part in report.bills[0].parts]
        ['steps', 'beside the steps']
    """
    from kcost.bench.store import RunStore
    from kcost.cost.option import Refused
    from kcost.cost.training_bill import training_bill, training_report
    from kcost.cost.verdict import MAX_DROP, conclude, prices_for

    store = RunStore(run)
    loaded = store.load()
    matched = prices_for(loaded, prices(prices_file).checked(), provider, region, instance, pay)
    verdict = conclude(loaded, matched, store.read_outputs, max_drop=MAX_DROP if max_drop is None else max_drop)
    judged = {c.cell_id: c for r in verdict.rankings if r.phase == "training" for c in r.cells}
    bills: list[TrainingBill] = []
    left_out: list[Refused] = []
    for cell in loaded.measured(phase="training"):
        one = judged[cell.spec.cell_id]
        label = f"{cell.spec.model}, {cell.spec.label}"
        if one.standing != "ranked" or not one.valid:
            reason = f"INVALID: {one.invalid}" if one.standing == "ranked" else f"{one.standing}: {one.reason}"
            left_out.append(Refused(name=label, reason=reason))
            continue
        bills.append(
            training_bill(
                cell,
                loaded.environments[cell.environment_id],
                loaded.entry(cell.spec.model),
                matched[cell.environment_id],
                epochs=epochs,
                examples=examples,
                trials=trials,
                storage_gib=storage_gib,
                usd_per_gib_month=usd_per_gib_month,
            )
        )
    return training_report(bills, left_out)
