"""Whether a copy of a model gives the model's outputs, and which layer is to blame where it does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np

from kcost.core.errors import UnavailableError, in_a_line
from kcost.models.copying import pairs_of
from kcost.models.watching import replaced_calls

ROWS = 3
SAME = 1e-6
"""Norm of the difference over norm of the outputs: what a copy may be off by."""

FREE_AXES = (16, 32, 8, 64, 128, 4, 224, 2, 1)
"""Sizes that axes without one are given, all of them alike, until the model takes the rows."""


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
        UnavailableError: the original takes no rows that can be made up.
    """
    inputs = rows_for(original, rows)
    difference = differences(outputs_of(original, inputs), outputs_of(copied, inputs))
    if difference <= SAME:
        return
    pairs = [(path, old, new) for path, old, new in pairs_of(original, copied) if path and old is not new]
    with watched(old for _, old, _ in pairs) as (calls, _):
        outputs_of(original, inputs)
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
    if rows is not None:
        few = {name: np.asarray(array)[:ROWS] for name, array in rows.items()}
        tensors = _structure(model)
        if tensors is None:
            return next(iter(few.values())) if len(few) == 1 else few
        if len(few) == 1 and len(model.inputs) == 1:
            (only,) = few.values()
            return keras.tree.map_structure(lambda tensor: only, tensors)
        if {tensor.name for tensor in model.inputs} <= set(few):
            return keras.tree.map_structure(lambda tensor: few[tensor.name], tensors)
    reason = "it says nothing of its inputs"
    for size in FREE_AXES:
        inputs = _made_up(model, size)
        if inputs is None:
            break
        try:
            outputs = outputs_of(model, inputs)
        except MemoryError:
            raise
        except Exception as error:  # whatever a layer says of a size that it cannot take
            reason = in_a_line(error)
            continue
        if all(array.size for array in keras.tree.flatten(outputs)):
            return inputs
        reason = "its outputs are empty"
    raise UnavailableError(
        "A changed model is compared with the original on a few rows of inputs.",
        received=f"{model.name!r}, which takes no made-up rows: {reason}",
        remedy="Give rows of your own data, or a model that names the shapes of its inputs.",
    )


def _structure(model: keras.Model) -> Any:
    """The inputs of a model as it takes them; None where it names none."""
    tensors = getattr(model, "inputs", None)
    if not tensors:
        return None
    structure = getattr(model, "input", None)  # a Sequential model has none
    return structure if structure is not None else tensors[0]


def _made_up(model: keras.Model, size: int) -> Any:
    """Random rows whose free axes have a size; None where the model says nothing of its inputs."""
    random = np.random.default_rng(0)
    tables = (getattr(layer, "input_dim", None) for layer in model._flatten_layers())
    smallest = min((n for n in tables if isinstance(n, int)), default=2)

    def row(tensor: Any) -> np.ndarray:
        shape = (ROWS, *(size if n is None else n for n in tensor.shape[1:]))
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        if dtype == "string":
            return np.array(["a", "b c", "d"], object).repeat(int(np.prod(shape[1:]))).reshape(shape)
        if "float" in dtype:
            return random.uniform(0, 1, shape).astype("float32")
        if dtype == "bool" or "mask" in tensor.name:
            return np.ones(shape, dtype)
        return random.integers(0, smallest, shape).astype(dtype)

    tensors = _structure(model)
    if tensors is not None:
        return keras.tree.map_structure(row, tensors)
    shapes = getattr(model, "_build_shapes_dict", None)  # Keras has no public way to it
    if not shapes or len(shapes) != 1:
        return None
    (shape,) = shapes.values()
    if isinstance(shape, dict):
        return {name: row(keras.KerasTensor((None, *one[1:]), name=name)) for name, one in shape.items()}
    if all(isinstance(n, int | None) for n in shape):
        return row(keras.KerasTensor((None, *shape[1:])))
    return [row(keras.KerasTensor((None, *one[1:]))) for one in shape]


def outputs_of(model: keras.layers.Layer, inputs: Any) -> Any:
    """What a model gives, as numpy arrays; seeds and other state stay as they were."""
    with keras.StatelessScope():
        return on_host(model(inputs, training=False))


def on_host(values: Any) -> Any:
    """A structure of tensors as numpy arrays; small floats become float32."""
    return keras.tree.map_structure(_array, values)


def _array(tensor: Any) -> Any:
    if not keras.ops.is_tensor(tensor):
        return tensor
    array = np.asarray(keras.ops.convert_to_numpy(tensor))
    return array if array.dtype.kind in "iubSUOfc" else array.astype(np.float32)


def differences(expected: Any, found: Any) -> float:
    """The largest difference of two structures of arrays: its norm over that of the expected.

    Infinity for other shapes, or where only one of two numbers is finite. Whole numbers and words count as what share
    of them is unequal.
    """
    ours, theirs = keras.tree.flatten(expected), keras.tree.flatten(found)
    if len(ours) != len(theirs):
        return float("inf")
    return max((_difference(np.asarray(a), np.asarray(b)) for a, b in zip(ours, theirs, strict=True)), default=0.0)


def _difference(expected: np.ndarray, found: np.ndarray) -> float:
    if expected.shape != found.shape:
        return float("inf")
    if expected.dtype.kind not in "fc" or found.dtype.kind not in "fc":
        return float(np.mean(expected != found)) if expected.size else 0.0
    finite = np.isfinite(expected)
    if not np.array_equal(expected[~finite], found[~finite], equal_nan=True) or not np.isfinite(found[finite]).all():
        return float("inf")
    off = float(np.linalg.norm((expected[finite].astype(np.float64) - found[finite]).ravel()))
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
