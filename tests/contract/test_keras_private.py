"""What kcost takes from Keras without a public name is there and gives what it is said to give, on each backend.

The test to run first when Keras releases: what fails here is mended in `kcost/models/keras_private.py`.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers, ops

import kcost.backends
import kcost.models
import kcost.optimize
import kcost.training
from kcost.models import keras_private
from kcost.models.keras_private import (
    AdamInOneCall,
    first_call,
    forget_variables,
    graph_of,
    initializers_replaced,
    inner_layers,
    is_bookkeeping,
    is_random,
    is_saveable,
    is_tracing_shapes,
    is_unseeded,
    layers_of,
    mask_of,
    nodes_of,
    own_seed_generators,
    own_trainable_variables,
    own_variables,
    renew_torch_parameters,
    replace_inner_layer,
    run_through_graph,
    saved_attributes,
    training_of_call,
    variable_index,
)
from kcost.worker.isolate import OTHERS

RANDOM = np.random.default_rng(0)
X, Y = (RANDOM.normal(size=(8, 3)).astype(np.float32) for _ in range(2))


class Holder(layers.Layer):  # type: ignore[misc]
    """Holds a layer in an attribute and two in a list, and two weights and a seed of its own."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = layers.Dense(3, name="first")
        self.others = [layers.Dense(3, name="second"), layers.Dropout(0.5, name="drop")]
        self.seed = keras.random.SeedGenerator(7)

    def build(self, shape: Any) -> None:
        self.count = self.add_weight(name="count", shape=(), initializer="zeros", trainable=False)
        self.scale = self.add_weight(name="scale", shape=(3,), initializer="ones")
        for layer in (self.first, *self.others):
            layer.build(shape)

    def call(self, x: Any, factor: float = 1.0) -> Any:
        x = self.first(x) * factor
        for layer in self.others:
            x = layer(x)
        return x * self.scale


class Subclassed(keras.Model):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.dense = layers.Dense(2)

    def call(self, x: Any) -> Any:
        return self.dense(x)


class Graphic(keras.Model):  # type: ignore[misc]
    """A class of somebody's own that is made of a graph."""

    def __init__(self) -> None:
        x = keras.Input((3,))
        super().__init__(inputs=x, outputs=layers.Dense(2)(x))


@pytest.fixture
def holder() -> Holder:
    layer = Holder(name="holder")
    layer.build((None, 3))
    return layer


def names(named: Any) -> list[str]:
    return [x.name for x in named]


def test_each_is_tested_here() -> None:
    public = {name for name, x in vars(keras_private).items() if getattr(x, "__module__", "") == keras_private.__name__}
    assert {name for name in public if not name.startswith("_")} <= globals().keys()


def test_layers_at_any_depth_are_given_once_each(holder: Holder) -> None:
    x = keras.Input((3,))
    shared = keras.Sequential([keras.Input((3,)), holder], name="inside")
    model = keras.Model(x, layers.Dense(2, name="head")(holder(shared(x))))
    every_layer = layers_of(model)
    assert every_layer[0] is model
    assert layers_of(model, itself=False) == every_layer[1:]
    inside = sorted(n for n in names(every_layer[1:]) if not n.startswith("input"))
    assert inside == ["drop", "first", "head", "holder", "inside", "second"]
    assert names(every_layer).index("holder") < names(every_layer).index("first")
    assert len({id(layer) for layer in every_layer}) == len(every_layer)


def test_inner_layers_are_those_of_one_level(holder: Holder) -> None:
    assert names(inner_layers(holder)) == ["first", "second", "drop"]
    assert inner_layers(holder.first) == []
    model = keras.Sequential([keras.Input((3,)), holder, layers.Dense(2, name="head")])
    assert names(inner_layers(model))[-2:] == names(model.layers) == ["holder", "head"]


def test_own_variables_are_no_sublayers_and_no_seeds(holder: Holder) -> None:
    assert names(own_variables(holder)) == ["scale", "count"]
    assert names(own_trainable_variables(holder)) == ["scale"]
    holder.trainable = False
    assert names(own_variables(holder)) == ["scale", "count"]
    assert names(own_trainable_variables(holder)) == ["scale"]
    assert len(holder.variables) > 2 + 4  # seeds too


