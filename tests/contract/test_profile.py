"""Where time goes, on each backend: the operations that its profiler tells apart, and flops against a count by hand."""

from __future__ import annotations

import re
from collections.abc import Callable

import keras
import numpy as np
import pytest

from kcost.backends import driver
from kcost.backends.base import Driver, Inputs, Subject
from kcost.backends.block_spec import BlockSpec
from kcost.core.artifact import answers_of_task
from kcost.core.plan import INFERENCE_METHODS, CellSpec
from kcost.core.profile import top
from kcost.models.bert import SIZES, backbone, token_classifier
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.training.losses import loss_of
from kcost.worker.profile import profile_cell
from tests.contract.inputs import token_inputs

PRODUCT = re.compile(r"dot|matmul|mm|linear|conv", re.IGNORECASE)
"""In the name of every operation that multiplies matrices or convolves, on all backends."""

TOLERANCE = 0.05
"""XLA counts elementwise operations too, about one for each element of an output; the others count products alone."""


@pytest.fixture(scope="module")
def own(backend: str) -> Driver:
    return driver(backend)


def dense() -> tuple[keras.Model, Inputs, int]:
    """A model, a batch for it, and its flops: 2 * m * k * n for each product."""
    inputs = keras.Input((256,), name="x")
    model = keras.Model(inputs, keras.layers.Dense(128)(keras.layers.Dense(512, activation="relu")(inputs)))
    x = np.random.default_rng(0).normal(size=(32, 256)).astype("float32")
    return model, {"x": x}, 2 * 32 * 256 * 512 + 2 * 32 * 512 * 128


def conv() -> tuple[keras.Model, Inputs, int]:
    inputs = keras.Input((16, 16, 8), name="x")
    model = keras.Model(inputs, keras.layers.Conv2D(16, 3)(inputs))
    x = np.random.default_rng(0).normal(size=(4, 16, 16, 8)).astype("float32")
    return model, {"x": x}, 2 * (4 * 14 * 14) * (3 * 3 * 8) * 16


def subject(own: Driver, model: keras.Model, inputs: Inputs, method: str) -> Subject:
    rows = len(next(iter(inputs.values())))
    forward = own.predict_step(model, rows) if method == "predict" else own.compile_forward(model, method)

    def step(number: int) -> None:
        own.to_host(forward(inputs))

    step(0)
    return Subject(model, step, [inputs], None)


@pytest.mark.parametrize("make", [dense, conv])
def test_the_product_is_among_the_top_operations_of_every_method(
    own: Driver, make: Callable[[], tuple[keras.Model, Inputs, int]]
) -> None:
    model, inputs, _ = make()
    for method in INFERENCE_METHODS[own.name]:  # type: ignore[index]
        if method == "compile":  # it takes seconds
            continue
        looked_at = subject(own, model, inputs, method)
        own.trace_steps(looked_at, 1)
        trace = own.trace_steps(looked_at, 5)
        rows = top(trace)
        assert any(PRODUCT.search(row.name) for row in rows[:3]), (method, rows)
        assert sum(row.share for row in rows) <= 1 + 1e-9
        assert trace.steps == 5
        assert trace.wall_ns > 0
        products = [row for row in rows if PRODUCT.search(row.name)]
        assert all(row.calls_per_step == int(row.calls_per_step) for row in products), "whole calls in each step"


@pytest.mark.parametrize("make", [dense, conv])
def test_flops_and_bytes_agree_with_a_count_by_hand(
    own: Driver, make: Callable[[], tuple[keras.Model, Inputs, int]]
) -> None:
    model, inputs, by_hand = make()
    work = own.count_work(subject(own, model, inputs, INFERENCE_METHODS[own.name][0]))  # type: ignore[index]
    assert work.flops == pytest.approx(by_hand, rel=TOLERANCE)
    outputs = np.prod(model.compute_output_shape((len(inputs["x"]), *inputs["x"].shape[1:])))
    least = 4 * (model.count_params() + inputs["x"].size + int(outputs))
    assert work.bytes is not None
    assert work.bytes == least if work.bytes_are_least else work.bytes >= least
    assert work.flops_source
    assert work.bytes_source


def test_the_flops_of_attention_agree_with_a_count_by_hand(own: Driver) -> None:
    model, inputs = token_classifier(backbone(50, "tiny"), 5), token_inputs(3, 16)
    layers, width, _ = SIZES["tiny"]
    rows, length = inputs["token_ids"].shape
    projections = 2 * rows * length * (4 * width * width + 2 * width * 4 * width)
    attention = 2 * 2 * rows * length * length * width
    by_hand = layers * (projections + attention) + 2 * rows * length * width * 5
    work = own.count_work(subject(own, model, inputs, INFERENCE_METHODS[own.name][0]))  # type: ignore[index]
    assert work.flops == pytest.approx(by_hand, rel=TOLERANCE)


