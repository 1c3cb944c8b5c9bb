"""A forward pass that refuses what a backend would answer wrongly without a word, and sees what its inputs are for."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from kcost.core.signature import in_structure, input_structure, signature_of_structure
from kcost.models.watching import calls_seen
from kcost.models.ways_of_call import own_call

WORDS_A_TEXT = 16


class Choice(NamedTuple):
    """What made-up values are chosen from: words, or whole numbers."""

    of: tuple[str, ...] | tuple[int, ...]
    words: int = 1
    """How many of them make one text."""


class RefusedInputsError(ValueError):
    """Inputs that a backend may answer, and wrongly."""


class WatchedForward:
    """The plain forward pass of a Keras model, in inference mode: inputs by name in, flat outputs out.

    It is eager, but one program a shape on jax, which compiles each operation of an eager call for some 50 ms.

    It raises RefusedInputsError where a number has no row in a table that it is looked up in (jax answers with NaN or
    another row, a GPU ends the process), and, in a model with free axes, where a layer is given an empty tensor (the
    mean of nothing is no number), or its window does not fit into its input even once (TensorFlow's oneDNN then gives
    one value on some CPUs, and nothing on others).

    Args:
        model: built, with named inputs.
    """

    def __init__(self, model: Any) -> None:
        from kcost.models.keras_private import layers_of

        self._model = model
        self._layers = layers_of(model, itself=False)
        self._structure = input_structure(model)
        self._has_free_axes = any(spec.free_axes for spec in signature_of_structure(self._structure).values())
        self._numbers = {layer: number for number, layer in enumerate(self._layers)}
        self._inputs: dict[str, np.ndarray] = {}
        self._looked_up: dict[str, Any] | None = None  # of a program that is being traced: layer and call -> tensor
        self._program: Any = None
        self.values_read: dict[str, int | Choice] = {}
        """Of inputs that went into a table as they were: its rows, or what they may be chosen from."""

    @property
    def smallest_table(self) -> int | None:
        """Rows of the smallest table of the model, None without one: each number below is a row of all."""
        return min((rows for layer in self._layers if (rows := _rows(layer)) is not None), default=None)

    @property
    def table_lengths(self) -> list[int]:
        """Rows of its tables, of positions too: a model may want inputs of just that length."""
        lengths = [getattr(layer, "sequence_length", None) or _rows(layer) for layer in self._layers]
        return sorted({length for length in lengths if isinstance(length, int)})

    @property
    def words(self) -> Choice:
        """The words that its lookups know."""
        choices = [choice for layer in self._layers if (choice := _choice(layer)) is not None]
        return Choice(tuple(word for choice in choices for word in choice.of if isinstance(word, str)) or ("a",))

    def __call__(self, inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        """The outputs as numpy arrays, flat, floats as float32.

        Raises:
            RefusedInputsError: as the class says.
            Exception: what the layers raise.
        """
        import keras

        self._inputs = inputs
        tensors = {name: keras.ops.convert_to_tensor(array) for name, array in inputs.items()}
        x = in_structure(self._structure, tensors)
        with own_call():
            if keras.backend.backend() == "jax":
                outputs = self._run_program(x)
            else:
                with calls_seen(self._layers, self._seen):
                    outputs = self._model(x, training=False)
        return [_to_numpy(y) for y in keras.tree.flatten(outputs)]

    def _run_program(self, x: Any) -> Any:
        """The outputs by one compiled program, whose further outputs are what is looked up."""
        import jax

        from kcost.models.calling import answers_with

        def forward(trainable: Any, fixed: Any, x: Any) -> Any:
            self._looked_up = {}
            try:
                with calls_seen(self._layers, self._seen):
                    outputs = answers_with(self._model, trainable, fixed, x)
                return outputs, self._looked_up
            finally:
                self._looked_up = None

        self._program = self._program or jax.jit(forward)
        state = ([v.value for v in vs] for vs in (self._model.trainable_variables, self._model.non_trainable_variables))
        try:
            outputs, looked_up = self._program(*state, x)
        except jax.errors.UnexpectedTracerError:  # looked up inside a loop: nobody sees these numbers
            with calls_seen(self._layers, self._seen):
                return self._model(x, training=False)
        for call, tensor in looked_up.items():
            self._check(self._layers[int(call.partition("/")[0])], np.asarray(tensor))
        return outputs

    def _seen(self, layer: Any, *args: Any, **kwargs: Any) -> None:
        import keras

        tensors = [t for t in keras.tree.flatten((args, kwargs)) if hasattr(t, "shape")]
        if self._has_free_axes:
            for tensor in tensors:
                if any(isinstance(size, int) and size == 0 for size in _shape(tensor)):
                    raise RefusedInputsError(f"{layer.path} is given an empty tensor {_shape(tensor)}")
            if tensors and _is_wider(layer, _shape(tensors[0])):
                raise RefusedInputsError(f"{layer.path} has a window wider than its input {_shape(tensors[0])}")
        if (_rows(layer) is None and _choice(layer) is None) or not tensors or kwargs.get("reverse"):
            return
        if self._looked_up is not None:
            self._looked_up[f"{self._numbers[layer]}/{len(self._looked_up)}"] = tensors[0]
        elif (values := _values(tensors[0])) is not None:
            self._check(layer, values)

    def _check(self, layer: Any, values: np.ndarray) -> None:
        """Refuses numbers without a row, and notes which inputs they are."""
        rows, choice = _rows(layer), _choice(layer)
        if rows is not None and _is_index(layer, values) and values.size:
            if values.min() < 0 or values.max() >= rows:
                raise RefusedInputsError(f"{layer.path} has {rows} rows, and is asked for row {int(values.max())}")
            for name in self._same(values):
                before = self.values_read.get(name, rows)
                self.values_read[name] = min(before, rows) if isinstance(before, int) else before
        if choice is not None:
            self.values_read.update(dict.fromkeys(self._same(values), choice))

    def _same(self, values: np.ndarray) -> list[str]:
        """The inputs that hold these values, which went into a layer as they were."""
        flat = _text(values).ravel()
        return [n for n, a in self._inputs.items() if a.size == flat.size and np.array_equal(_text(a).ravel(), flat)]


def _rows(layer: Any) -> int | None:
    """The rows of the table that a layer looks whole numbers up in; None where it has no such table."""
    import keras

    rows = layer.num_tokens if isinstance(layer, keras.layers.CategoryEncoding) else getattr(layer, "input_dim", None)
    return rows if isinstance(rows, int) else None


def _choice(layer: Any) -> Choice | None:
    """What a lookup knows."""
    import keras

    if isinstance(layer, keras.layers.IntegerLookup):
        known = tuple(int(value) for value in layer.get_vocabulary(include_special_tokens=False))
        return Choice(known) if known else None
    if isinstance(layer, keras.layers.StringLookup | keras.layers.TextVectorization):
        words = tuple(str(word) for word in layer.get_vocabulary(include_special_tokens=False))
        is_text = isinstance(layer, keras.layers.TextVectorization)
        return Choice(words, WORDS_A_TEXT if is_text else 1) if words else None
    return None


def _is_wider(layer: Any, shape: tuple[Any, ...]) -> bool:
    """Whether the kernel of one of Keras's convolutions, or the window of its poolings, is wider than what it reads."""
    has_window = getattr(layer, "kernel_size", None) is not None or getattr(layer, "pool_size", None) is not None
    if not has_window or not type(layer).__module__.startswith("keras."):
        return False
    try:
        layer.compute_output_shape(shape)
    except ValueError:  # Keras's own rule
        return True
    return False


