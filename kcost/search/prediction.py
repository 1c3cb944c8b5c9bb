"""What a trial's model is predicted to cost: step times measured here, times the price of the closest instance.

A search lasts for hours, in which a machine is now quiet and now busy: step times that were measured at different
hours do not compare. So the first model of a study becomes its reference. Each later architecture takes turns with
it, and its step time is that of the reference times the ratio of the two: what slows both alike cancels.
"""

from __future__ import annotations

import json
import platform
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from kcost.bench.plan_models import request_for
from kcost.bench.pool import CellFailure, Pool
from kcost.core import schema
from kcost.core.artifact import Artifact, open_model
from kcost.core.environment import collect
from kcost.core.errors import UnavailableError, WorkerError, storage
from kcost.core.plan import INFERENCE_METHODS, CellSpec, Settings
from kcost.core.request import MeasureRequest
from kcost.core.result import CellResult, Environment, Round
from kcost.core.stats import median_per_round
from kcost.cost.estimate import CostEstimate, step_ns
from kcost.cost.inference import usd_per_million
from kcost.cost.machine_match import Match
from kcost.cost.notices import measurement_notices
from kcost.cost.pricebook import PriceBook
from kcost.cost.training import usd_per_run
from kcost.search.request import SearchRequest
from kcost.search.space import Value, cost_key

INFERENCE_BATCH = 32
MEASURING = Settings(rounds=8, round_s=0.15, warmup_s=0.5)
REFERENCE = "cost reference"
"""Attribute of a study: which model all others take turns with."""


class Machine(NamedTuple):
    """Where a search runs, and what that machine costs."""

    environment: Environment
    match: Match


class Measured(NamedTuple):
    """A model to measure: the artifact folder, and the batch size."""

    model: Path
    batch: int


MeasureCells = Callable[[SearchRequest, Machine, Sequence[Measured], Path], list[CellResult]]
"""Measures a step of some models in turns: search, machine, models, folder for the raw samples -> a cell for each."""


class Prediction(NamedTuple):
    """What a trial's model is predicted to cost."""

    cost: CostEstimate
    measured_as: str
    environment_id: str
    notices: list[str]


def here(search: SearchRequest) -> Machine:
    """This machine with its price. Raises PriceError where the book has none for it."""
    environment = collect()
    book = PriceBook.read(search.prices_file).checked()
    return Machine(environment, book.closest(environment, search.provider, search.region, search.instance))


def measure_in_worker(
    search: SearchRequest, machine: Machine, models: Sequence[Measured], folder: Path
) -> list[CellResult]:
    """Measures one cell of each model in one worker, a round of each in turn: the forward pass, or a training step.

    The raw samples are kept in `folder`, a file a cell.

    Raises:
        UnavailableError: the device is not there, or cannot run it.
        WorkerError: a cell could not be measured.
    """
    with storage(folder):
        folder.mkdir(parents=True, exist_ok=True)
    requests = [_request(search, measured, folder) for measured in models]
    session = uuid.uuid4().hex[:8]
    try:
        with Pool(folder, MEASURING) as pool:
            prepared = [pool.prepare(request) for request in requests]
            rounds: list[list[Round]] = [[] for _ in requests]
            for number in range(MEASURING.rounds):
                for request, done in zip(requests, rounds, strict=True):
                    done.append(pool.measure(request, session, number))
    except CellFailure as failure:
        error = UnavailableError if failure.status == "unsupported" else WorkerError
        raise error(
            "The step time of a trial's model can be measured.",
            received=f"{failure.status}: {failure.reason}",
            remedy=f"See the logs in {folder}.",
        ) from failure
    cells = [
        CellResult(
            spec=request.spec,
            environment_id=machine.environment.environment_id,
            status="ok",
            rounds=tuple(done),
            preparation=ready.preparation,
            outputs_file=ready.outputs_file,
        )
        for request, done, ready in zip(requests, rounds, prepared, strict=True)
    ]
    for cell in cells:
        schema.write(folder / f"{cell.spec.cell_id}.json", cell)
    return cells


def _request(search: SearchRequest, measured: Measured, folder: Path) -> MeasureRequest:
    opened = open_model(measured.model)
    inference = search.objective == "inference"
    spec = CellSpec(
        model=opened.name,
        model_sha256=opened.sha256,
        backend=search.backend,
        device=search.device,
        precision="float32",
        batch=measured.batch,
        phase="inference" if inference else "training",
        method=INFERENCE_METHODS[search.backend][0] if inference else "train_on_batch",
        threads=0,
    )
    return request_for(spec, opened, MEASURING, folder)