def test_own_seeds_are_no_sublayers(holder: Holder) -> None:
    assert own_seed_generators(holder) == [holder.seed]
    assert len(own_seed_generators(holder.others[1])) == 1
    assert own_seed_generators(keras.optimizers.Adam()) == []


class SaysMask(layers.Layer):  # type: ignore[misc]
    """Numbers (batch, time): the mask of its input, or -1 where it sees none."""

    def call(self, x: Any) -> Any:
        mask = mask_of(x)
        return ops.full(ops.shape(x)[:2], -1.0) if mask is None else ops.cast(mask, "float32")

    def compute_output_shape(self, shape: Any) -> Any:
        return shape[:2]


def test_a_call_that_finds_out_shapes_is_told_from_one_that_answers(backend: str) -> None:
    answers: list[bool] = []

    class Says(layers.Layer):
        def call(self, x: Any) -> Any:
            answers.append(is_tracing_shapes())
            return x

    says = Says()
    says(keras.Input((2,)))
    says(ops.ones((1, 2)))
    *tracing, answering = answers  # torch tries two sizes of a free axis
    assert all(tracing)
    assert tracing
    assert not answering


@pytest.mark.parametrize("training", [True, False, None])
def test_a_layer_can_see_what_the_call_around_it_says_of_training(training: bool | None) -> None:
    answers: list[bool | None] = []

    class Inner(layers.Layer):
        def call(self, x: Any) -> Any:
            answers.append(training_of_call())
            return x

    class Outer(layers.Layer):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Inner()

        def call(self, x: Any, training: bool | None = None) -> Any:
            return self.inner(x)

    outer = Outer()
    outer.build((1, 2))
    outer(ops.ones((1, 2)), training=training)
    assert answers[-1] is training
    assert training_of_call() is None


@pytest.mark.parametrize("mask_zero", [True, False])
def test_a_mask_is_seen_outside_and_inside_of_compiled_code(mask_zero: bool) -> None:
    ids = keras.Input((3,), dtype="int32")
    table = layers.Embedding(9, 4, mask_zero=mask_zero)
    model = keras.Model(ids, SaysMask()(table(ids)))
    rows = np.array([[5, 1, 0], [2, 0, 0]], np.int32)
    expected = (rows != 0) if mask_zero else np.full(rows.shape, -1)
    np.testing.assert_array_equal(ops.convert_to_numpy(model(rows)), expected)
    model.compile(jit_compile=keras.backend.backend() == "jax")
    np.testing.assert_array_equal(model.predict(rows, verbose=0), expected)
    assert (mask_of(table(rows)) is None) is not mask_zero


def test_a_graph_is_that_of_functional_and_sequential_models(holder: Holder) -> None:
    x = keras.Input((3,))
    functional, graphic = keras.Model(x, holder(x)), Graphic()
    assert graph_of(functional) is functional
    assert graph_of(graphic) is graphic
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    graph = graph_of(model)
    assert isinstance(graph, keras.Function)
    assert [id(t) for t in (*graph.inputs, *graph.outputs)] == [id(t) for t in (*model.inputs, *model.outputs)]
    assert graph_of(keras.Sequential([layers.Dense(2)])) is None
    subclassed = Subclassed()
    subclassed(X)
    assert graph_of(subclassed) is None
    assert graph_of(holder) is None


def test_nodes_are_calls_in_the_order_of_their_needs() -> None:
    x = keras.Input((3,), name="x")
    twice = layers.Dense(3, name="twice")
    added = layers.Add(name="added")([twice(twice(x)), x])
    nodes = nodes_of(keras.Model(x, added))
    assert names(node.operation for node in nodes) == ["x", "twice", "twice", "added"]
    assert [len(node.input_tensors) for node in nodes] == [0, 1, 1, 2]
    assert nodes[1].input_tensors[0] is x
    assert nodes[2].input_tensors[0] is nodes[1].output_tensors[0]
    assert nodes[3].input_tensors == [nodes[2].output_tensors[0], x]
    assert nodes[3].output_tensors[0] is added


