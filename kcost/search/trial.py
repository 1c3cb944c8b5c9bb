"""One trial: train in a worker, then predict what the model costs."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from kcost.core.errors import DataError, KcostError, PriceError, StorageError, UnavailableError, storage
from kcost.core.jobs import TRAIN
from kcost.core.process import run_job
from kcost.core.request import TrainAnswer, TrainRequest, checked
from kcost.search.prediction import INFERENCE_BATCH, Machine, Measured, Predictor
from kcost.search.pruning import prune_above
from kcost.search.request import SearchRequest
from kcost.search.space import Choice, Parameter, Value, comparable_key, describe
from kcost.search.states import is_superfluous

RunTrial = Callable[[SearchRequest, TrainRequest], TrainAnswer]
"""Trains as asked; answers as the worker's train job does."""

TRIALS_FOLDER = "trials"

FATAL = (DataError, UnavailableError, StorageError, PriceError)
"""Errors that the next trial would meet as well."""


class TrialFailed(Exception):  # noqa: N818 -- it is the outcome of one trial, not an error of the search
    """A trial failed. The search goes on without it."""


def train_in_worker(search: SearchRequest, request: TrainRequest) -> TrainAnswer:
    """Trains in a worker process, whose output goes to train.log beside the model."""
    return run_job(TRAIN, search.backend, request, log=request.out.parent / "train.log")


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
        "usd_per_hour": machine.match.usd_per_hour,
        "usd_basis": machine.match.why,
    }
    request = checked(TrainRequest, values)
    assert isinstance(request, TrainRequest)
    return request


class Objective:
    """The function that a study optimises: validation score, to be maximised, and predicted US dollars, minimised."""

    def __init__(
        self,
        search: SearchRequest,
        space: tuple[Parameter, ...],
        machine: Machine,
        predictor: Predictor,
        run_trial: RunTrial,
        announce: Callable[[str], None],
    ) -> None:
        self._search, self._space, self._machine = search, space, machine
        self._predictor, self._run_trial, self._announce = predictor, run_trial, announce
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

        request = train_request(self._search, params, folder, self._machine)
        like = self._comparable_histories(trial.study, params)
        limits = prune_above(like, request.epochs)
        answer = self._run_trial(self._search, request.model_copy(update={"prune_above": limits or None}))
        losses = [epoch["val_loss"] for epoch in answer.history]
        trial.set_user_attr("validation_losses", losses)
        if answer.pruned:
            epoch = len(losses)
            reason = (
                f"validation loss {losses[-1]:.4g} after epoch {epoch}, above the median {limits[epoch]:.4g} "
                f"of {sum(len(h) >= epoch for h in like)} earlier trials that cost the same"
            )
            trial.set_user_attr("reason", reason)
            raise optuna.TrialPruned(reason)
        artifact, score = answer.artifact, answer.validation_scores[0]
        measured = Measured(
            request.out, request.batch_size if self._search.objective == "training" else INFERENCE_BATCH
        )
        prediction = self._predictor.predict(trial.study, params, artifact, measured, epochs=len(losses))
        trial.set_user_attr("artifact", str(request.out))
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


def _suggest(trial: Any, parameter: Parameter) -> Value:
    if isinstance(parameter, Choice):
        chosen: Value = trial.suggest_categorical(parameter.name, parameter.values)
        return chosen
    value: float = trial.suggest_float(parameter.name, parameter.low, parameter.high, log=parameter.log)
    return value


def _one_line(error: KcostError) -> str:
    return error.rule if error.received is None else f"{error.rule} Received: {error.received}"
