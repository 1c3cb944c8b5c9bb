"""One trial: train in a worker, then predict what the model costs."""

from __future__ import annotations

import json
import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from kcost.bench.runner import measure
from kcost.core.artifact import Artifact, Score
from kcost.core.environment import collect
from kcost.core.errors import DataError, KcostError, PriceError, StorageError, UnavailableError, storage
from kcost.core.plan import INFERENCE_METHODS, Plan, Settings
from kcost.core.process import run_job
from kcost.core.request import TrainRequest, checked
from kcost.core.result import CellResult, Environment
from kcost.core.stats import median_per_round
from kcost.cost.estimate import CostEstimate
from kcost.cost.inference import usd_per_million
from kcost.cost.machine_match import Match
from kcost.cost.notices import measurement_notices
from kcost.cost.training import usd_per_run
from kcost.search.pruning import prune_above
from kcost.search.request import SearchRequest
from kcost.search.space import Choice, Parameter, Value, comparable_key, cost_key, describe
from kcost.search.states import is_superfluous

RunTrial = Callable[[SearchRequest, TrainRequest], dict[str, Any]]
"""Trains as asked; answers as the worker's train job does."""

MeasureCell = Callable[[SearchRequest, Path, int], CellResult]
"""Measures a step of the model in a folder: search, artifact folder, batch size -> a measured cell."""

INFERENCE_BATCH = 32
MEASURING = Settings(rounds=5, round_s=0.2, warmup_s=0.5)

TRIALS_FOLDER = "trials"

FATAL = (DataError, UnavailableError, StorageError, PriceError)
"""Errors that the next trial would meet as well."""


class TrialFailed(Exception):  # noqa: N818 -- it is the outcome of one trial, not an error of the search
    """A trial failed. The search goes on without it."""


class Machine(NamedTuple):
    """Where a search runs, and what that machine costs."""

    environment: Environment
    match: Match


class Prediction(NamedTuple):
    """What a trial's model is predicted to cost."""

    cost: CostEstimate
    measured_as: str
    environment_id: str
    notices: list[str]


def train_in_worker(search: SearchRequest, asked: TrainRequest) -> dict[str, Any]:
    """Trains in a worker process, whose output goes to train.log beside the model."""
    return run_job("train", search.backend, asked.model_dump(mode="json"), log=asked.out.parent / "train.log")


def measure_in_worker(search: SearchRequest, model: Path, batch: int) -> CellResult:
    """Measures one cell of a model: its forward pass compiled, or its training step, in float32.

    Raises:
        UnavailableError: the device is not there, or cannot run it.
        WorkerError: the cell could not be measured.
    """
    inference = search.objective == "inference"
    plan = Plan(
        models=(str(model),),
        backends=(search.backend,),
        devices=(search.device,),
        precisions=("float32",),
        batches=(batch,),
        phases=("inference" if inference else "training",),
        methods=(INFERENCE_METHODS[search.backend][0] if inference else "train_on_batch",),
        settings=MEASURING,
    )
    (cell,) = measure(plan, model.parent / "cost").cells
    return cell


def here(search: SearchRequest) -> Machine:
    """This machine with its price. Raises PriceError where the book has none for it."""
    from kcost.cost.pricebook import PriceBook

    environment = collect()
    book = PriceBook.read(search.prices_file).checked()
    return Machine(environment, book.closest(environment, search.provider, search.region, search.instance))


def train_request(search: SearchRequest, params: dict[str, Value], folder: Path, machine: Machine) -> TrainRequest:
    """The training run of a trial. Raises InputError for a setting outside its range."""
    values = {
        "seed": search.seed,
        **search.settings,
        **params,
        "family": search.family,
        "data": search.data,
        "out": folder.absolute() / "model",
        "name": f"{search.study_name}-{folder.name}",
        "usd_per_hour": machine.match.price.on_demand_usd_per_hour * machine.match.share,
        "usd_basis": machine.match.why,
    }
    asked = checked(TrainRequest, values)
    assert isinstance(asked, TrainRequest)
    return asked


