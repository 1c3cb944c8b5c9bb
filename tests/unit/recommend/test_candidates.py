"""Which ways there are to try on a machine, and that each that is left out says why."""

from __future__ import annotations

from typing import Any

import pytest

from kcost.core.plan import BACKENDS, CellSpec
from kcost.recommend.arms import LONG_STEP_MS, arm_of
from kcost.recommend.candidates import Candidate, Listed, Machine, list_candidates


def listed(*, calibration: bool = True, **changes: Any) -> Listed:
    machine: dict[str, Any] = {
        "backends": BACKENDS,
        "runtimes": ("saved_model", "litert", "onnx", "openvino"),
        "cores": 2,
        "cpu_features": ("avx512f", "avx512_bf16"),
    }
    own = {name: changes.pop(name) for name in list(changes) if name in Machine.model_fields}
    return list_candidates(Machine(**{**machine, **own}), calibration=calibration, **changes)


def names(listing: Listed) -> list[str]:
    return [c.name for c in listing.candidates]


def reason(listing: Listed, name: str) -> str:
    return next(one.reason for one in listing.left_out if one.name == name)


def test_every_backend_method_and_runtime_is_there_and_cheap_ones_first() -> None:
    listing = listed()
    assert names(listing)[:4] == [
        "tensorflow/predict float32",
        "tensorflow/graph float32",
        "jax/jit float32",
        "torch/eager float32",
    ]
    assert {"torch/compile bfloat16", "torch/onnx int8_dynamic", "tensorflow/litert int8"} <= set(names(listing))
    efforts = [c.effort for c in listing.candidates if c.after is None]
    assert efforts == sorted(efforts, key=["first", "cheap", "convert", "compile"].index)


def test_plain_keras_is_one_candidate() -> None:
    assert [c.name for c in listed().candidates if c.is_plain] == ["tensorflow/predict float32"]
    assert [c.name for c in listed(wanted=("jax",)).candidates if c.is_plain] == ["jax/predict float32"]


@pytest.mark.parametrize(
    ("changes", "name", "message"),
    [
        ({"backends": ("jax",)}, "torch", "pip install 'kcost[torch]'"),
        ({"wanted": ("jax",)}, "torch", "not among --backends"),
        ({"wanted": ("jax",)}, "onnx", "torch converts to it"),
        ({"runtimes": ()}, "litert", "pip install 'kcost[litert]'"),
        ({"calibration": False}, "torch/onnx int8", "give --data"),
        ({"cpu_features": ("avx2",)}, "jax in bfloat16", "no instructions for it"),
        ({"cpu_features": ("avx2",)}, "torch/openvino bfloat16", "no instructions for it"),
        ({"refused": "it takes text"}, "onnx", "it takes text"),
        ({"compiler": False}, "torch/compile float32", "C++ compiler"),
        ({"device": "gpu"}, "onnx", "on the CPU"),
        ({"no_variants": "no labels"}, "pruned, and in int8 layers", "no labels"),
    ],
)
def test_what_is_left_out_says_why(changes: dict[str, Any], name: str, message: str) -> None:
    listing = listed(**changes)
    assert message in reason(listing, name)
    assert name not in names(listing)


def test_a_single_thread_is_a_variant_and_there_is_none_on_one_core() -> None:
    one = next(c for c in listed().candidates if c.name == "jax/jit float32, 1 thread")
    assert (one.after, one.threads) == ("jax/jit float32", 1)
    assert not any(c.after for c in listed(cores=1).candidates)


def test_names_are_unique_and_a_variant_names_a_candidate() -> None:
    listing = listed(saved_policy="mixed_float16")
    assert len(set(names(listing))) == len(names(listing))
    assert "jax/jit saved" in names(listing)
    assert {c.after for c in listing.candidates if c.after} <= set(names(listing))


def test_a_candidate_knows_its_cells() -> None:
    candidate = Candidate(
        backend="jax", method="jit", precision="float32", device="cpu", threads=0, batches=(1, 8), effort="first"
    )
    cell = CellSpec(
        model="m", model_sha256="0", backend="jax", device="cpu", precision="float32", batch=8, phase="inference",
        method="jit", threads=0,
    )  # fmt: skip
    assert candidate.has(cell)
    others: list[dict[str, Any]] = [{"batch": 32}, {"threads": 1}, {"phase": "training"}, {"method": "predict"}]
    assert not any(candidate.has(cell.model_copy(update=change)) for change in others)


def test_two_runtimes_open_one_graph_which_tells_where_operations_take_the_time() -> None:
    ways = [c for c in listed().candidates if c.precision == "float32" and not c.threads]
    graphs = {c.method: arm_of(c, 0.0, setup_s=1, step_ms=LONG_STEP_MS).graph for c in ways}
    assert graphs["onnx"] == graphs["openvino"] is not None
    assert {method for method, graph in graphs.items() if graph is not None} == {"onnx", "openvino"}
    assert {arm_of(c, 0.0, setup_s=1, step_ms=0.9 * LONG_STEP_MS).graph for c in ways} == {None}
    onnx = next(c for c in ways if c.method == "onnx")
    pruned = onnx.model_copy(update={"variant": "pruned"})  # another graph
    assert arm_of(pruned, 0.0, setup_s=1, step_ms=LONG_STEP_MS).graph != graphs["onnx"]
