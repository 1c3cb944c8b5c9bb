"""The search with a simulated trainer: what is kept, what is counted, what is chosen."""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest

from kcost.core.artifact import refuse_existing
from kcost.core.errors import DataError, InputError, StorageError, UnavailableError, WorkerError
from kcost.core.request import TrainAnswer, TrainRequest
from kcost.search import SearchRequest, storage, study as study_module
from kcost.search.result import SearchResult
from kcost.search.study_result import cheapest_as_good, front_of
from tests.unit.search import fake


@pytest.fixture(scope="module")
def long_search(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    """Enough trials for medians, for TPE to take over from random draws, and for importances."""
    out = tmp_path_factory.mktemp("search") / "out"
    request = fake.request(out, trials=26, settings={"epochs": 4})
    return fake.run(request, run_trial=fake.fail_every(9))


def test_every_trial_has_a_state_and_failures_do_not_end_the_search(long_search: SearchResult) -> None:
    states = Counter(t.state for t in long_search.trials)
    assert sum(states.values()) == 26
    assert set(states) == {"complete", "pruned", "failed"}
    assert [t.number for t in long_search.in_state("failed")] == [8, 17]
    assert all(t.reason == "Training keeps a finite loss. Received: nan" for t in long_search.in_state("failed"))
    assert all("above the median" in str(t.reason) for t in long_search.in_state("pruned"))
    assert all(t.score is None for t in long_search.in_state("pruned", "failed"))


def test_a_cheap_model_is_not_pruned_for_being_worse_than_a_dear_one(long_search: SearchResult) -> None:
    """The median is that of trials with equal cost: no size is ended before four of its own are complete."""
    for pruned in long_search.in_state("pruned"):
        before = [t for t in long_search.in_state("complete") if t.number < pruned.number]
        assert sum(t.params["size"] == pruned.params["size"] for t in before) >= 4


def test_one_architecture_has_one_cost(long_search: SearchResult) -> None:
    costs = {(t.params["size"], t.predicted.usd) for t in long_search.in_state("complete") if t.predicted}
    assert len(costs) == 2
    by_size = dict(costs)
    assert by_size["small"] == pytest.approx(3 * by_size["seed"])


def test_front_best_and_cheapest(long_search: SearchResult) -> None:
    complete = long_search.in_state("complete")
    assert long_search.best is not None
    best = long_search.trial(long_search.best)
    assert best.score is not None
    assert best.score.value == max(t.score.value for t in complete if t.score)
    assert long_search.pareto[-1] == best.number
    front = [long_search.trial(n) for n in long_search.pareto]
    for one in complete:
        assert not any(_beats(one, other) for other in front)
        assert one in front or any(_beats(other, one) or _equal(other, one) for other in front)
    assert front == front_of(complete)
    assert long_search.cheapest_as_good == cheapest_as_good(complete, best).number
    chosen = long_search.trial(cheapest_as_good(complete, best).number)
    assert chosen.score is not None
    assert chosen.score.value >= best.score.low


def _pair(trial: Any) -> tuple[float, float]:
    return trial.score.value, -trial.predicted.usd


def _equal(one: Any, other: Any) -> bool:
    return _pair(one) == _pair(other)


def _beats(one: Any, other: Any) -> bool:
    pairs = list(zip(_pair(one), _pair(other), strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def test_importances_find_what_the_simulation_depends_on(long_search: SearchResult) -> None:
    shares = {i.objective: i.shares for i in long_search.importances}
    assert next(iter(shares["score"])) == "learning_rate"
    assert shares["cost"] == {"size": 1.0}
    assert all(sum(s.values()) == pytest.approx(1) for s in shares.values())


def test_what_is_simulated_or_synthetic_is_said(long_search: SearchResult) -> None:
    codes = {notice.split(":")[0] for notice in long_search.notices}
    assert {"simulated", "synthetic-data"} <= codes


def test_the_same_seed_gives_the_same_trials_even_in_two_parts(tmp_path: Path, long_search: SearchResult) -> None:
    """Sixteen trials: ten are drawn at random, the others by TPE."""
    settings = {"epochs": 4}
    fake.run(fake.request(tmp_path / "out", trials=7, settings=settings), run_trial=fake.fail_every(9))
    parts = fake.run(fake.request(tmp_path / "out", trials=16, settings=settings), run_trial=fake.fail_every(9))
    assert [(t.params, t.score) for t in parts.trials] == [(t.params, t.score) for t in long_search.trials[:16]]
    other = fake.run(fake.request(tmp_path / "other", trials=2, settings=settings, seed=1))
    assert other.trials[0].params == long_search.trials[0].params, "the first trial is the same for all"
    assert other.trials[1].params != long_search.trials[1].params


def test_only_the_validation_split_is_looked_at(tmp_path: Path) -> None:
    result = fake.run(fake.request(tmp_path / "out", trials=2))
    assert {t.score.split for t in result.trials if t.score} == {"validation"}


def test_training_cost_counts_the_steps_of_the_epochs_that_were_run(tmp_path: Path) -> None:
    request = fake.request(tmp_path / "out", trials=3, objective="training", settings={"epochs": 3})
    result = fake.run(request)
    for trial in result.in_state("complete"):
        assert trial.predicted is not None
        assert trial.predicted.unit == "training run (3 epochs of 1,000 examples)"
        batch = int(trial.params["batch_size"])
        step_s = (3 if trial.params["size"] == "small" else 1) * batch / 1000
        expected = trial.predicted.usd_per_hour / 3600 * step_s * -(-1000 // batch) * 3
        assert trial.predicted.usd == pytest.approx(expected, rel=1e-4)


def test_no_trial_starts_after_the_minutes_are_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(study_module.time, "monotonic", lambda: now[0])

    def minute(search: SearchRequest, train_request: TrainRequest) -> TrainAnswer:
        now[0] += 60
        return fake.train(search, train_request)

    result = fake.run(fake.request(tmp_path / "out", trials=9, minutes=1.5), run_trial=minute)
    assert [t.state for t in result.trials] == ["complete", "complete"]


def test_an_error_that_every_trial_would_meet_ends_the_search_and_is_not_counted(tmp_path: Path) -> None:
    def no_data(search: SearchRequest, request: TrainRequest) -> TrainAnswer:
        raise DataError("A data set is known by name.", received="simulated")

    request = fake.request(tmp_path / "out", trials=2)
    with pytest.raises(DataError):
        fake.run(request, run_trial=no_data)
    result = fake.run(request)
    assert [t.state for t in result.trials] == ["stopped", "complete", "complete"]
    assert result.trials[0].reason == "A data set is known by name. Received: simulated"


def test_failures_alone_end_the_search(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"trial 0: .*trial 2: "):
        fake.run(fake.request(tmp_path / "out", trials=9), run_trial=fake.fail_every(1))


def test_an_interrupted_trial_is_not_counted(tmp_path: Path) -> None:
    def interrupted(search: SearchRequest, request: TrainRequest) -> TrainAnswer:
        raise KeyboardInterrupt

    request = fake.request(tmp_path / "out", trials=2)
    with pytest.raises(KeyboardInterrupt):
        fake.run(request, run_trial=interrupted)
    result = fake.run(request)
    assert Counter(t.state for t in result.trials) == {"stopped": 1, "complete": 2}


def test_a_trial_that_was_taken_for_dead_is_not_wanted_any_more(tmp_path: Path) -> None:
    request = fake.request(tmp_path / "out", trials=2)

    def asleep_for_long(search: SearchRequest, wanted: TrainRequest) -> TrainAnswer:
        answer = fake.train(search, wanted)
        if wanted.out.parent.name == "0000":
            study = optuna.load_study(study_name=request.study_name, storage=f"sqlite:///{request.out}/study.db")
            study.tell(0, state=optuna.trial.TrialState.FAIL)
        return answer

    result = fake.run(request, run_trial=asleep_for_long)
    assert [t.state for t in result.trials] == ["stopped", "complete", "complete"]


def test_checkpoints_of_a_trial_are_not_kept(tmp_path: Path) -> None:
    def with_checkpoint(search: SearchRequest, train_request: TrainRequest) -> TrainAnswer:
        (train_request.out.parent / ".model.training").mkdir()
        return fake.train(search, train_request)

    result = fake.run(fake.request(tmp_path / "out", trials=1), run_trial=with_checkpoint)
    assert [p.name for p in (tmp_path / "out" / "trials" / "0000").iterdir()] == ["model"]
    assert result.trials[0].artifact == str(tmp_path / "out" / "trials" / "0000" / "model")


def test_a_study_is_not_mixed_with_another_search(tmp_path: Path) -> None:
    request = fake.request(tmp_path / "out", trials=1)
    fake.run(request)
    with pytest.raises(InputError, match="objective 'inference', asked for 'training'"):
        fake.run(request.model_copy(update={"objective": "training"}))


def test_a_setting_outside_its_range_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="epochs"):
        fake.run(fake.request(tmp_path / "out", settings={"epochs": 0}))
    assert not (tmp_path / "out").exists()


def test_a_folder_with_other_things_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("mine")
    with pytest.raises(StorageError, match="never overwrites"):
        fake.run(fake.request(tmp_path))


def test_a_process_of_the_same_search_may_make_the_folder_at_the_same_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"

    def refuse_after_another_came(path: Path) -> None:
        (path / study_module.TRIALS_FOLDER).mkdir(parents=True)
        refuse_existing(path)

    monkeypatch.setattr(study_module, "refuse_existing", refuse_after_another_came)
    assert len(fake.run(fake.request(out, trials=2)).in_state("complete")) == 2


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        ("foo", InputError, "URL of a database"),
        ("nonsense://me:secret@host/x", InputError, "nonsense://me:\\*\\*\\*@host/x"),
        ("mysql+nosuch://me:secret@host/x", InputError, "URL of a database"),
        ("sqlite:////no/such/folder/study.db", UnavailableError, "unable to open database file"),
    ],
)
def test_a_storage_that_cannot_be_used(tmp_path: Path, url: str, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message) as refusal:
        fake.run(fake.request(tmp_path / "out", storage=url))
    assert "secret" not in str(refusal.value)


def test_a_driver_that_is_not_installed_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pymysql", None)
    with pytest.raises(UnavailableError, match=r"without pymysql\nInstall it: pip install pymysql"):
        fake.run(fake.request(tmp_path / "out", storage="mysql+pymysql://me:secret@host/x"))


def test_without_optuna_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UnavailableError, match="pip install 'kcost\\[search\\]'") as refusal:
        fake.run(fake.request(tmp_path / "out"))
    assert refusal.value.exit_code == 3


def test_a_trial_whose_process_died_before_its_first_heartbeat_is_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(storage, "HEARTBEAT_S", 1)
    monkeypatch.setattr(storage, "GRACE_S", 1)
    request = fake.request(tmp_path / "out", trials=3)
    fake.run(request.model_copy(update={"trials": 1}))
    with storage.quiet():
        study = storage.open_study(request, {}).study
        with pytest.warns(UserWarning, match="Heartbeat"):  # `optimize` writes heartbeats, `ask` does not
            study.ask()
    result = fake.run(request)
    assert Counter(t.state for t in result.trials) == {"complete": 3, "stopped": 1}
    (lost,) = result.in_state("stopped")
    assert lost.number == 1