def _is_index(layer: Any, values: np.ndarray) -> bool:
    """Whether values are rows to look up: an attribute `input_dim` is also that of somebody's own dense layer."""
    import keras

    return values.dtype.kind in "iub" or (values.dtype.kind == "f" and isinstance(layer, keras.layers.Embedding))


def _shape(tensor: Any) -> tuple[Any, ...]:
    shape = tensor.shape
    return () if getattr(shape, "rank", 0) is None else tuple(shape)


def _values(tensor: Any) -> np.ndarray | None:
    """The values; None of a tensor that the backend traces, inside a scan, say."""
    import keras

    try:
        return np.asarray(keras.ops.convert_to_numpy(tensor))
    except Exception:  # each backend has its own for a tensor without values
        return None


def _text(values: np.ndarray) -> np.ndarray:
    """Strings as numpy's own; TensorFlow gives bytes as objects."""
    if values.dtype.kind not in "OS":
        return values
    return np.array([v.decode() if isinstance(v, bytes) else str(v) for v in values.ravel()])


def _to_numpy(output: Any) -> np.ndarray:
    import keras

    dtype = keras.backend.standardize_dtype(output.dtype)
    if dtype in ("bfloat16", "float16"):
        output = keras.ops.cast(output, "float32")
    return np.asarray(keras.ops.convert_to_numpy(output))
