"""The search itself: one trial after the other, until the study holds as many as were asked for."""

from __future__ import annotations

import time
from typing import Any

from kcost.core.artifact import refuse_existing
from kcost.core.errors import StorageError, WorkerError, storage
from kcost.core.process import require
from kcost.core.progress import OnProgress, silent
from kcost.search import storage as database
from kcost.search.prediction import MeasureCells, Predictor, here, measure_in_worker
from kcost.search.request import SearchRequest
from kcost.search.result import SearchResult
from kcost.search.space import space_of
from kcost.search.states import COUNTED, FINISHED, count, state_of
from kcost.search.study_result import read_result
from kcost.search.trial import TRIALS_FOLDER, Objective, RunTrial, TrialFailed, train_in_worker, train_request

POLL_S = 1.0
"""How often a process that waits for others' trials looks at the study."""
GIVE_UP_AFTER = 3
"""Failures, with no trial of the study complete, after which it is the question that is wrong."""


def search(
    request: SearchRequest,
    on_progress: OnProgress = silent,
    *,
    run_trial: RunTrial = train_in_worker,
    measure_cells: MeasureCells = measure_in_worker,
) -> SearchResult:
    """Searches hyperparameters: highest score on the validation split, never the test split, at the lowest cost.

    The cost is predicted: step times of the trial's model, measured here for a second or two, times the price of the
    closest instance. A study that is there already goes on: finished trials are kept, one whose process died is tried
    again. Other processes, on other machines too, may work on the same study at the same time.

    Args:
        run_trial, measure_cells: what trains and measures; tests put others in their place.

    Raises:
        UnavailableError: optuna, the backend or the database's driver is not installed, or no database answers.
        InputError: a setting outside its range, or a study of a search that asked for something else.
        StorageError: `out` holds something else, or cannot be written to.
        WorkerError: all trials failed.
    """
    with database.quiet():
        require(request.backend)
        space = space_of(request.family, request.settings)
        first = {p.name: p.first for p in space}
        machine = here(request)
        train_request(request, first, request.out, machine)  # before anything is made: are the settings sound?
        _make_folder(request)
        opened = database.open_study(request, first)
        study = opened.study
        progress = _Progress(study, request, on_progress)
        predictor = Predictor(request, machine, measure_cells)
        objective = Objective(request, space, machine, predictor, run_trial, progress.announce)
        with database.database_errors(database.storage_url(request)):
            _run(opened, request, objective)
            progress.announce("")
            return read_result(study, request, space)


def _make_folder(request: SearchRequest) -> None:
    """The folder of trials, in a folder that holds nothing else or a search. Processes of one search may make it at the
    same moment."""
    trials = request.out / TRIALS_FOLDER
    try:
        refuse_existing(request.out)
    except StorageError:
        if not trials.is_dir():
            raise
    with storage(request.out):
        trials.mkdir(parents=True, exist_ok=True)


class _Progress:
    """Tells how far the study is, other processes' trials included."""

    def __init__(self, study: Any, request: SearchRequest, on_progress: OnProgress) -> None:
        self._study, self._request, self._on_progress = study, request, on_progress

    def announce(self, text: str) -> None:
        done = count(self._study.get_trials(deepcopy=False), FINISHED)
        self._on_progress(done, self._request.trials, text)


def _run(opened: database.OpenStudy, request: SearchRequest, objective: Objective) -> None:
    study = opened.study
    deadline = None if request.minutes is None else time.monotonic() + 60 * request.minutes
    lost = _LostTrials(opened)
    give_up_at = time.monotonic() + _patience_s()
    while deadline is None or time.monotonic() < deadline:
        lost.release()
        trials = study.get_trials(deepcopy=False)
        if count(trials, FINISHED) >= request.trials:
            return
        if count(trials, COUNTED) >= request.trials and not any(state_of(t) == "waiting" for t in trials):
            # The rest runs elsewhere. Time shows whether it does: a trial of a dead process is free after GRACE_S.
            if time.monotonic() > give_up_at:
                return
            time.sleep(POLL_S)
            continue
        try:
            study.optimize(objective, n_trials=1, catch=(TrialFailed,))
        except ValueError as error:
            # This process stood still for so long that another one took its trial for dead, and tries it again.
            if str(error) != "Cannot tell a FAIL trial.":
                raise
        give_up_at = time.monotonic() + _patience_s()
        if len(objective.failures) >= min(GIVE_UP_AFTER, request.trials):
            _refuse_failures_alone(study, objective.failures)


def _patience_s() -> float:
    """How long a process waits for others' trials: until those of dead processes are free, and some heartbeats more."""
    return database.GRACE_S + 3 * database.HEARTBEAT_S


class _LostTrials:
    """The trials of processes that died: they are stopped once their heartbeat is older than GRACE_S."""

    def __init__(self, opened: database.OpenStudy) -> None:
        self._opened, self._seen = opened, set[int]()

    def release(self) -> None:
        """Stops the trials whose process is dead. Each is tried again.

        Optuna passes over a running trial that has no heartbeat: one whose process died between beginning it and its
        first heartbeat would run for ever. So a process writes a heartbeat for each trial it meets for the first time.
        Where the trial's own process lives, that changes nothing; where it is dead, none follows.
        """
        optuna, study = database.require_optuna(), self._opened.study
        optuna.storages.fail_stale_trials(study)
        for trial in study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,)):
            if trial.number not in self._seen:
                self._seen.add(trial.number)
                self._opened.beat_for(trial.number)


def _refuse_failures_alone(study: Any, failures: list[str]) -> None:
    if any(state_of(t) == "complete" for t in study.get_trials(deepcopy=False)):
        return
    raise WorkerError(
        "A search goes on while some trial completes.",
        received="; ".join(failures),
        remedy="Mend what the reasons name. A study keeps its failed trials: begin another in a new folder.",
    )
