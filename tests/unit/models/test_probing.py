"""Made-up inputs are of lengths that a model takes: models are functions here, which refuse what they do not take."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import UnavailableError
from kcost.core.signature import InputSpec
from kcost.models.probing import Forward, Inputs, Recipe, cut, find_recipe, probes
from kcost.models.watched_forward import Choice

IDS = {"ids": InputSpec((None, None), "int32")}
IMAGE = {"image": InputSpec((None, None, None, 3), "float32")}
TAGGER = {**IDS, "features": InputSpec((None, None, 5), "float32")}


def taking(fits: Callable[[Inputs], bool]) -> Forward:
    def forward(inputs: Inputs) -> list[np.ndarray]:
        if not fits(inputs):
            raise ValueError("Exception encountered when calling X.\n\nlengths do not fit")
        return [np.ones(1)]

    return forward


def lengths(recipe: Recipe) -> dict[str, tuple[int, ...]]:
    return dict(recipe.shapes)


def test_the_usual_length_comes_first() -> None:
    assert lengths(find_recipe(taking(lambda x: True), IDS, {"ids": 9})) == {"ids": (128,)}
    assert lengths(find_recipe(taking(lambda x: True), IMAGE, {})) == {"image": (64, 64, 3)}


@pytest.mark.parametrize("limit", [3, 32, 50, 100])
def test_a_limit_of_positions_is_met_by_shorter_inputs(limit: int) -> None:
    recipe = find_recipe(taking(lambda x: x["ids"].shape[1] <= limit), IDS, {"ids": 9})
    assert limit / 2 < lengths(recipe)["ids"][0] <= limit


@pytest.mark.parametrize("least", [65, 128, 300])
def test_what_needs_more_pixels_gets_longer_sides(least: int) -> None:
    height = lengths(find_recipe(taking(lambda x: x["image"].shape[1] >= least), IMAGE, {}))["image"][0]
    assert least <= height < 2 * least


def test_axes_that_must_agree_do() -> None:
    recipe = find_recipe(taking(lambda x: x["ids"].shape[1] == x["features"].shape[1]), TAGGER, {"ids": 9})
    assert lengths(recipe) == {"ids": (128,), "features": (128, 5)}


def test_axes_that_cannot_agree_need_not() -> None:
    signature = {**IDS, **IMAGE}
    fits = taking(lambda x: x["ids"].shape[1] <= 50 and x["image"].shape[1] >= 65)
    assert lengths(find_recipe(fits, signature, {"ids": 9})) == {"ids": (32,), "image": (128, 128, 3)}
    words = {"words": InputSpec((None, None), "int32"), "letters": InputSpec((None, None, None), "int32")}
    same = taking(lambda x: x["letters"].shape[1] == x["words"].shape[1] >= 100 and x["letters"].shape[2] <= 20)
    assert lengths(find_recipe(same, words, {})) == {"words": (128,), "letters": (128, 8)}


def test_a_length_that_only_the_model_knows_is_tried_before_one_place_that_stands_for_any_number() -> None:
    fits = taking(lambda x: x["ids"].shape[1] in (1, 77))
    assert lengths(find_recipe(fits, IDS, {"ids": 9}, also=[9, 77])) == {"ids": (77,)}


def test_outputs_that_are_no_numbers_are_the_last_resort() -> None:
    def forward(inputs: Inputs) -> list[np.ndarray]:
        return [np.array([np.nan if inputs["image"].shape[1] < 100 else 1.0])]

    assert lengths(find_recipe(forward, IMAGE, {})) == {"image": (128, 128, 3)}
    broken = find_recipe(lambda inputs: [np.array([np.nan])], IMAGE, {})
    assert lengths(broken) == {"image": (64, 64, 3)}, "a model that never gives numbers is measured all the same"


def test_smaller_numbers_are_tried_where_larger_ones_have_no_row() -> None:
    recipe = find_recipe(taking(lambda x: int(x["ids"].max()) + 3 < 9), IDS, {"ids": 9})
    assert dict(recipe.values) == {"ids": 2}


def test_a_model_that_takes_nothing_is_refused_with_its_reason() -> None:
    with pytest.raises(UnavailableError, match="refused each: ValueError: lengths do not fit \\(in X\\)"):
        find_recipe(taking(lambda x: False), TAGGER, {"ids": 9})


def test_running_out_of_memory_is_no_refusal() -> None:
    def full(inputs: Inputs) -> Sequence[np.ndarray]:
        raise MemoryError

    with pytest.raises(MemoryError):
        find_recipe(full, IDS, {"ids": 9})


def made(signature: Mapping[str, InputSpec], length: int) -> Callable[[int, Fraction], Inputs]:
    shapes = {n: tuple(length if s is None else s for s in spec.shape[1:]) for n, spec in signature.items()}
    recipe = Recipe(signature, shapes, {"ids": 9})
    return lambda rows, scale: recipe.scaled(scale).make(rows, 0)


@pytest.mark.parametrize(
    ("fits", "wanted"),
    [
        (lambda x: True, [(1, 128), (3, 64), (8, 32)]),
        (lambda x: x["ids"].shape[1] >= 65, [(1, 128), (3, 192), (8, 256)]),
        (lambda x: 65 <= x["ids"].shape[1] <= 128, [(1, 128), (3, 128), (8, 96)]),
        (lambda x: x["ids"].shape[1] == 128, [(1, 128), (3, 128), (8, 128)]),
    ],
)
def test_probes_differ_in_length_where_the_model_lets_them(
    fits: Callable[[Inputs], bool], wanted: list[tuple[int, int]]
) -> None:
    made_probes = probes(taking(fits), IDS, made(IDS, 128), (1, 3, 8))
    assert [p.inputs["ids"].shape for p in made_probes] == wanted


def test_probes_of_real_inputs_are_cut_and_never_lengthened() -> None:
    real = {"ids": np.arange(20, dtype=np.int32).reshape(2, 10)}
    made_probes = probes(taking(lambda x: x["ids"].shape[1] >= 4), IDS, lambda n, s: cut(real, IDS, n, s), (1, 3, 8))
    assert [p.inputs["ids"].shape for p in made_probes] == [(1, 10), (3, 5), (8, 7)]
    assert made_probes[1].inputs["ids"][:, 0].tolist() == [0, 10, 0]
    with pytest.raises(ValueError, match="do not fit"):
        probes(taking(lambda x: False), IDS, lambda n, s: cut(real, IDS, n, s), (1, 3, 8))


@given(st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_first_rows_are_the_same_whatever_their_number(rows: int, more: int, seed: int) -> None:
    signature = {**TAGGER, "flag": InputSpec((None, 2), "bool"), "text": InputSpec((None,), "string")}
    shapes = {"ids": (3,), "features": (3, 5), "flag": (2,), "text": ()}
    recipe = Recipe(signature, shapes, {"ids": 9, "text": Choice(("a", "b"), 3)})
    few, many = recipe.make(rows, seed), recipe.make(rows + more, seed)
    assert all(np.array_equal(few[name], many[name][:rows]) for name in signature)


def test_values_are_those_that_an_input_takes() -> None:
    signature = {
        "attention_mask": InputSpec((None, 4), "bool"),
        "flag": InputSpec((None, 50), "bool"),
        "ids": InputSpec((None, 50), "uint8"),
        "known": InputSpec((None, 50), "int64"),
        "low": InputSpec((None, 50), "bfloat16"),
        "text": InputSpec((None, 1), "string"),
        "word": InputSpec((None,), "string"),
    }
    values = {"ids": 5, "known": Choice((7, 11)), "text": Choice(("a", "bc"), 4), "word": Choice(("one",))}
    shapes = {n: tuple(s for s in spec.shape[1:] if s is not None) for n, spec in signature.items()}
    x = Recipe(signature, shapes, values).make(3, 0)
    assert x["attention_mask"].dtype == bool
    assert x["attention_mask"].all()
    assert set(x["flag"].ravel().tolist()) == {False, True}
    assert (x["ids"].dtype, set(x["ids"].ravel().tolist())) == (np.uint8, set(range(5)))
    assert (x["known"].dtype, set(x["known"].ravel().tolist())) == (np.int64, {7, 11})
    assert x["low"].dtype == np.float32
    assert (x["text"].shape, len(str(x["text"][0, 0]).split())) == ((3, 1), 4)
    assert x["word"].tolist() == ["one"] * 3