def test_the_first_call_has_all_its_arguments(holder: Holder) -> None:
    assert first_call(holder) is None
    x = keras.Input((3,))
    keras.Model(x, holder(holder(x, factor=3.0)))
    call = first_call(holder)
    assert call is not None
    assert list(call[0]) == [x]
    assert call[1]["factor"] == 3.0


def dense(name: str) -> layers.Dense:
    layer = layers.Dense(3, name=name)
    layer.build((None, 3))
    return layer


def test_a_built_layer_takes_another_sublayer(holder: Holder) -> None:
    new = dense("new")
    with pytest.raises(ValueError, match="already built"):
        holder.first = new
    replace_inner_layer(holder, holder.first, new)
    holder.first = new
    assert names(inner_layers(holder)) == ["new", "second", "drop"]
    assert any(v is new.kernel for v in holder.trainable_variables)


def test_what_is_not_in_the_list_stays_out_of_it(holder: Holder) -> None:
    replace_inner_layer(holder, dense("other"), dense("new"))
    assert names(inner_layers(holder)) == ["first", "second", "drop"]


def test_the_parameters_of_torch_are_those_of_now(holder: Holder, backend: str) -> None:
    if backend != "torch":
        assert not hasattr(holder, "torch_params")
        renew_torch_parameters(holder)
        return

    def has_kernel(layer: Any) -> bool:
        return any(parameter is layer.kernel.value for parameter in holder.torch_params.values())

    old, new = holder.first, dense("new")
    replace_inner_layer(holder, old, new)
    holder.first = new
    assert has_kernel(old)
    assert not has_kernel(new)
    renew_torch_parameters(holder)
    assert has_kernel(new)
    assert not has_kernel(old)


def holds_layers(value: Any) -> bool:
    items = value.values() if isinstance(value, dict) else value if isinstance(value, list) else [value]
    return any(isinstance(item, layers.Layer) for item in items)


def test_bookkeeping_is_what_the_class_did_not_set(holder: Holder) -> None:
    model = Subclassed()
    model(X)
    sequential = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    for layer, own in ((holder, ["first", "others"]), (model, ["dense"]), (sequential, [])):
        held = [name for name in dir(layer) if not hasattr(type(layer), name) and holds_layers(getattr(layer, name))]
        assert [name for name in held if not is_bookkeeping(name)] == own
        assert any(is_bookkeeping(name) for name in held)


def test_what_a_file_holds_as_a_part(holder: Holder) -> None:
    parts = [holder, keras.optimizers.Adam(), keras.metrics.Mean(), keras.losses.MeanSquaredError()]
    assert all(is_saveable(part) for part in parts)
    assert not any(is_saveable(value) for value in (holder.scale, holder.seed, holder.others, X, 1, "dense", None))


def test_the_attributes_that_are_saved(holder: Holder) -> None:
    attributes = saved_attributes(holder)
    assert attributes["first"] is holder.first
    assert attributes["others"] is holder.others
    assert not {"_layers", "_tracker", "_trainable_variables", "name", "dtype_policy"} & attributes.keys()
    model = keras.Sequential([keras.Input((3,)), holder])
    assert next(iter(saved_attributes(model).items())) == ("layers", [holder])


def initializers() -> Iterator[keras.initializers.Initializer]:
    """One of each class of Keras's that makes a matrix."""
    for name, kind in vars(keras.initializers).items():
        if inspect.isclass(kind) and name[0].isupper() and name != "Initializer" and not name.startswith("STFT"):
            yield kind()


def test_the_random_initializers_are_those_that_give_other_numbers_next_time() -> None:
    keras.utils.set_random_seed(0)
    random = {type(x).__name__: is_random(x) for x in initializers()}
    differ = {
        type(a).__name__: bool((ops.convert_to_numpy(a((3, 3))) != ops.convert_to_numpy(b((3, 3)))).any())
        for a, b in zip(initializers(), initializers(), strict=True)
    }
    assert random == differ
    assert random["GlorotUniform"]
    assert not random["Zeros"]


