"""Arrays are given to inputs by one rule, or refused with the names on both sides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import InputError
from kcost.core.signature import InputSpec, Signature, in_structure, match_inputs, signature_of_structure


@dataclass
class Tensor:
    """What a structure of inputs is made of."""

    name: str
    shape: tuple[int | None, ...] = (None, 3)
    dtype: str = "float32"


def matched(arrays: dict[str, np.ndarray], signature: Signature) -> dict[str, np.ndarray]:
    return match_inputs(arrays, signature, source="mine.npz", remedy="Mend it.")


def rows(value: float, *shape: int, dtype: str = "float32") -> np.ndarray:
    return np.full((2, *shape), value, dtype)


IDS = InputSpec((None, None), "int32", "tokens")
FEATURES = InputSpec((None, None, 5), "float32", "features")

names = st.lists(st.text("abcdef", min_size=1, max_size=3), min_size=1, max_size=5, unique=True)


@given(names, st.data())
def test_names_and_keys_decide_whatever_the_order(inputs: list[str], data: st.DataObject) -> None:
    keys = [f"{name}_key" for name in inputs]
    signature = {name: InputSpec((None, 3), "float32", key) for name, key in zip(inputs, keys, strict=True)}
    given_names = data.draw(st.sampled_from([inputs, keys]))
    order = data.draw(st.permutations(range(len(inputs))))
    arrays = {given_names[i]: rows(i, 3) for i in order}
    by_input = matched({**arrays, "not wanted": rows(9, 1)}, signature)
    assert list(by_input) == inputs
    assert [float(a[0, 0]) for a in by_input.values()] == list(range(len(inputs)))


@given(names, st.data())
def test_what_is_matched_fits_and_nothing_is_used_twice(inputs: list[str], data: st.DataObject) -> None:
    kinds = st.sampled_from([("float32", 2), ("int32", 2), ("float32", 3)])
    drawn = [data.draw(kinds) for _ in inputs]
    signature = {n: InputSpec((None,) * ndim, dtype) for n, (dtype, ndim) in zip(inputs, drawn, strict=True)}
    arrays = {
        f"X{i}": rows(i, *([4] * (ndim - 1)), dtype=dtype) for i, (dtype, ndim) in enumerate(data.draw(kinds_of(drawn)))
    }
    try:
        by_input = matched(arrays, signature)
    except InputError:
        return
    assert len({float(a.flat[0]) for a in by_input.values()}) == len(inputs)
    for name, array in by_input.items():
        assert (array.dtype.name, array.ndim) == (signature[name].dtype, len(signature[name].shape))


def kinds_of(drawn: list[tuple[str, int]]) -> st.SearchStrategy[Any]:
    return st.permutations(drawn)


def test_unnamed_arrays_are_matched_where_they_fit_in_one_way_only() -> None:
    signature = {"ids": IDS, "shapes": FEATURES}
    by_input = matched({"x": rows(1, 4, 5), "y": rows(2, 4, dtype="int64")}, signature)
    assert (by_input["ids"].dtype, by_input["ids"][0, 0], by_input["shapes"][0, 0, 0]) == (np.int32, 2, 1)


def test_arrays_with_numpys_own_names_are_matched_by_order() -> None:
    signature = {"b": InputSpec((None, 3), "float32"), "a": InputSpec((None, 3), "float32")}
    by_input = matched({"arr_1": rows(1, 3), "arr_0": rows(0, 3)}, signature)
    assert [(n, float(a[0, 0])) for n, a in by_input.items()] == [("b", 0.0), ("a", 1.0)]


SAME = {"left": InputSpec((None, 3), "float32", "a"), "right": InputSpec((None, 3), "float32", "b")}
CROSSED = {"a": InputSpec((None, 3), "float32", "b"), "b": InputSpec((None, 3), "float32", "a")}


@pytest.mark.parametrize(
    ("arrays", "signature", "message"),
    [
        ({"x": rows(0, 3), "y": rows(1, 3)}, SAME, "more than one way: x for left, y for right; or y for left, x for"),
        ({"left": rows(0, 3), "y": rows(1, 3)}, SAME, r"with left, y, and without right float32 \(any, 3\) \(or b\)"),
        ({"left": rows(0, 3), "b": rows(1, 3)}, SAME, "with b, left, where the inputs are left, right"),
        ({"a": rows(0, 3), "b": rows(1, 3)}, CROSSED, "more than one way: a for a, b for b; or b for a, a for b"),
        ({"a": rows(0, 4), "b": rows(1, 3)}, SAME, r"a for left float32 \(2, 4\), where the model wants left"),
        ({"x": rows(0.5, 3)}, {"ids": IDS}, r"x for ids float32 \(2, 3\), where the model wants ids int32 \(any"),
        ({"ids": rows(2**40, 3, dtype="int64")}, {"ids": IDS}, "ids int64"),
        ({"flag": rows(2, 3, dtype="int64")}, {"flag": InputSpec((None, 3), "bool")}, "flag int64"),
        ({"text": rows(2, 3)}, {"text": InputSpec((None, 3), "string")}, "text float32"),
        ({}, SAME, "mine.npz with none, and without left"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    arrays: dict[str, np.ndarray], signature: Signature, message: str
) -> None:
    with pytest.raises(InputError, match=message):
        matched(arrays, signature)


def test_crossed_names_are_told_apart_by_shape() -> None:
    signature = {"a": InputSpec((None, 3), "float32", "b"), "b": InputSpec((None, 4), "float32", "a")}
    by_input = matched({"a": rows(0, 4), "b": rows(1, 3)}, signature)
    assert (float(by_input["a"][0, 0]), float(by_input["b"][0, 0])) == (1.0, 0.0)


@pytest.mark.parametrize(
    ("array", "dtype", "kept"),
    [
        (np.array([[1, 0]], np.int64), "bool", "bool"),
        (np.array([[True]]), "int32", "int32"),
        (np.array([[255]], np.int64), "uint8", "uint8"),
        (np.array([[7]], np.uint8), "float32", "float32"),
        (np.array([[7.0]]), "bfloat16", "float32"),
        (np.array([["word"]]), "string", "str"),
    ],
)
def test_numbers_become_those_of_the_input(array: np.ndarray, dtype: str, kept: str) -> None:
    cast = matched({"x": array}, {"x": InputSpec((None, None), dtype)})["x"]
    assert re.match(kept, cast.dtype.name)
    assert cast.tolist() == array.tolist()


def test_a_structure_is_filled_by_names_or_by_keys() -> None:
    structure = {"second": Tensor("b"), "first": [Tensor("a"), Tensor("c")]}
    assert {n: s.key for n, s in signature_of_structure(structure).items()} == {"a": None, "c": None, "b": "second"}
    assert in_structure(structure, {"a": 0, "b": 1, "c": 2}) == {"second": 1, "first": [0, 2]}
    pair = {"k2": Tensor("x"), "k1": Tensor("y")}
    for arrays in ({"x": 0, "y": 1}, {"k2": 0, "k1": 1}):
        assert in_structure(pair, arrays) == {"k2": 0, "k1": 1}
    assert in_structure(Tensor("x"), {"anything": 3}) == 3
    assert in_structure([Tensor("x")], {"anything": 3}) == [3]
    with pytest.raises(InputError, match="with x, z, and without y"):
        in_structure(pair, {"x": 0, "z": 1})
