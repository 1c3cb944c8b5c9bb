"""Cells that ask for a GPU or a TPU, with a stand-in that claims to see some: no such hardware was at hand."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from kcost.backends.fake import FakeDriver, FakeModel
from kcost.bench.plan_models import request_for
from kcost.core.artifact import open_model
from kcost.core.errors import UnavailableError
from kcost.core.plan import Device, Phase, expand
from kcost.worker import measure
from tests.unit.bench.plans import fake_plan


class StandIn(FakeDriver):
    """Sees one device of each kind that it is told; tensors lie on `lies_on`."""

    def __init__(self, lies_on: str, sees: tuple[str, ...] = ("cpu", "gpu", "tpu")) -> None:
        self.lies_on, self.sees = lies_on, sees
        self.taken: list[str] = []

    def devices(self) -> dict[str, list[str]]:
        return {kind: [f"one {kind}"] if kind in self.sees else [] for kind in ("cpu", "gpu", "tpu")}

    def take_device(self, device: str) -> None:
        self.taken.append(device)

    def device_kind(self, outputs: Any) -> str:
        return self.lies_on

    def load(self, keras_file: Path, precision: str) -> FakeModel:
        assert self.taken, "a device is taken before a model is loaded"
        model = super().load(keras_file, precision)
        model.trainable_variables = [SimpleNamespace(value=np.zeros(1))]  # type: ignore[attr-defined]
        return model

    def tf32(self) -> bool | None:
        return True

    def peak_device_bytes(self) -> int | None:
        return 123


def prepared(own: StandIn, folder: Path, device: Device, phase: Phase, monkeypatch: pytest.MonkeyPatch) -> Any:
    plan = fake_plan(folder, {}, devices=[device], batches=[1], precisions=["float32"], phases=[phase])
    model = open_model(plan.models[0])
    spec = expand(plan, {model.name: model.sha256})[0]
    monkeypatch.setattr(measure, "_backend", lambda runtime: measure._Backend(own, 0.0, None))
    measure._model.cache_clear()
    measure._take_device.cache_clear()
    return measure._prepare(request_for(spec, model, plan.settings, folder), 0)


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_a_cell_says_which_device_it_ran_on(
    tmp_path: Path, device: Device, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = StandIn(lies_on=device)
    preparation = prepared(own, tmp_path, device, phase, monkeypatch)
    assert (preparation.device_name, preparation.tf32, preparation.peak_device_bytes) == (f"one {device}", True, 123)
    assert own.taken == [device]


@pytest.mark.parametrize("phase", ["inference", "training"])
@pytest.mark.parametrize("device", ["gpu", "tpu"])
def test_a_cell_that_got_another_device_is_no_result(
    tmp_path: Path, device: Device, phase: Phase, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UnavailableError, match=f"(?s)asked for a {device} runs on one.*tensors on the cpu"):
        prepared(StandIn(lies_on="cpu"), tmp_path, device, phase, monkeypatch)


def test_a_device_that_is_not_there_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = StandIn(lies_on="cpu", sees=("cpu",))
    with pytest.raises(UnavailableError, match="cpu: 1, gpu: 0, tpu: 0"):
        prepared(own, tmp_path, "tpu", "inference", monkeypatch)
    assert own.taken == []