def test_unseeded_is_a_random_one_that_was_given_no_seed() -> None:
    kind = keras.initializers.RandomNormal
    assert is_unseeded(kind())
    assert is_unseeded(kind.from_config(kind().get_config()))
    for seeded in (kind(seed=0), kind(seed=keras.random.SeedGenerator(3)), kind.from_config(kind(seed=2).get_config())):
        assert not is_unseeded(seeded)
    assert not is_unseeded(keras.initializers.Zeros())
    assert not is_unseeded(lambda shape, dtype=None: ops.zeros(shape, dtype))


def test_variables_begin_as_the_replaced_initializer_says() -> None:
    replaced: list[tuple[Any, Any]] = []

    def replace(variable: Any, initializer: Any) -> Any:
        replaced.append((variable, initializer))
        return keras.initializers.Constant(4.0)

    with initializers_replaced(replace):
        layer = dense("dense")
        given = keras.Variable(np.ones(2, np.float32))
    assert [id(variable) for variable, _ in replaced] == [id(layer.kernel), id(layer.bias)]
    assert replaced[0][1] is layer.kernel_initializer
    assert (ops.convert_to_numpy(layer.kernel) == 4).all()
    assert (ops.convert_to_numpy(given) == 1).all()


def test_initializers_are_as_before_afterwards() -> None:
    with (
        pytest.raises(RuntimeError, match="stop"),
        initializers_replaced(lambda variable, initializer: keras.initializers.Constant(4.0)),
    ):
        raise RuntimeError("stop")
    assert (ops.convert_to_numpy(dense("dense").bias) == 0).all()


def two_layers() -> keras.Model:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((3,)), layers.Dense(4), layers.Dense(3)])


def test_a_variable_is_found_by_the_order_that_the_optimizer_was_built_with() -> None:
    seen: dict[int, tuple[int, ...]] = {}

    class Looks(keras.optimizers.Optimizer):  # type: ignore[misc]
        def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
            seen[variable_index(self, variable)] = tuple(variable.shape)

    model = two_layers()
    model.compile(Looks(0.1), loss="mse")
    model.train_on_batch(X, Y)
    assert seen == {i: tuple(v.shape) for i, v in enumerate(model.trainable_variables)}


def test_added_variables_can_be_taken_out() -> None:
    optimizer = keras.optimizers.Adam()
    optimizer.build(two_layers().trainable_variables)
    before = [id(v) for v in optimizer.variables]
    added = [optimizer.add_variable((2,), "ones", dtype="bool", name="mask") for _ in range(2)]
    assert [id(v) for v in optimizer.variables] == [*before, *map(id, added)]
    forget_variables(optimizer, added)
    assert [id(v) for v in optimizer.variables] == before


def after_a_step(optimizer: keras.optimizers.Optimizer) -> list[np.ndarray]:
    model = two_layers()
    model.compile(optimizer, loss="mse")
    model.train_on_batch(X, Y)
    return model.get_weights()


def test_adam_in_one_call_is_adam_where_nothing_is_overridden() -> None:
    ours = after_a_step(AdamInOneCall(0.1, global_clipnorm=0.01))
    theirs = after_a_step(keras.optimizers.Adam(0.1, global_clipnorm=0.01))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)


def test_adam_in_one_call_does_what_a_subclass_says() -> None:
    calls: list[str] = []

    class Ours(AdamInOneCall):
        def clipped(self, gradients: list[Any]) -> list[Any]:
            calls.append(f"{len(gradients)} to clip")
            return [ops.ones_like(gradient) for gradient in super().clipped(gradients)]

        def update_all(self, gradients: list[Any], variables: list[Any], learning_rate: Any) -> None:
            calls.append(f"{len(variables)} to change")
            super().update_all(gradients, variables, learning_rate)

    optimizer = Ours(0.1)
    model = two_layers()
    model.compile(optimizer, loss="mse")
    model.train_on_batch(X, Y)
    assert calls[:2] == ["4 to clip", "4 to change"]  # tensorflow may trace a step twice
    for variable in model.trainable_variables:
        first, second = optimizer.moments(variable)
        assert tuple(first.shape) == tuple(second.shape) == tuple(variable.shape)
        np.testing.assert_allclose(ops.convert_to_numpy(first), 1 - optimizer.beta_1, rtol=1e-5)
        np.testing.assert_allclose(ops.convert_to_numpy(second), 1 - optimizer.beta_2, rtol=1e-4)


