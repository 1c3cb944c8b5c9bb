"""What can be judged without a framework is judged before one starts."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import kcost
from kcost.core.errors import ArtifactError, DataError, InputError, PlanError, StorageError


@pytest.fixture(autouse=True)
def _no_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*arguments: Any, **named: Any) -> None:
        pytest.fail("a worker was started")

    monkeypatch.setattr("kcost.core.process.Worker.__init__", start)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "m.keras"
    path.write_bytes(b"nothing here is read")
    return path


def taken(tmp_path: Path, name: str = "taken") -> Path:
    folder = tmp_path / name
    folder.mkdir()
    (folder / "file").touch()
    return folder


REFUSALS: dict[str, tuple[type[Exception], str, Callable[[Path, Path], object]]] = {
    "optimize, nothing to do": (
        InputError,
        "neither --prune nor --int8 nor --bfloat16",
        lambda m, tmp: kcost.run_optimize(m, tmp / "o", data="digits", backend="fake"),
    ),
    "optimize, a bad spec of pruning": (
        InputError,
        "magnitude",
        lambda m, tmp: kcost.run_optimize(m, tmp / "o", data="digits", backend="fake", prune="half"),
    ),
    "optimize, unknown data": (
        DataError,
        "'nowhere'",
        lambda m, tmp: kcost.run_optimize(m, tmp / "o", data="nowhere", backend="fake", quantize="dynamic"),
    ),
    "optimize, a folder that is taken": (
        StorageError,
        "never overwrites",
        lambda m, tmp: kcost.run_optimize(m, taken(tmp), data="digits", backend="fake", quantize="dynamic"),
    ),
    "optimize, a folder for refused models that is taken": (
        StorageError,
        "o-refused",
        lambda m, tmp: (
            taken(tmp, "o-refused"),
            kcost.run_optimize(m, tmp / "o", data="digits", backend="fake", quantize="dynamic"),
        ),
    ),
    "train, unknown data": (
        DataError,
        "'nowhere'",
        lambda m, tmp: kcost.train("cnn", "nowhere", tmp / "a", backend="fake"),
    ),
    "train, a folder that is taken": (
        StorageError,
        "never overwrites",
        lambda m, tmp: kcost.train("cnn", "digits", taken(tmp), backend="fake"),
    ),
    "train, an unknown size": (
        InputError,
        "seed, small",
        lambda m, tmp: kcost.train("cnn", "digits", tmp / "a", backend="fake", size="huge"),
    ),
    "train, an unknown family": (
        InputError,
        "Input should be 'cnn' or 'bert'",
        lambda m, tmp: kcost.train("rnn", "digits", tmp / "a", backend="fake"),  # type: ignore[arg-type]
    ),
    "train, distilling from nobody": (
        InputError,
        "--teacher",
        lambda m, tmp: kcost.train("cnn", "digits", tmp / "a", backend="fake", distill=0.5),
    ),
    "train, fewer labels than ten": (
        InputError,
        "labels",
        lambda m, tmp: kcost.train("cnn", "digits", tmp / "a", backend="fake", labels=3),
    ),
    "evaluate, unknown data": (
        DataError,
        "'nowhere'",
        lambda m, tmp: kcost.evaluate(m, data="nowhere", backend="fake"),
    ),
    "evaluate, no data": (InputError, "Give --data", lambda m, tmp: kcost.evaluate(m, backend="fake")),
    "evaluate, no model": (
        ArtifactError,
        "not there",
        lambda m, tmp: kcost.evaluate(tmp / "none.keras", data="digits", backend="fake"),
    ),
    "attack, unknown data": (
        DataError,
        "'nowhere'",
        lambda m, tmp: kcost.attack(m, [0.1], data="nowhere", backend="fake"),
    ),
    "attack, an unknown method": (
        InputError,
        "'fgsm' or 'pgd'",
        lambda m, tmp: kcost.attack(m, [0.1], method="loud", data="digits", backend="fake"),
    ),
    "search, unknown data": (
        DataError,
        "'nowhere'",
        lambda m, tmp: kcost.run_search("cnn", "nowhere", tmp / "s", backend="fake"),
    ),
    "bench, a folder that is taken, before a model is built": (
        StorageError,
        "never overwrites",
        lambda m, tmp: kcost.run_bench(kcost.make_plan(["some.module:function"], backends=["fake"]), taken(tmp)),
    ),
    "bench, a missing model, before another is built": (
        ArtifactError,
        "not there",
        lambda m, tmp: kcost.run_bench(
            kcost.make_plan(["some.module:function", str(tmp / "none.keras")], backends=["fake"]), tmp / "run"
        ),
    ),
    "bench, an unknown backend": (
        PlanError,
        "Input should be 'tensorflow', 'jax' or 'torch'",
        lambda m, tmp: kcost.make_plan([str(m)], backends=["mxnet"]),
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_it_is_refused_before_a_worker_starts(case: str, tmp_path: Path, model: Path) -> None:
    error, message, call = REFUSALS[case]
    with pytest.raises(error) as refused:
        call(model, tmp_path)
    assert message in str(refused.value)
    assert "fake" not in str(refused.value)