class Objective:
    """The function that a study optimises: validation score, to be maximised, and predicted US dollars, minimised."""

    def __init__(
        self,
        search: SearchRequest,
        space: tuple[Parameter, ...],
        machine: Machine,
        run_trial: RunTrial,
        measure_cell: MeasureCell,
        announce: Callable[[str], None],
    ) -> None:
        self._search, self._space, self._machine = search, space, machine
        self._run_trial, self._measure_cell, self._announce = run_trial, measure_cell, announce
        self.failures: list[str] = []

    def __call__(self, trial: Any) -> tuple[float, float]:
        """Runs one trial of optuna.

        Raises:
            optuna.TrialPruned: it was ended early.
            TrialFailed: it failed; its reason is stored.
            KcostError: what the next trial would meet as well.
        """
        if is_superfluous(trial.number, trial.study.get_trials(deepcopy=False), self._search.trials):
            trial.set_user_attr("superfluous", True)
            raise TrialFailed("Another process took the last trial that was wanted.")
        trial.set_user_attr("host", platform.node())
        params = {p.name: _suggest(trial, p) for p in self._space}
        self._announce(f"trial {trial.number}: {describe(params)}")
        folder = self._search.out / TRIALS_FOLDER / f"{trial.number:04d}"
        try:
            with storage(folder):
                folder.mkdir(parents=True, exist_ok=True)
            return self._run(trial, params, folder)
        except FATAL as error:
            trial.set_user_attr("stopped", _one_line(error))
            raise
        except KcostError as error:
            trial.set_user_attr("reason", _one_line(error))
            self.failures.append(f"trial {trial.number}: {_one_line(error)}")
            raise TrialFailed(str(error)) from error
        finally:
            # Training keeps checkpoints in folders whose names begin with a dot. A trial is never gone on with.
            for leftover in folder.glob(".*"):
                shutil.rmtree(leftover)

    def _run(self, trial: Any, params: dict[str, Value], folder: Path) -> tuple[float, float]:
        import optuna

        asked = train_request(self._search, params, folder, self._machine)
        like = self._comparable_histories(trial.study, params)
        limits = prune_above(like, asked.epochs)
        answer = self._run_trial(self._search, asked.model_copy(update={"prune_above": limits or None}))
        losses = [float(epoch["val_loss"]) for epoch in answer["history"]]
        trial.set_user_attr("validation_losses", losses)
        if answer["pruned"]:
            epoch = len(losses)
            reason = (
                f"validation loss {losses[-1]:.4g} after epoch {epoch}, above the median {limits[epoch]:.4g} "
                f"of {sum(len(h) >= epoch for h in like)} earlier trials that cost the same"
            )
            trial.set_user_attr("reason", reason)
            raise optuna.TrialPruned(reason)
        artifact = Artifact.model_validate(answer["artifact"])
        score = Score.model_validate(answer["validation_scores"][0])
        prediction = self._predict(trial.study, params, asked, artifact, epochs=len(losses))
        trial.set_user_attr("artifact", str(asked.out))
        trial.set_user_attr("score", score.model_dump(mode="json"))
        trial.set_user_attr("predicted", prediction.cost.model_dump(mode="json"))
        trial.set_user_attr("measured_as", prediction.measured_as)
        trial.set_user_attr("environment_id", prediction.environment_id)
        trial.set_user_attr("notices", prediction.notices)
        if artifact.dataset is not None and artifact.dataset.synthetic:
            trial.set_user_attr("synthetic_data", artifact.dataset.name)
        return score.value, prediction.cost.usd

    def _comparable_histories(self, study: Any, params: dict[str, Value]) -> list[list[float]]:
        import optuna

        wanted = comparable_key(params, self._search.objective)
        return [
            t.user_attrs["validation_losses"]
            for t in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
            if comparable_key(t.params, self._search.objective) == wanted
        ]

    def _predict(
        self, study: Any, params: dict[str, Value], asked: TrainRequest, artifact: Artifact, epochs: int
    ) -> Prediction:
        """The predicted cost. Models of one architecture are measured once in a study: noise must not rank them."""
        key = f"cost of {json.dumps(cost_key(params, self._search.objective), sort_keys=True)}"
        if key not in study.user_attrs:
            batch = asked.batch_size if self._search.objective == "training" else INFERENCE_BATCH
            cell = self._measure_cell(self._search, asked.out, batch)
            if key not in study.user_attrs:  # else another process was faster: its figure is everybody's
                study.set_user_attr(key, self._measurement(cell))
        held = study.user_attrs[key]
        cell, match = CellResult.model_validate(held["cell"]), Match.model_validate(held["match"])
        if self._search.objective == "inference":
            cost = usd_per_million(cell, match)
        else:
            assert artifact.dataset is not None  # kcost's own training always names its data
            examples = artifact.dataset.splits["train"].count
            cost = usd_per_run(cell, match, train_examples=examples, epochs=epochs)
        return Prediction(cost, f"{cell.spec.label}, {len(cell.rounds)} rounds", cell.environment_id, held["notices"])

    def _measurement(self, cell: CellResult) -> dict[str, Any]:
        """A measured cell as the study keeps it: of each round the median, which is what a cost is made from."""
        rounds = tuple(
            r.model_copy(update={"step_ns": (round(m),)})
            for r, m in zip(cell.rounds, median_per_round([r.step_ns for r in cell.rounds]), strict=True)
        )
        medians = median_per_round([r.step_ns for r in rounds])
        notices = measurement_notices(cell, self._machine.environment, medians)
        return {
            "cell": cell.model_copy(update={"rounds": rounds}).model_dump(mode="json"),
            "match": self._machine.match.model_dump(mode="json"),
            "notices": [f"{n.code}: {n.text} ({cell.spec.model}, {cell.spec.label})" for n in notices],
        }


def _suggest(trial: Any, parameter: Parameter) -> Value:
    if isinstance(parameter, Choice):
        chosen: Value = trial.suggest_categorical(parameter.name, parameter.values)
        return chosen
    value: float = trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.log)
    return value


def _one_line(error: KcostError) -> str:
    return error.rule if error.received is None else f"{error.rule} Received: {error.received}"
