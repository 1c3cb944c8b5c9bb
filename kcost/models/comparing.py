"""Whether a copy of a model gives the model's outputs, and which layer is to blame where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np

from kcost.core.errors import InputError, UnavailableError, in_a_line
from kcost.core.signature import in_structure, input_structure
from kcost.models.calling import answers_with
from kcost.models.copying import layers_that_raise, pairs_of
from kcost.models.probing import recipe_of
from kcost.models.watching import replaced_calls
from kcost.models.ways_of_call import own_call

ROWS = 3
SAME = 1e-6
"""Norm of the difference over norm of the outputs: what a copy may be off by."""

FREE_AXES = (16, 32, 8, 64, 128, 4, 224, 2, 1)
"""Sizes that axes without one are given in a model that names no inputs, all of them alike, until it takes the rows."""


class DifferentError(Exception):
    """A copy of a model does not give the model's outputs.

    Args:
        path: of the layer at which they part; the model's name where no single layer is to blame.
        difference: norm of the difference over norm of the outputs.
        what: what was compared.
    """

    def __init__(self, path: str, difference: float, what: str) -> None:
        self.path, self.difference, self.what = path, difference, what
        super().__init__(f"the layer {path!r}: {what} differ by {difference:.2g}, relative")


class LayerError(Exception):
    """A layer cannot be run: its backend has no kernel for a dtype, say.

    Args:
        path: of the layer.
        reason: what it raised, in a line.
    """

    def __init__(self, path: str, reason: str) -> None:
        self.path, self.reason = path, reason
        super().__init__(f"the layer {path!r}: {reason}")


class Call(NamedTuple):
    """A call of a layer that was watched."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    output: Any
    """As numpy arrays."""


def check_copy(original: keras.Model, copied: keras.Model, rows: Mapping[str, np.ndarray] | None = None) -> None:
    """Compares what two models of the same layers give for a few rows; both are left as they were.

    Args:
        rows: inputs by name, a few examples on axis 0; made up where None.

    Raises:
        DifferentError: outputs differ by more than SAME, or are of other shapes.
        LayerError: a layer cannot be run.
        UnavailableError: the original takes no rows that can be made up.
    """
    inputs = rows_for(original, rows)
    difference = differences(outputs_of(original, inputs), outputs_of(copied, inputs))
    if difference <= SAME:
        return
    pairs = [(path, old, new) for path, old, new in pairs_of(original, copied) if path and old is not new]
    with watched(old for _, old, _ in pairs) as (calls, _):
        outputs_of(original, inputs, by_layer=True)
    # Calls are written down as they end: sublayers come before the layer that holds them.
    by_layer = {id(old): (path, new) for path, old, new in pairs}
    for key, call in calls:
        path, new = by_layer[key]
        with keras.StatelessScope():
            here = differences(call.output, on_host(new(*call.args, **call.kwargs)))
        if here > SAME:
            raise DifferentError(path, here, "its outputs")
    raise DifferentError(original.name, difference, "the outputs of the model as a whole, and of no single layer,")


def rows_for(model: keras.Model, rows: Mapping[str, np.ndarray] | None = None) -> Any:
    """A few rows in the structure that a model takes: the given ones, or made-up ones where these lack an input.

    Raises:
        UnavailableError: no rows can be made up that the model takes.
    """
    structure = input_structure(model)
    few = {name: np.asarray(array)[:ROWS] for name, array in (rows or {}).items()}
    if structure is None:
        if few:
            return next(iter(few.values())) if len(few) == 1 else few
        return _made_up(model)
    try:
        return in_structure(structure, few)
    except InputError:
        return in_structure(structure, recipe_of(model).make(ROWS, 0))


def _made_up(model: keras.Model) -> Any:
    """Random rows of a model that names no inputs, as it was built; free axes get sizes until the model takes them."""
    reason = "it says nothing of its inputs"
    built_for = keras.layers.Layer.get_build_config(model) or {}  # not what a class of somebody's own makes of it
    for size in FREE_AXES if "input_shape" in built_for else ():
        inputs = _of_shape(built_for["input_shape"], size)
        try:
            outputs = outputs_of(model, inputs)
        except LayerError as error:  # whatever a layer says of a size that it cannot take
            reason = str(error)
            continue
        if all(array.size for array in keras.tree.flatten(outputs)):
            return inputs
        reason = "its outputs are empty"
    raise UnavailableError(
        "A changed model is compared with the original on a few rows of inputs.",
        received=f"{model.name!r}, which takes no made-up rows: {reason}",
        remedy="Give rows of your own data, or a model that names the shapes of its inputs.",
    )


