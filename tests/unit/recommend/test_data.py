"""What cells are scored on: each form of data that a user may give, and what is told of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.api.recommend_data import (
    DATA_FILE,
    MORE_DATA_FILE,
    Scored,
    has_more,
    more_data,
    scored_data,
    this_machine,
)
from kcost.core.artifact import Model
from kcost.core.chosen_rows import chosen_rows
from kcost.core.errors import DataError, InputError, UnavailableError
from kcost.core.request import ExamplesAnswer
from testing.quotas import under_quota


def bare(folder: Path) -> Model:
    return Model(name="mine", keras_file=folder / "mine.keras", sha256="0", artifact=None)


def saved(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "mine.npz", **arrays)
    return str(folder / "mine.npz")


def test_arrays_as_they_are_fed_stay_where_they_are(tmp_path: Path) -> None:
    data = saved(tmp_path, tokens=np.ones((3, 4), np.int32), labels=np.zeros(3, np.int32))
    scored = scored_data(bare(tmp_path), data, tmp_path / "out", 0)
    assert (scored.file, scored.labelled, scored.name) == (Path(data), True, None)
    unlabelled = saved(tmp_path, tokens=np.ones((3, 4), np.int32))
    assert not scored_data(bare(tmp_path), unlabelled, tmp_path / "out", 0).labelled


def test_of_a_data_set_256_test_examples_are_drawn_by_the_seed(tmp_path: Path) -> None:
    first = scored_data(bare(tmp_path), "digits", tmp_path / "out", 0)
    assert first.file == (tmp_path / "out" / DATA_FILE).absolute()
    assert first.notices[0].startswith("Scored on 256 of ")
    assert "Pixels were fed in 0 to 1" in first.notices[0]
    with np.load(first.file) as arrays:
        assert {n: arrays[n].shape[0] for n in arrays.files} == {"x": 256, "labels": 256}
        labels = arrays["labels"]
    content = first.file.read_bytes()
    assert scored_data(bare(tmp_path), "digits", tmp_path / "out", 0).file.read_bytes() == content  # type: ignore[union-attr]
    scored_data(bare(tmp_path), "digits", tmp_path / "out", 1)
    with np.load(first.file) as arrays:
        assert not np.array_equal(arrays["labels"], labels)


def test_more_examples_hold_those_that_were_scored_before(tmp_path: Path) -> None:
    first = scored_data(bare(tmp_path), "digits", tmp_path, 0)
    lines: list[str] = []
    more = more_data(bare(tmp_path), first, tmp_path, 0, lines.append)
    taken = more(300)
    assert taken is not None
    assert (taken.file, taken.examples) == ((tmp_path / MORE_DATA_FILE).absolute(), 300)
    assert first.file is not None
    with np.load(first.file) as few, np.load(taken.file) as many:
        assert {x.tobytes() for x in few["x"]} <= {x.tobytes() for x in many["x"]}
        assert many["labels"].shape == (300,)
    every = more(100_000)
    assert every is not None
    assert 300 < every.examples < 400
    assert lines == []


def test_of_arrays_as_they_are_fed_those_beyond_the_first_256_are_more(tmp_path: Path) -> None:
    for rows, examples in ((1_000, 400), (256, None)):
        data = saved(tmp_path, tokens=np.ones((rows, 4), np.int32), labels=np.zeros(rows, np.int32))
        scored = scored_data(bare(tmp_path), data, tmp_path, 0)
        taken = more_data(bare(tmp_path), scored, tmp_path, 0, print)(400)
        assert (None if taken is None else (taken.file, taken.examples)) == (examples and (Path(data), examples))


def test_where_there_are_no_more_examples_it_says_why(tmp_path: Path) -> None:
    lines: list[str] = []
    assert more_data(bare(tmp_path), Scored(None, False, None, ()), tmp_path, 0, lines.append)(400) is None
    assert lines == []  # nothing was ever there
    assert more_data(bare(tmp_path), Scored(None, True, "gone.npz", ()), tmp_path, 0, lines.append)(400) is None
    assert lines[0].startswith("no more examples are at hand: ")


def test_a_data_set_may_have_more_examples_and_a_bare_file_has_none(tmp_path: Path) -> None:
    assert has_more(bare(tmp_path), Scored(None, True, "digits", ()))
    assert not has_more(bare(tmp_path), Scored(None, False, None, ()))
    for rows in (1_000, 256):
        data = saved(tmp_path, tokens=np.ones((rows, 4), np.int32))
        assert has_more(bare(tmp_path), scored_data(bare(tmp_path), data, tmp_path, 0)) == (rows > 256)


def test_arrays_in_parts_are_a_data_set(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 5)).astype(np.float32), rng.integers(0, 3, 40)
    data = saved(tmp_path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10])
    scored = scored_data(bare(tmp_path), data, tmp_path / "out", 0)
    assert scored.file is not None
    with np.load(scored.file) as arrays:
        assert arrays["labels"].shape == (10,)
        assert arrays["x"].shape == (10, 5)


def test_without_data_inputs_are_made_up_and_it_says_so(tmp_path: Path) -> None:
    scored = scored_data(bare(tmp_path), None, tmp_path / "out", 0)
    assert (scored.file, scored.labelled) == (None, False)
    assert "made up" in scored.notices[0]


def test_texts_need_the_vocabulary_of_an_artifact(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="its own vocabulary"):
        scored_data(bare(tmp_path), "ner-mini", tmp_path / "out", 0)


def test_what_only_the_loaded_model_tells_is_written_by_a_worker_once(tmp_path: Path) -> None:
    """Texts by their vocabulary, and pixels of a bare file in the scale that it says."""
    from kcost import data

    calls: list[tuple[str | None, int]] = []

    def take(name: str | None, count: int, file: Path) -> ExamplesAnswer:
        calls.append((name, count))
        np.savez(file, x=np.zeros((count, 2), np.float32), labels=np.zeros(count, np.int32))
        record = data.load(str(name)).record
        pixels = "Pixels were fed in 0 to 255"
        return ExamplesAnswer(dataset=record, unit="examples", total=360, written=count, pixels=pixels)

    first = scored_data(bare(tmp_path), "digits", tmp_path, 0, take)
    assert first.notices == ("Scored on 256 of 360 test examples of digits. Pixels were fed in 0 to 255.",)
    again = scored_data(bare(tmp_path), "digits", tmp_path, 0, take)
    assert (again, calls) == (first, [("digits", 256)])
    taken = more_data(bare(tmp_path), first, tmp_path, 0, print, take)(300)
    assert taken is not None
    assert taken.rows is not None
    assert (taken.examples, len(taken.rows), calls[-1]) == (300, 300, ("digits", 300))
    assert np.array_equal(taken.rows, chosen_rows(360, 300, 0))
    scored_data(bare(tmp_path), "digits", tmp_path, 1, take)
    assert len(calls) == 3  # other rows


def test_data_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        scored_data(bare(tmp_path), "nowhere", tmp_path / "out", 0)


def test_the_simulated_backend_is_there_only_for_who_asks() -> None:
    assert "fake" not in this_machine(()).backends
    assert "fake" in this_machine(("fake",)).backends
    with pytest.raises(UnavailableError, match="Did you mean 'torch'"):
        this_machine(("trch",))


def test_ways_on_one_core_are_none_of_their_own_where_a_quota_allows_one_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kcost.core.cpu_quota.os.sched_getaffinity", lambda _: {0, 1, 2})
    under_quota(tmp_path, monkeypatch, 2.5)
    assert this_machine(()).cores == 2
    under_quota(tmp_path, monkeypatch, 1.0)
    assert this_machine(()).cores == 1
