"""Chains of convolutions: exact sums, every form against the layers that it stands for, and recognition."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import ops

from kcost.backends import driver
from kcost.backends.chain_spec import ChainSpec, Stage
from kcost.core.errors import InputError
from kcost.core.plan import INFERENCE_METHODS
from kcost.models.loading import load_keras_file
from kcost.optimize.forms.conv_chain import forward
from kcost.optimize.forms.conv_layers import QuantizedConv2D
from kcost.optimize.forms.recognise_chains import FoundChain, convolution_chains
from kcost.optimize.quantization import quantize
from tests.contract.arrays import TOLERANCE, int8s, normal, on_host, relative_error
from tests.contract.conv_models import CLOSE, LAYERS, chain_layers, model_of

FORMS = ("float32", "bfloat16", "int8_static")


def backend_module(backend: str) -> Any:
    return importlib.import_module(f"kcost.backends.kernels.{backend}_convolution")


def fast_forward(model: keras.Model, backend: str) -> Callable[[np.ndarray], np.ndarray]:
    """The model as it is compiled first on the backend: on TensorFlow, the graph in which weights are constants."""
    own = driver(backend)
    step = own.compile_forward(model, INFERENCE_METHODS[backend][0])  # type: ignore[index]
    return lambda x: own.to_host(step({model.inputs[0].name: x}))[0]


GEOMETRIES = {
    "valid": ((3, 3, 4, 6), {}),
    "same": ((2, 3, 4, 6), {"padding": "same"}),
    "strides": ((3, 3, 4, 6), {"padding": "same", "strides": (2, 2)}),
    "dilation": ((3, 3, 5, 6), {"padding": "same", "dilation_rate": (2, 1)}),
    "1 x 1": ((1, 1, 4, 6), {"strides": (2, 2)}),
    "many terms": ((3, 3, 130, 8), {}),
}


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_int8_convolutions_are_those_of_numpy_bit_for_bit(geometry: str, backend: str) -> None:
    kernel_shape, settings = GEOMETRIES[geometry]
    mixed = np.where(int8s(2, 9, 10, kernel_shape[2]) > 0, np.int8(127), np.int8(-128))
    for x, kernel in (
        (int8s(2, 9, 10, kernel_shape[2]), int8s(*kernel_shape)),
        (mixed, np.full(kernel_shape, -127, np.int8)),
    ):
        layer = QuantizedConv2D(kernel_shape, "dynamic", use_bias=False, **settings)
        layer.build()
        layer.set_state(kernel=kernel)
        expected = convolved(x, kernel, **settings)
        for function in (layer.patch_sums, layer.sums):
            sums = ops.convert_to_numpy(function(ops.convert_to_tensor(x)))
            assert sums.dtype == np.int32
            np.testing.assert_array_equal(sums, expected)
        np.testing.assert_array_equal(compiled_sums(layer, x, backend), expected)


def convolved(
    x: np.ndarray, kernel: np.ndarray, strides: Any = (1, 1), padding: str = "valid", dilation_rate: Any = (1, 1)
) -> np.ndarray:
    """The convolution in int64, one place of the kernel after the other."""
    spans = [(size - 1) * step for size, step in zip(kernel.shape[:2], dilation_rate, strict=True)]
    if padding == "same":
        totals = [
            max((-(-size // stride) - 1) * stride + span + 1 - size, 0)
            for size, span, stride in zip(x.shape[1:3], spans, strides, strict=True)
        ]
        x = np.pad(x, [(0, 0), *((total // 2, total - total // 2) for total in totals), (0, 0)])
    rows, columns = (x.shape[axis + 1] - spans[axis] for axis in (0, 1))
    sums: Any = 0
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            top, left = i * dilation_rate[0], j * dilation_rate[1]
            window = x[:, top : top + rows : strides[0], left : left + columns : strides[1]]
            sums = sums + window.astype(np.int64) @ kernel[i, j].astype(np.int64)
    return np.asarray(sums)


def compiled_sums(layer: QuantizedConv2D, x: np.ndarray, backend: str) -> np.ndarray:
    """The sums where weights are constants of a graph (TensorFlow), or in a traced function."""
    if backend == "tensorflow":
        import tensorflow as tf

        from kcost.backends.kernels.tensorflow_constants import constant_weights
        from kcost.backends.tensorflow import ONEDNN_TERMS

        def function(x: Any) -> Any:
            with constant_weights():
                return layer.sums(x)

        graph = tf.function(function, autograph=False)
        few = layer.kernel[..., 0].shape.num_elements() <= ONEDNN_TERMS
        if few and backend_module(backend).unavailable(ChainSpec((Stage((1, 1, 1, 1)),), "int8_static")) is None:
            kinds = {node.op for node in graph.get_concrete_function(tf.constant(x)).graph.as_graph_def().node}
            assert "QuantizedConv2D" in kinds
        return np.asarray(graph(tf.constant(x)))
    if backend == "jax":
        import jax

        return np.asarray(jax.jit(layer.sums)(x))
    return np.asarray(ops.convert_to_numpy(layer.sums(ops.convert_to_tensor(x))))


def only_chain(model: keras.Model) -> FoundChain:
    (chain,) = convolution_chains(model)
    return chain


def ranges_of(chain: FoundChain, model: keras.Model, x: np.ndarray) -> list[float]:
    inputs = keras.Model(model.inputs, [layer.input for layer in chain.convolutions])
    return [float(np.abs(on_host(array)).max()) for array in keras.tree.flatten(inputs([x]))]


@pytest.mark.parametrize("compute", FORMS)
@pytest.mark.parametrize("name", chain_layers())
def test_a_chain_does_what_its_layers_do(name: str, compute: Any, backend: str, tmp_path: Path) -> None:
    model, x = model_of(chain_layers()[name]), normal(37, 12, 13, 3)
    only = only_chain(model)
    assert [layer for _, layer in only.layers] == model.layers[:-1]
    chain = only.chain if compute == "float32" else only.chain.converted(compute, ranges_of(only, model, x))
    inputs = keras.Input((12, 13, 3))
    alone = keras.Model(inputs, chain(inputs))
    before = keras.Model(model.inputs, model.layers[-2].output)
    assert alone.output.shape == before.output.shape
    expected = on_host(before(x))
    assert relative_error(alone(x), expected) < CLOSE[compute]
    fast = fast_forward(alone, backend)
    assert relative_error(fast(x), expected) < CLOSE[compute]
    plain = forward(chain.spec, {n: v.value for n, v in chain.parts.items()}, ops.convert_to_tensor(x))
    assert relative_error(fast(x), plain) < (CLOSE[compute] if backend == "jax" or compute == "bfloat16" else 1e-3)
    # A last bit may turn a rounding: compiled code is not the same at each batch size.
    assert relative_error(fast(x[:3]), fast(x)[:3]) < CLOSE[compute] / 3
    assert relative_error(fast(x[-3:]), fast(x)[-3:]) < CLOSE[compute] / 3
    alone.save(tmp_path / "model.keras")
    loaded = load_keras_file(tmp_path / "model.keras")
    np.testing.assert_array_equal(on_host(loaded(x)), on_host(alone(x)))
    assert not chain.trainable_variables


def test_what_enters_a_chain_beyond_its_range_is_clipped(backend: str) -> None:
    model = model_of([LAYERS.Conv2D(4, 1, use_bias=False, activation="relu"), LAYERS.Conv2D(4, 1)])
    chain = only_chain(model).chain.converted("int8_static", [1.0, 10.0])
    inputs = keras.Input((12, 13, 3))
    fast = fast_forward(keras.Model(inputs, chain(inputs)), backend)
    ones = np.ones((1, 12, 13, 3), np.float32)
    np.testing.assert_array_equal(fast(5 * ones), fast(ones))
    np.testing.assert_array_equal(fast(-5 * ones), fast(-ones))


def test_a_new_value_of_a_kernel_is_seen(backend: str) -> None:
    chain = only_chain(model_of([LAYERS.Conv2D(4, 3)])).chain
    for compute in FORMS:
        form = chain if compute == "float32" else chain.converted(compute, [3.0])  # type: ignore[arg-type]
        x = ops.convert_to_tensor(normal(2, 12, 13, 3))
        before = on_host(form(x))
        kernel = form.parts["kernel_0"]
        kernel.assign(ops.convert_to_numpy(kernel)[..., ::-1])
        form.parts["bias_0"].assign(np.zeros(4))
        if compute == "int8_static":
            form.parts["kernel_scale_0"].assign(ops.convert_to_numpy(form.parts["kernel_scale_0"])[::-1])
        assert relative_error(on_host(form(x))[..., ::-1], before) < 1e-5


def names(model: keras.Model, **settings: Any) -> list[list[str]]:
    return [[path for path, _ in chain.layers] for chain in convolution_chains(model, **settings)]


def branched() -> keras.Model:
    conv = LAYERS.Conv2D
    inputs = keras.Input((8, 8, 3))
    x = conv(16, 3, padding="same", name="a")(inputs)
    x = LAYERS.BatchNormalization(name="a_norm")(x)
    read_twice = LAYERS.ReLU(name="a_relu")(x)
    x = conv(16, 3, padding="same", activation="relu", name="b")(read_twice)
    x = conv(16, 3, padding="same", name="c")(x)
    x = LAYERS.ReLU(6.0, name="c_relu6")(LAYERS.Add(name="sum")([x, read_twice]))
    x = conv(16, 3, activation="gelu", name="gelu")(x)
    x = conv(16, 3, activation="relu", groups=2, name="groups")(x)
    x = conv(16, 1, activation="relu", name="d")(x)
    x = LAYERS.BatchNormalization(name="after_relu")(x)
    shared = conv(16, 1, activation="relu", name="shared")
    x = shared(shared(x))
    x = conv(8, 1, name="output")(conv(16, 1, activation="relu", name="e")(x))
    return keras.Model(inputs, x)


def test_chains_end_where_something_else_reads_what_lies_between() -> None:
    model = branched()
    assert names(model) == [["a", "a_norm", "a_relu"], ["b", "c"], ["d"], ["e"], ["output"]]
    assert names(model, leave=lambda path: path in ("b", "a_norm")) == [["a"], ["c"], ["d"], ["e"], ["output"]]
    nested = keras.Sequential([keras.Input((8, 8, 3)), model_of(chain_layers()["as in cnn"], (8, 8, 3))])
    (paths,) = names(nested)
    assert len(paths) == 8
    assert all(path.startswith(f"{nested.layers[0].name}/") for path in paths)


@pytest.mark.parametrize("mode", ["static", "bfloat16"])
def test_a_model_with_branches_is_quantized(mode: Any, tmp_path: Path) -> None:
    model, x = branched(), normal(4, 8, 8, 3)
    new, coverage = quantize(model, mode, x if mode == "static" else None, skip=["groups"], measure=False)
    assert relative_error(new(x), model(x)) < 3 * TOLERANCE
    changed = {change.layer: change.what for change in coverage.changed}
    assert changed["a_norm"] == "BatchNormalization -> in the chain of a"
    assert changed["c"] == "Conv2D -> in the chain of b"
    assert "chain of 2 convolutions" in changed["b"]
    assert "groups" in {change.layer for change in coverage.skipped}
    assert not {"a_norm", "a_relu", "c"} & {layer.name for layer in new.layers}
    assert {"sum", "after_relu", "c_relu6"} <= {layer.name for layer in new.layers}
    new.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(on_host(load_keras_file(tmp_path / "model.keras")(x)), on_host(new(x)))


def test_a_machine_without_integer_convolutions_says_so(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend_module(backend), "unavailable", lambda spec: "no VNNI" if spec.is_int8 else None)
    model, x = model_of(chain_layers()["as in cnn"]), normal(4, 12, 13, 3)
    new, coverage = quantize(model, "static", x, measure=False)
    assert "plain implementation here: no VNNI" in coverage.changed[0].what
    assert relative_error(new(x), model(x)) < CLOSE["int8_static"]


def test_an_exported_program_has_public_operations_alone(backend: str) -> None:
    """Another runtime converts it."""
    if backend != "torch":
        pytest.skip("only PyTorch exports programs of operators by name")
    import torch

    model, x = model_of(chain_layers()["as in cnn"]), normal(4, 12, 13, 3)
    new, _ = quantize(model, "static", x, measure=False)
    program = torch.export.export(new, (torch.from_numpy(x),), strict=False)
    called = {str(node.target).partition(".")[0] for node in program.graph.nodes if node.op == "call_function"}
    assert called == {"aten"}
    outputs = on_host(program.module()(torch.from_numpy(x)))
    assert relative_error(outputs, new(x)) < 1e-3


@pytest.mark.slow
@pytest.mark.filterwarnings("error:torch.compile takes this model")
def test_compiled_code_runs_the_same_chain(backend: str) -> None:
    if backend != "torch":
        pytest.skip("the other backends are compiled in every test")
    model, x = model_of(chain_layers()["uneven padding"]), normal(4, 12, 13, 3)
    new, _ = quantize(model, "static", x, measure=False)
    own = driver(backend)
    outputs = own.to_host(own.compile_forward(new, "compile")({model.inputs[0].name: x}))[0]
    assert relative_error(outputs, new(x)) < 1e-3


def test_what_is_no_chain_is_refused() -> None:
    stage = Stage((3, 3, 2, 4), relu=True)
    with pytest.raises(InputError, match="at least one stage"):
        ChainSpec(())
    with pytest.raises(InputError, match="out of a ReLU"):
        ChainSpec((Stage((3, 3, 2, 4)), Stage((1, 1, 4, 4))))
    with pytest.raises(InputError, match="out of a ReLU"):
        ChainSpec((stage, Stage((1, 1, 3, 4))))
    with pytest.raises(InputError, match="compute is one of"):
        ChainSpec((stage,), "int4")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="padding is one of"):
        Stage((3, 3, 2, 4), padding="full")  # type: ignore[arg-type]
    chain = only_chain(model_of([LAYERS.Conv2D(4, 3)])).chain
    with pytest.raises(InputError, match="range that enters each stage"):
        chain.converted("int8_static")
    with pytest.raises(InputError, match="converted from float32"):
        chain.converted("bfloat16").converted("int8_static", [1.0])