def _of_shape(shape: Any, size: int) -> Any:
    """Floats from 0 to 1 in a shape, or in each of a list or dictionary of shapes, with free axes of a size."""
    if isinstance(shape, dict):
        return {name: _of_shape(one, size) for name, one in shape.items()}
    if not all(isinstance(n, int | None) for n in shape):
        return [_of_shape(one, size) for one in shape]
    free = (size if n is None else n for n in shape[1:])
    return np.random.default_rng(0).uniform(0, 1, (ROWS, *free)).astype("float32")


def outputs_of(model: keras.layers.Layer, inputs: Any, *, by_layer: bool = False) -> Any:
    """What a model gives, as numpy arrays; seeds and other state stay as they were.

    Args:
        model: built.
        inputs: in the structure that it takes.
        by_layer: whether each layer is called on values, as watching needs it. Else jax compiles the model as one
            program, in place of each operation by itself.

    Raises:
        LayerError: a layer raises.
    """
    with layers_that_raise() as raised:
        try:
            with keras.StatelessScope(), own_call():
                if keras.backend.backend() == "jax" and not by_layer:
                    return on_host(_by_one_program(model, inputs))
                return on_host(model(inputs, training=False))
        except MemoryError:
            raise
        except Exception as error:  # each framework has its own
            raise LayerError(raised[0] if raised else model.name, in_a_line(error)) from error


def _by_one_program(model: keras.layers.Layer, inputs: Any) -> Any:
    """The outputs on jax."""
    import jax

    def forward(trainable: Any, others: Any, x: Any) -> Any:
        return answers_with(model, trainable, others, x)

    state = ([v.value for v in vs] for vs in (model.trainable_variables, model.non_trainable_variables))
    return jax.jit(forward)(*state, inputs)


def on_host(values: Any) -> Any:
    """A structure of tensors as numpy arrays; small floats become float32."""
    return keras.tree.map_structure(_array, values)


def _array(tensor: Any) -> Any:
    if not keras.ops.is_tensor(tensor):
        return tensor
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return array if array.dtype.kind in "iubSUOfc" else array.astype(np.float32)


def differences(expected: Any, actual: Any) -> float:
    """The largest difference of two structures of arrays: its norm over that of the expected.

    Infinity for other shapes, or where only one of two numbers is finite. Whole numbers and words count as what share
    of them is unequal.
    """
    ours, theirs = keras.tree.flatten(expected), keras.tree.flatten(actual)
    if len(ours) != len(theirs):
        return float("inf")
    return max((_difference(np.asarray(a), np.asarray(b)) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _difference(expected: np.ndarray, actual: np.ndarray) -> float:
    if expected.shape != actual.shape:
        return float("inf")
    if expected.dtype.kind not in "fc" or actual.dtype.kind not in "fc":
        return float(np.mean(expected != actual)) if expected.size else 0.0
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], actual[~finite], equal_nan=True) or not np.isfinite(actual[finite]).all():
        return float("inf")
    off = float(np.linalg.norm((expected[finite].astype(np.float64) - actual[finite]).ravel()))
    size = float(np.linalg.norm(expected[finite].astype(np.float64).ravel()))
    return off / size if size else (float("inf") if off else 0.0)


@contextmanager
def watched(layers: Iterable[keras.layers.Layer]) -> Iterator[tuple[list[tuple[int, Call]], set[int]]]:
    """Writes down the calls of layers as they end, each with its layer's id; and the ids of those that are traced.

    What is called inside a compiled loop has no values to write down.
    """
    calls: list[tuple[int, Call]] = []
    traced: set[int] = set()

    def watch(layer: keras.layers.Layer, call: Callable[..., Any]) -> Callable[..., Any]:
        def seen(*args: Any, **kwargs: Any) -> Any:
            output = call(*args, **kwargs)
            try:
                calls.append((id(layer), Call(args, kwargs, on_host(output))))
                on_host((args, kwargs))
            except Exception:  # each backend has its own for a tensor without values
                traced.add(id(layer))
            return output

        return seen

    with replaced_calls(layers, watch):
        yield calls, traced
    calls[:] = [(key, call) for key, call in calls if key not in traced]
