"""Costs that do not depend on when they were measured."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from kcost.core.errors import UnavailableError, WorkerError
from kcost.core.result import CellResult
from kcost.search import prediction
from kcost.search.prediction import Machine, Measured, here, measure_in_worker
from kcost.search.request import SearchRequest
from tests.unit.search import fake


def costs(result: Any) -> dict[object, float]:
    return {t.params["size"]: t.predicted.usd for t in result.in_state("complete")}


@pytest.fixture
def busier_and_busier() -> Any:
    """A machine that is twice as slow each time that something is measured."""
    slowness = (2.0**n for n in itertools.count())

    def measure(search: SearchRequest, machine: Machine, models: Sequence[Measured], folder: Path) -> list[CellResult]:
        return fake.measure(search, machine, models, folder, next(slowness))

    return measure


def test_a_machine_that_becomes_busy_makes_later_models_no_dearer(tmp_path: Path, busier_and_busier: Any) -> None:
    result = fake.run(fake.request(tmp_path / "out", trials=6), measure_cells=busier_and_busier)
    cost_of = costs(result)
    assert cost_of["small"] == pytest.approx(3 * cost_of["seed"], rel=1e-4)
    later = next(t for t in result.trials if t.params["size"] == "small")
    assert str(later.measured_as).endswith(", 5 rounds, in turns with 0000")


def test_without_the_reference_at_hand_it_is_said_that_costs_do_not_compare(
    tmp_path: Path, busier_and_busier: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on the second of two machines that share a study."""
    request = fake.request(tmp_path / "out", trials=6)
    fake.run(request.model_copy(update={"trials": 1}), measure_cells=busier_and_busier)
    monkeypatch.setattr(prediction.platform, "node", lambda: "another-host")
    result = fake.run(request, measure_cells=busier_and_busier)
    assert costs(result)["small"] == pytest.approx(6 * costs(result)["seed"], rel=1e-4)
    assert any(notice.startswith("not-paired: ") for notice in result.notices)


def fake_model(folder: Path, script: str) -> Path:
    folder.mkdir()
    (folder / f"{folder.name}.keras").write_text(script)
    return folder / f"{folder.name}.keras"


def test_the_measuring_worker_gives_models_turns_and_keeps_the_raw_samples(tmp_path: Path) -> None:
    request = fake.request(tmp_path)
    models = [fake_model(tmp_path / name, f'{{"step_s": {s}}}') for name, s in (("quick", 0.001), ("slow", 0.01))]
    measured = [Measured(model, 32) for model in models]
    quick, slow = measure_in_worker(request, here(request), measured, tmp_path / "cost")
    assert (quick.spec.model, slow.spec.model) == ("quick", "slow")
    for cell in (quick, slow):
        assert (cell.status, cell.spec.batch, cell.spec.method, len(cell.rounds)) == ("ok", 32, "eager", 8)
        kept = (tmp_path / "cost" / f"{cell.spec.cell_id}.json").read_text()
        assert CellResult.model_validate_json(kept) == cell
    assert [(r.session, r.number) for r in quick.rounds] == [(r.session, r.number) for r in slow.rounds]


@pytest.mark.parametrize(("fault", "error"), [("unsupported", UnavailableError), ("oom", WorkerError)])
def test_a_model_that_cannot_be_measured(tmp_path: Path, fault: str, error: type[Exception]) -> None:
    request = fake.request(tmp_path)
    measured = Measured(fake_model(tmp_path / "bad", f'{{"{fault}": ["any"]}}'), 32)
    with pytest.raises(error, match=fault):
        measure_in_worker(request, here(request), [measured], tmp_path / "cost")


def test_prices_can_be_chosen(tmp_path: Path) -> None:
    machine = partial(fake.request, tmp_path, provider="aws")
    assert here(machine(instance="c7i.large")).match.price.instance == "c7i.large"