class Predictor:
    """Predicts costs for the trials of one study. What it measures is kept in the study, for all its processes."""

    def __init__(self, search: SearchRequest, machine: Machine, measure_cells: MeasureCells) -> None:
        self._search, self._machine, self._measure_cells = search, machine, measure_cells

    def predict(
        self, study: Any, params: dict[str, Value], artifact: Artifact, measured: Measured, epochs: int
    ) -> Prediction:
        """The cost of a trial's model, per million predictions or of a training run with as many epochs.

        Models of one architecture are measured once in a study: noise must not rank them.

        Raises:
            UnavailableError, WorkerError: as `measure_in_worker`.
        """
        key = f"cost of {json.dumps(cost_key(params, self._search.objective), sort_keys=True)}"
        if key not in study.user_attrs:
            measured_cost = self._measure(study, key, measured)
            if key not in study.user_attrs:  # else another process was faster: its figure is everybody's
                study.set_user_attr(key, measured_cost)
        held = study.user_attrs[key]
        cell, match = CellResult.model_validate(held["cell"]), Match.model_validate(held["match"])
        if self._search.objective == "inference":
            cost = usd_per_million(cell, match)
        else:
            assert artifact.dataset is not None  # kcost's own training always names its data
            examples = artifact.dataset.splits["train"].count
            cost = usd_per_run(cell, match, train_examples=examples, epochs=epochs)
        measured_as = f"{cell.spec.label}, {len(cell.rounds)} rounds{held['beside']}"
        return Prediction(cost, measured_as, cell.environment_id, held["notices"])

    def _measure(self, study: Any, key: str, measured: Measured) -> dict[str, Any]:
        folder = measured.model.parent / "cost"
        reference = study.user_attrs.get(REFERENCE)
        if reference is None:
            (cell,) = self._measure_cells(self._search, self._machine, [measured], folder)
            if REFERENCE not in study.user_attrs:
                reference_of_study = {
                    "key": key,
                    "model": str(measured.model),
                    "batch": measured.batch,
                    "host": platform.node(),
                }
                kept = self._kept(cell, cell, "")
                study.set_user_attr(key, kept)  # first: whoever sees the reference needs its step time
                study.set_user_attr(REFERENCE, reference_of_study)
                return kept
            reference = study.user_attrs[REFERENCE]  # of another process that was faster
        if reference["host"] != platform.node() or not Path(reference["model"]).is_dir():
            (cell,) = self._measure_cells(self._search, self._machine, [measured], folder)
            return self._kept(cell, cell, "", f"not-paired: {cell.spec.model} was measured apart from the others.")
        both = [measured, Measured(Path(reference["model"]), reference["batch"])]
        cell, beside = self._measure_cells(self._search, self._machine, both, folder)
        at_first = CellResult.model_validate(study.user_attrs[reference["key"]]["cell"])
        return self._kept(relative_to(cell, beside, at_first), cell, f", in turns with {beside.spec.model}")

    def _kept(self, cell: CellResult, raw: CellResult, beside: str, *notices: str) -> dict[str, Any]:
        """A measured cell as a study keeps it: of each round the median, which is what a cost is made from."""
        medians = median_per_round([r.step_ns for r in cell.rounds])
        rounds = tuple(replace(r, step_ns=(round(m),)) for r, m in zip(cell.rounds, medians, strict=True))
        doubts = measurement_notices(raw, self._machine.environment, median_per_round([r.step_ns for r in raw.rounds]))
        notices_of_cell = [f"{n.code}: {n.text} ({raw.spec.model}, {raw.spec.label})" for n in doubts]
        return {
            "cell": cell.model_copy(update={"rounds": rounds}).model_dump(mode="json"),
            "match": self._machine.match.model_dump(mode="json"),
            "beside": beside,
            "notices": [*notices_of_cell, *notices],
        }


def relative_to(cell: CellResult, beside: CellResult, at_first: CellResult) -> CellResult:
    """The cell as it would have been measured when the reference was.

    Args:
        beside: the reference, measured in the same rounds as the cell.
        at_first: the reference as it was measured first.

    Returns:
        The cell with one sample a round: the reference's typical step time then, times the ratio of the two medians
        in that round.
    """
    then_ns = step_ns(at_first).value
    medians = median_per_round([r.step_ns for r in cell.rounds])
    references = median_per_round([r.step_ns for r in beside.rounds])
    rounds = tuple(
        replace(r, step_ns=(round(then_ns * own / other),))
        for r, own, other in zip(cell.rounds, medians, references, strict=True)
    )
    return cell.model_copy(update={"rounds": rounds})
