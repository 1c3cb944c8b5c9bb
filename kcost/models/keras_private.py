"""What kcost needs of Keras that has no public name: the one page to check when Keras releases.

No other module of kcost reaches a private name of Keras; `tests/unit/test_private_names.py` holds that.
`tests/contract/test_keras_private.py` holds each function to what it says, on each backend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras
from keras.src.backend import get_keras_mask
from keras.src.backend.common.global_state import get_global_attribute
from keras.src.backend.common.symbolic_scope import in_symbolic_scope
from keras.src.initializers.random_initializers import RandomInitializer
from keras.src.saving.keras_saveable import KerasSaveable
from keras.src.saving.saving_lib import _walk_saveable

# Layers and their variables


def layers_of(layer: keras.layers.Layer, *, itself: bool = True) -> list[keras.layers.Layer]:
    """A layer, unless `itself` is False, and all that lie in it at any depth, each once and after one that holds it.

    The public `Model.layers` gives the first level alone, and layers that are no model have no such name.
    """
    layers: list[keras.layers.Layer] = layer._flatten_layers(include_self=itself)
    return layers


def inner_layers(layer: keras.layers.Layer) -> list[keras.layers.Layer]:
    """The layers that a layer holds itself, each once. Only models have a public name for them, `Model.layers`."""
    layers: list[keras.layers.Layer] = layer._flatten_layers(include_self=False, recursive=False)
    return layers


def own_variables(layer: keras.layers.Layer) -> list[Any]:
    """The variables that a layer holds itself, seeds left out; those that were made to be trained come first.

    The public `variables` and `weights` hold those of the sublayers too, and variables may be shared with them.
    """
    return [*layer._trainable_variables, *layer._non_trainable_variables]


def own_trainable_variables(layer: keras.layers.Layer) -> list[Any]:
    """Those of `own_variables` that were made to be trained, whether the layer is frozen now or not.

    The public `trainable_variables` leaves out frozen ones, and holds those of the sublayers.
    """
    return list(layer._trainable_variables)


def own_seed_generators(saveable: Any) -> list[keras.random.SeedGenerator]:
    """The seeds that a layer draws from itself, in the order in which it made them; none for what is no layer.

    Their states are among the public `variables`, of which nothing says which one is of a seed.
    """
    return list(saveable._seed_generators) if isinstance(saveable, keras.layers.Layer) else []


def mask_of(tensor: Any) -> Any:
    """The mask that a layer such as Embedding has put on a tensor of the backend, or None; bool, (batch, time).

    Keras hands masks to an argument named `mask`, or `x_mask` beside `x`, and to no other. On the tensor the mask is
    an attribute where tensors take one, and stands in a table where they do not, as inside compiled code of jax.
    """
    return get_keras_mask(tensor)


def training_of_call() -> bool | None:
    """What the call of a layer that is under way says of training; None where none is, or it says nothing.

    Keras gives it to the layers within. A layer reads it publicly as the argument `training` of its `call`, which comes
    after what Keras does around one.
    """
    context = get_global_attribute("current_call_ctx")
    return None if context is None else context.get_value("training")


def is_tracing_shapes() -> bool:
    """Whether Keras calls a layer only to find out the shapes and dtypes of its outputs.

    On TensorFlow the layer then gets tensors of a graph that is thrown away, which nothing public tells from others.
    """
    return bool(in_symbolic_scope())


# Graphs


def graph_of(layer: Any) -> keras.Function | None:
    """The graph that a functional model is or that a Sequential one keeps; None for other layers.

    None too for a Sequential model that is not built, or one with a layer that takes no symbolic tensors. Publicly a
    Sequential model says its inputs and outputs, and raises where it has none.
    """
    if isinstance(layer, keras.Sequential):
        return layer._functional
    return layer if isinstance(layer, keras.Function) else None


def nodes_of(graph: keras.Function) -> list[Any]:
    """The calls of operations in a graph, those that others depend on first.

    Each has `operation`, `input_tensors` and `output_tensors`. The public `Function.operations` has each operation
    once, however often it is called, and says nothing of its tensors.
    """
    return [node for _, nodes in sorted(graph._nodes_by_depth.items(), reverse=True) for node in nodes]


def run_through_graph(graph: keras.Function, inputs: Sequence[Any], run_as: Callable[[Any], Callable[..., Any]]) -> Any:
    """The outputs of a graph, in its structure, where each operation is called as another function.

    A functional model's public call has each operation as it is.

    Args:
        inputs: of the graph, flat.
        run_as: what is called in the place of an operation.
    """
    return graph._run_through_graph(list(inputs), run_as)


def first_call(layer: keras.layers.Layer) -> tuple[Sequence[Any], dict[str, Any]] | None:
    """Arguments, symbolic tensors among them, that a layer was first called with in a graph; None if never.

    The public `Layer.input` has the tensors without the other arguments, and flat.
    """
    for node in layer._inbound_nodes[:1]:
        return node.arguments.args, node.arguments.kwargs
    return None


# Sublayers of a built layer, replaced


def replace_inner_layer(owner: keras.layers.Layer, old: keras.layers.Layer, new: keras.layers.Layer) -> None:
    """Puts a layer in another's place in the list of sublayers that a built layer keeps, if it stands there.

    The attribute that holds it is left to the caller. Publicly a built layer takes no further sublayer: assigning
    one that is not in the list raises.
    """
    if owner._tracker.is_in_store("layers", old):
        owner._tracker.replace_tracked_value("layers", old, new)


def renew_torch_parameters(layer: keras.layers.Layer) -> None:
    """Makes torch's own list of a layer's parameters again from its variables; nothing on other backends.

    It is made when the layer is built, and the public `torch_params` goes on giving that one.
    """
    if keras.backend.backend() == "torch":
        layer._track_variables()


def is_bookkeeping(attribute: str) -> bool:
    """Whether Keras, torch or TensorFlow keeps sublayers a second time in a layer's attribute of that name.

    They stand in `vars(layer)` beside the attributes that the layer's class has set, which is where one looks for a
    way to a sublayer. Nothing public tells them apart.
    """
    return attribute.startswith(_BOOKKEEPING)


_BOOKKEEPING = ("_layers", "_modules", "_metrics", "_functional", "_tracker", "_self_unconditional_", "_self_tracked_")
"""How such names begin, each on its own backend."""


# What a file holds


def is_saveable(value: Any) -> bool:
    """Whether a file can hold a value as a part of its own: a layer or another operation, a metric, an optimizer.

    The class that these have in common is not public.
    """
    return isinstance(value, KerasSaveable)


def saved_attributes(saveable: Any) -> dict[str, Any]:
    """The attributes, by name, that Keras looks through for parts when it saves a layer, in its order.

    Publicly a model is saved as a whole, to a file.
    """
    return dict(_walk_saveable(saveable))


# Initializers


def is_random(initializer: Any) -> bool:
    """Whether an initializer draws random numbers. The class that all such have in common is not public."""
    return isinstance(initializer, RandomInitializer)


def is_unseeded(initializer: Any) -> bool:
    """Whether an initializer draws numbers that nobody can foresee.

    The public `seed` is a number also where none was given. What was given stands in `get_config()`, which a class
    of somebody's own may leave out.
    """
    return is_random(initializer) and initializer._init_seed is None


@contextmanager
def initializers_replaced(replace: Callable[[Any, Any], Any]) -> Iterator[None]:
    """Within it, a variable made from an initializer is made from `replace(variable, initializer)` instead.

    Publicly, an initializer is an argument of each layer that has one; variables themselves ask nobody.
    """
    kind = keras.Variable
    usual = kind._initialize_with_initializer

    def initialize(variable: Any, initializer: Any) -> Any:
        return usual(variable, replace(variable, initializer))

    kind._initialize_with_initializer = initialize
    try:
        yield
    finally:
        kind._initialize_with_initializer = usual


# Optimizers


def variable_index(optimizer: keras.optimizers.Optimizer, variable: Any) -> int:
    """The place of a trained variable among those that an optimizer was built with.

    Keras's own guide to writing an optimizer names it. On tensorflow `update_step` is given variables of the
    backend, which a public list of Keras's variables does not hold.
    """
    index: int = optimizer._get_variable_index(variable)
    return index


def forget_variables(optimizer: keras.optimizers.Optimizer, variables: Iterable[Any]) -> None:
    """Takes out of an optimizer's state what `add_variable` has put there, for which there is no public opposite."""
    for variable in variables:
        optimizer._untrack_variable(variable)


class AdamInOneCall(keras.optimizers.Adam):  # type: ignore[misc]  # keras has no types
    """Adam with names for what a subclass may do in one call for all variables.

    The public `update_step` is called for each variable, and `apply` does all else that a step needs as well.
    """

    def clipped(self, gradients: list[Any]) -> list[Any]:
        """The gradients, one a variable, as the optimizer's settings clip them; Keras calls it before the update."""
        clipped: list[Any] = super()._clip_gradients(gradients)
        return clipped

    def update_all(self, gradients: list[Any], variables: list[Any], learning_rate: Any) -> None:
        """Changes the variables, and the optimizer's own, by one step."""
        super()._backend_update_step(gradients, variables, learning_rate)

    def moments(self, variable: Any) -> tuple[Any, Any]:
        """The optimizer's variables with the running means of a variable's gradient and of its square."""
        index = variable_index(self, variable)
        return self._momentums[index], self._velocities[index]

    def _clip_gradients(self, grads: list[Any]) -> list[Any]:
        return self.clipped(grads)

    def _backend_update_step(self, grads: list[Any], trainable_variables: list[Any], learning_rate: Any) -> None:
        self.update_all(grads, trainable_variables, learning_rate)