def modules(backend: str) -> Iterator[ModuleType]:
    """Those of kcost that make classes of Keras's, but for what is of another backend."""
    for package in (kcost.backends, kcost.models, kcost.optimize, kcost.training):
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            try:
                yield importlib.import_module(info.name)
            except ModuleNotFoundError as error:
                if (error.name or "").partition(".")[0] not in OTHERS[backend]:
                    raise


def private_names(kind: type) -> set[str]:
    """Methods and attributes of a class that begin with one underscore, as its source has them."""
    body = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    methods = {node.name for node in ast.walk(body) if isinstance(node, ast.FunctionDef)}
    attributes = {
        node.attr
        for node in ast.walk(body)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
    }
    return {name for name in methods | attributes if name.startswith("_") and not name.startswith("__")}


def taken_names(kind: type) -> set[str]:
    """Private names of Keras that a class of ours uses, defines or overrides."""
    theirs = [base for base in kind.__mro__ if base.__module__.partition(".")[0] == "keras"]
    ours = [base for base in kind.__mro__ if base.__module__.partition(".")[0] in ("kcost", "tests")]
    ours = [base for base in ours if base.__module__ != keras_private.__name__]
    return set().union(*map(private_names, ours)) & set().union(*map(private_names, theirs), *map(vars, theirs))


def test_no_class_of_kcost_has_a_private_name_of_its_class_of_keras(backend: str) -> None:
    """A layer that sets `self._x` where Keras has an `_x` breaks Keras, or is broken by its next release."""
    kinds = {
        kind for module in modules(backend) for _, kind in inspect.getmembers(module, inspect.isclass)
        if kind.__module__ == module.__name__
    }  # fmt: skip
    taken_by_class = {kind.__qualname__: taken for kind in kinds if (taken := taken_names(kind))}
    assert taken_by_class == {}
    assert {"EncoderBlock", "RewrittenModel", "PruningCallback", "LayerwiseAdamW"} <= {k.__name__ for k in kinds}


def test_a_name_of_keras_is_found() -> None:
    class Sets(layers.Layer):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._losses = None
            self._ours = None

    class Overrides(layers.Dense):  # type: ignore[misc]
        def _setattr_hook(self, name: str, value: Any) -> Any:
            return name, value

    class Reads(keras.optimizers.Adam):  # type: ignore[misc]
        def momentums(self) -> Any:
            return self._momentums

    assert taken_names(Sets) == {"_losses"}
    assert taken_names(Overrides) == {"_setattr_hook"}
    assert taken_names(Reads) == {"_momentums"}


def test_a_graph_is_run_with_other_functions_in_the_place_of_operations() -> None:
    inputs = {"b": keras.Input((3,), name="b"), "a": keras.Input((3,), name="a")}
    doubled = layers.Rescaling(2.0, name="doubled")
    model = keras.Model(inputs, {"sum": layers.Add()([doubled(inputs["a"]), inputs["b"]]), "b": inputs["b"]})
    a, b = np.ones((2, 3), np.float32), np.full((2, 3), 10, np.float32)

    def tripled(operation: Any) -> Any:
        return (lambda x: x * 3) if operation is doubled else operation

    flat = [keras.ops.convert_to_tensor(x) for x in (a, b)]  # in the order of a flattened dictionary
    for run_as, wanted in ((lambda operation: operation, 12.0), (tripled, 13.0)):
        outputs = run_through_graph(model, flat, run_as)
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(outputs["sum"]), np.full((2, 3), wanted))
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(outputs["b"]), b)