@pytest.mark.parametrize("compute", ["float32", "bfloat16", "int8_dynamic", "int8_static"])
def test_the_products_of_fused_blocks_are_counted(own: Driver, compute: str) -> None:
    """Those of oneDNN in int8, and attention in one operation, which the backends' own counters leave out."""
    rows, time, width, inner = 3, 16, 64, 256
    block = EncoderBlock(BlockSpec(width, 4, width // 4, inner, "gelu"))
    block.build((None, time, width))
    if compute == "int8_static":
        block = block.converted(compute, dict.fromkeys(("input", "context", "attended", "hidden"), 3.0))
    elif compute != "float32":
        block = block.converted(compute)
    tensor = keras.Input((time, width), name="x")
    x = np.random.default_rng(0).normal(size=(rows, time, width)).astype("float32")
    looked_at = subject(own, keras.Model(tensor, block(tensor)), {"x": x}, INFERENCE_METHODS[own.name][0])  # type: ignore[index]
    by_hand = 2 * rows * time * (4 * width * width + 2 * width * inner) + 4 * rows * time * time * width
    # Beside products this narrow, XLA's elementwise operations weigh more.
    assert own.count_work(looked_at).flops == pytest.approx(by_hand, rel=0.2 if own.name == "jax" else TOLERANCE)


def test_a_lower_bound_leaves_out_the_rows_of_tables_that_are_not_read(own: Driver) -> None:
    ids = keras.Input((4,), dtype="int32", name="ids")
    model = keras.Model(ids, keras.layers.Dense(2)(keras.layers.Embedding(1000, 8)(ids)))
    work = own.count_work(subject(own, model, {"ids": np.ones((1, 4), "int32")}, "predict"))
    if work.bytes_are_least:
        assert work.bytes == 4 * (8 * 2 + 2) + 4 * 4 + 4 * 4 * 2


def test_a_training_step_is_looked_into(own: Driver) -> None:
    model, inputs, forward = dense()
    labels = np.random.default_rng(0).integers(0, 128, 32).astype("int32")
    train = own.train_step(model, loss_of(answers_of_task("sequence-classification").main))

    def step(number: int) -> None:
        own.to_host(train(inputs, labels))

    step(0)
    looked_at = Subject(model, step, [inputs], labels)
    own.trace_steps(looked_at, 1)
    assert any(PRODUCT.search(row.name) for row in top(own.trace_steps(looked_at, 3)))
    work = own.count_work(looked_at)
    # Each product has two in the backward pass, but for the gradient of the inputs. Adam counts where XLA does.
    assert work.flops == pytest.approx(3 * forward - 2 * 32 * 256 * 512, rel=0.15)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_programs_of_a_peak_run(own: Driver, dtype: str) -> None:
    own.square_product(64, dtype)()
    own.convolution(2, 8, 16, dtype)()
    own.sum_in_place(1000)()
    own.transfer(1000)()


def test_a_profiler_that_fails_costs_the_operations_alone(own: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*arguments: object) -> None:
        raise RuntimeError("no trace today")

    monkeypatch.setattr(own, "trace_steps", fails)
    for name, value in {"PEAK_S": 0.01, "SIZES": (64,), "MOVED_ELEMENTS": 1000, "_peaks": {}}.items():
        monkeypatch.setattr(f"kcost.worker.profile.{name}", value)
    model, inputs, by_hand = dense()
    spec = CellSpec(
        model="m",
        model_sha256="0" * 64,
        backend=own.name,  # type: ignore[arg-type]
        device="cpu",
        precision="float32",
        batch=32,
        phase="inference",
        method="predict",
        threads=0,
    )
    profile = profile_cell(own, subject(own, model, inputs, "predict"), spec)
    assert (profile.status, profile.reason, profile.trace) == ("crash", "RuntimeError: no trace today", None)
    assert profile.work is not None
    assert profile.work.flops == pytest.approx(by_hand, rel=TOLERANCE)
    assert profile.peak is not None
    assert profile.peak.flops_per_s > 0
    int8 = profile_cell(own, subject(own, model, inputs, "predict"), spec.model_copy(update={"precision": "int8"}))
    assert int8.peak is None
    assert "int8" in str(int8.peak_reason)
