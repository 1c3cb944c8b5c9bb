"""Which form a chain of convolutions takes: by timing, on each backend."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest

from kcost.models.cnn import cnn
from kcost.optimize import choice
from kcost.optimize.choice import Timed
from kcost.optimize.forms import chain_choice
from kcost.optimize.forms.conv_chain import ConvolutionChain
from kcost.optimize.quantization import quantize
from tests.contract.arrays import normal, on_host, relative_error
from tests.contract.conv_models import CLOSE, chain_layers, model_of

LAYERS = keras.layers

TIMES = {
    "int8 is fastest": ((0.5, 0.4), (0.6, 0.5), (0.9, 0.9), "int8 static chain"),
    "int8 is slower at one batch size": ((1.2, 0.4), (0.6, 0.5), (0.9, 0.9), "bfloat16 chain"),
    "only float32 is faster": ((1.2, 0.4), (0.6, 1.5), (0.9, 0.9), "float32 chain"),
    "nothing is faster": ((1.2, 0.4), (0.6, 1.5), (1.9, 0.9), None),
}


@pytest.mark.parametrize("case", TIMES)
def test_a_chain_takes_the_fastest_form_that_is_never_slower(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    *times, expected = TIMES[case]
    timed = [Timed(dict(zip((1, 32), pair, strict=True))) for pair in times]
    monkeypatch.setattr(chain_choice, "timed_layers", lambda layers, others: timed[: len(others)])
    monkeypatch.setattr(chain_choice, "timed", lambda models: [Timed({1: 0.9, 32: 0.9})])
    model, x = model_of(chain_layers()["as in cnn"]), normal(4, 12, 13, 3)
    new, coverage = quantize(model, "static", x)
    chains = [layer for layer in new.layers if isinstance(layer, ConvolutionChain)]
    changes = " ".join(change.what for change in (*coverage.changed, *coverage.skipped))
    assert "int8 static" in changes
    assert f"{times[0][0]:.2f} at batch 1" in changes
    if expected is None:
        assert not chains
        assert not coverage.changed
        np.testing.assert_array_equal(on_host(new(x)), on_host(model(x)))
    else:
        assert len(chains) == 1
        assert f"one {expected}" in coverage.changed[0].what
    assert relative_error(new(x), model(x)) < CLOSE["int8_static"]


def test_bfloat16_leaves_a_chain_that_would_be_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_choice, "timed_layers", lambda layers, others: [Timed({1: 1.1}) for _ in others])
    layers = [*chain_layers()["as in cnn"], LAYERS.Dropout(0.1), LAYERS.Conv2D(3, 1, name="last", activation="relu")]
    model, x = model_of(layers), normal(2, 12, 13, 3)
    new, coverage = quantize(model, "bfloat16", skip=["last"])
    assert not coverage.changed
    slow = {change.layer: change.what for change in coverage.skipped}
    assert slow.pop("last") == "named in skip"
    assert len(slow) == 3
    assert all("bfloat16 1.10 at batch 1" in what for what in slow.values())
    np.testing.assert_array_equal(on_host(new(x)), on_host(model(x)))


@pytest.mark.parametrize("mode", ["static", "bfloat16", "dynamic"])
def test_a_model_that_is_slower_as_a_whole_stays_float32(mode: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_choice, "timed_layers", lambda layers, others: [Timed({1: 0.5}) for _ in others])
    monkeypatch.setattr(chain_choice, "timed", lambda models: [Timed({1: 0.9, 32: 1.25})])
    model, x = model_of(chain_layers()["as in cnn"]), normal(4, 12, 13, 3)
    new, coverage = quantize(model, mode, x if mode == "static" else None)
    assert not coverage.changed
    assert coverage.skipped
    assert all("whole model is slower here" in change.what for change in coverage.skipped)
    assert "1.25 at batch 32" in coverage.skipped[0].what
    np.testing.assert_array_equal(on_host(new(x)), on_host(model(x)))
    assert not {id(v) for v in model.variables} & {id(v) for v in new.variables}


def test_forms_are_timed_till_one_is_slower(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of([LAYERS.Conv2D(4, 3)])
    monkeypatch.setattr(choice, "_turns", lambda calls: (0.001, [1.5, 0.5, 0.5][: len(calls) - 1]))
    timings = choice.timed([model] * 4)
    assert [list(times.ratios) for times in timings] == [[1], [1, 32], [1, 32, 256]]
    monkeypatch.setattr(choice, "_turns", lambda calls: (0.05, [0.5]))  # 32 images: 1.6 s
    assert [list(times.ratios) for times in choice.timed([model] * 2)] == [[1]]


def test_turns_give_the_ratio_of_what_is_called_whatever_holds_up_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    now_s = 0.0
    calls = {"one": 0, "three": 0}

    def takes(name: str, seconds: float) -> Callable[[], object]:
        def call() -> None:
            nonlocal now_s
            calls[name] += 1
            now_s += 1.0 if calls[name] == 2 else seconds

        return call

    monkeypatch.setattr(choice.time, "perf_counter", lambda: now_s)
    seconds, (ratio,) = choice._turns([takes("one", choice.TURN_S / 30), takes("three", choice.TURN_S / 10)])
    assert seconds == pytest.approx(choice.TURN_S / 30)
    assert ratio == pytest.approx(3)
    warm_up = choice.WARM_UP_STEPS
    assert calls["one"] - warm_up == pytest.approx(30 * choice.ROUNDS, abs=choice.ROUNDS)
    assert calls["three"] - warm_up == pytest.approx(10 * choice.ROUNDS, abs=choice.ROUNDS)


@pytest.mark.slow
def test_a_chain_is_timed_on_this_machine() -> None:
    model = cnn((8, 8, 1), 3, "small")
    new, coverage = quantize(model, "static", np.abs(normal(8, 8, 8, 1)))
    changes = [change.what for change in (*coverage.changed, *coverage.skipped)]
    # Whatever is fastest here, the times are told: those of the chain, or of the model where that is slower as a whole.
    assert any("at batch 1" in what for what in changes)
    assert {"block1_conv1", "last_conv", "probabilities"} <= {
        change.layer for change in (*coverage.changed, *coverage.skipped)
    }
    x = np.abs(normal(4, 8, 8, 1))
    np.testing.assert_allclose(on_host(new(x)), on_host(model(x)), atol=0.02)
