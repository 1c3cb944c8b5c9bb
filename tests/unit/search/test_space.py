from __future__ import annotations

import pytest

from kcost.core.request import TrainRequest
from kcost.search.space import BERT, CNN, FINE_TUNING_RATE, Choice, Range, comparable_key, cost_key, describe, space_of


@pytest.mark.parametrize(("family", "space"), [("cnn", CNN), ("bert", BERT), ("bert", (FINE_TUNING_RATE,))])
def test_every_value_is_one_that_training_takes(family, space) -> None:
    for parameter in space:
        values = parameter.values if isinstance(parameter, Choice) else (parameter.low, parameter.high)
        for value in (*values, parameter.first):
            request = {"family": family, "data": "d", "out": "o", "name": "n", "usd_per_hour": 1.0, "usd_basis": "b"}
            assert getattr(TrainRequest(**{**request, parameter.name: value}), parameter.name) == value


@pytest.mark.parametrize("parameter", [*CNN, *BERT, FINE_TUNING_RATE], ids=lambda p: p.name)
def test_the_first_value_lies_in_the_space(parameter) -> None:
    if isinstance(parameter, Choice):
        assert parameter.first in parameter.values
    else:
        assert isinstance(parameter, Range)
        assert parameter.low <= parameter.first <= parameter.high


def test_what_is_given_is_not_searched() -> None:
    names = [p.name for p in space_of("cnn", {"size": "seed", "epochs": 3})]
    assert names == ["learning_rate", "batch_size", "label_smoothing", "augment"]


def test_a_pretrained_encoder_has_its_size_and_the_rates_of_fine_tuning() -> None:
    space = {p.name: p for p in space_of("bert", {"init": "folder"})}
    assert "size" not in space
    assert space["learning_rate"] is FINE_TUNING_RATE
    assert set(space) == {"learning_rate", "batch_size", "dropout", "layer_decay", "warmup_fraction", "max_length"}


def test_keys_hold_what_decides() -> None:
    params = {"size": "tiny", "max_length": 64, "batch_size": 16, "dropout": 0.2, "label_smoothing": 0.1}
    assert cost_key(params, "inference") == {"size": "tiny", "max_length": 64}
    assert cost_key(params, "training") == {"size": "tiny", "max_length": 64, "batch_size": 16}
    assert comparable_key(params, "inference") == {"size": "tiny", "max_length": 64, "label_smoothing": 0.1}


def test_parameters_in_one_line() -> None:
    assert describe({"size": "tiny", "learning_rate": 0.000123456, "augment": True}) == (
        "size tiny, learning_rate 0.000123, augment True"
    )
