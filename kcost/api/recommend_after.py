"""What follows a recommendation's measuring: projections, the price of errors, the folder to serve."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.api.recommend_data import RUN_FOLDER
from kcost.core.artifact import Model
from kcost.core.errors import InputError, KcostError

if TYPE_CHECKING:
    from kcost.bench.store import RunStore
    from kcost.core.plan import Plan
    from kcost.core.result import Run
    from kcost.cost.placements import Placement
    from kcost.recommend.answer import Ranked, Recommendation, Request
    from kcost.recommend.standings import Judged
    from kcost.risk.figures import Figure
    from kcost.risk.gates import Gates

CLASSES = ("multiclass", "binary")


def errors_by_way(run: Run, store: RunStore, judged: Judged, gates: Gates) -> dict[str, Figure]:
    """Way -> USD that its errors cost in a million answers, of classifiers whose labels are known."""
    from kcost.recommend.errors_usd import errors_of

    assert gates.loss is not None
    cells = {c.spec.cell_id: c for c in run.measured(phase="inference")}
    figures = {}
    for name, way in judged.ways.items():
        cell = cells[way.spec.cell_id]
        answers = None if cell.preparation is None else cell.preparation.answers
        arrays = store.read_outputs(cell)
        if answers is None or answers.main.kind not in CLASSES or arrays is None or "labels" not in arrays:
            continue
        names = run.index.models[0].label_names
        figures[name] = errors_of(arrays["predictions"], arrays["labels"], gates.loss, names)
    return figures if len(figures) == len(judged.ways) else {}


def projected_to(
    folder: Path, plan: Plan, run: Run, judged: Judged, best: Ranked | None, to: Sequence[str], request: Request
) -> tuple[tuple[Placement, ...], tuple[str, ...]]:
    """What the winner would cost on other machines, projected; its cell is profiled for that, once."""
    if not to or best is None:
        return (), ()
    from kcost.api.projecting import project_run
    from kcost.bench.runner import measure
    from kcost.ship.convert import converted

    way = judged.ways[best.name]
    cells = {c.spec.cell_id: c.spec for c in run.measured(phase="inference")}
    mine = [i for i, spec in cells.items() if spec.model_copy(update={"batch": way.spec.batch}) == way.spec]
    chosen = [i for i in mine if cells[i].batch == best.batch_limit] or mine
    looking = plan.model_copy(update={"settings": plan.settings.model_copy(update={"profile": True})})
    try:
        measure(looking, folder / RUN_FOLDER, converted=converted, only=frozenset(chosen))
        report = project_run(
            folder / RUN_FOLDER, to, provider=request.provider, region=request.region, prices_file=request.prices_file
        )
    except KcostError as error:  # the answer stands without it
        return (), (f"Not projected: {error.rule} Received: {error.received}.",)
    spec = cells[chosen[0]]
    runs_as = f"{spec.backend}/{spec.method}"
    options = tuple(
        o
        for o in report.options
        if not o.was_measured and (o.model, o.runs_as, o.batch) == (spec.model, runs_as, spec.batch)
    )
    usable = tuple(o for o in options if o.refused is None)
    refusals = tuple(f"Not projected to {o.price.key}: {o.refused}" for o in options if o.refused is not None)
    return usable, refusals if options else (*refusals, *report.not_projected[:2])


def exported(model: Model, out: Path, answer: Recommendation, run: Path) -> str:
    """Writes the TensorFlow Serving folder; what it serves beside what was recommended.

    Args:
        run: what was measured. Where the served way is in it, how the server puts requests together is chosen from it.
    """
    from kcost.api.shipping import batching_of, export as export_model
    from kcost.ship.server_files import VERSION_BATCHING

    source = model.keras_file.parent if model.artifact is not None else model.keras_file
    name = "".join(c if c.isalnum() or c in "-_" else "-" for c in model.name)
    rate, p99_ms = answer.request.traffic.peak_queries_per_s, answer.request.p99_ms
    apart = ""
    try:
        batching_of(model, run, rate, p99_ms)
    except InputError as error:
        apart = f"{error.rule.rstrip('.')} (here: {error.received})"
    if apart:
        report = export_model(source, out, name=name)
    else:
        report = export_model(source, out, name=name, run=run, queries_per_s=rate, p99_ms=p99_ms)
        apart = "; ".join(left.reason for left in report.left_out if left.what == VERSION_BATCHING)
    sentence = f"{out}: version {report.version} of {name} for TensorFlow Serving"
    sentence += ", which runs it as tensorflow/saved_model in float32"
    if answer.winner is not None and not answer.winner.startswith("tensorflow/saved_model float32"):
        sentence += f", not as {answer.winner}"
    batched = f". It puts no requests together: {apart}" if apart else "; it puts requests together as the run says"
    return f"{sentence}{batched}."
