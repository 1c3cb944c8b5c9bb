"""One tiny model for each public layer class of Keras, made by looking at the classes.

Nobody extends a list by hand: arguments come from their names, and inputs from the module that a class is in. What
cannot be guessed so stands in TABLE. A class that is made in neither way fails the test that carries its name.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import layers

from kcost.models.copying import without_initializers

ROWS = 16
"""Examples of each specimen: as many real rows as a parity probe has."""

ARGUMENTS: dict[str, Any] = {
    "activation": "tanh",
    "axes": -1,
    "factor": 0.2,
    "filters": 3,
    "head_dim": 3,
    "height": 6,
    "height_factor": 0.2,
    "input_dim": 10,
    "kernel_size": 2,
    "key_dim": 3,
    "max_number": 2,
    "n": 3,
    "num_bins": 5,
    "num_heads": 2,
    "num_key_value_heads": 2,
    "num_query_heads": 4,
    "output_dim": 4,
    "output_size": 2,
    "pool_size": 2,
    "rate": 0.5,
    "scale": 0.5,
    "stddev": 0.1,
    "units": 4,
    "width": 6,
    "width_factor": 0.2,
}
"""Values for required arguments, by name."""

SEQUENCE, IMAGE, VOLUME, VECTOR = (8, 3), (8, 8, 3), (4, 4, 4, 2), (6,)


class Specimen(NamedTuple):
    """A model with a layer to look at, and what goes in by name, ROWS rows each."""

    layers: tuple[str, ...]
    """The names of the layer and of its class: a refusal has to tell one of them."""
    model: keras.Model
    inputs: dict[str, np.ndarray]


class MadeElsewhereError(Exception):
    """Keras makes such a model on another backend only: `backend`."""

    def __init__(self, backend: str) -> None:
        super().__init__(f"Keras makes it on {backend}")
        self.backend = backend


class NotMadeError(Exception):
    """Keras makes no such model in this environment, and why."""


def layer_classes() -> dict[str, type[keras.layers.Layer]]:
    """Every public layer class that can be called, by its name; a class with several names comes once."""
    classes = {kind for _, kind in inspect.getmembers(layers, inspect.isclass) if issubclass(kind, layers.Layer)}
    concrete = [kind for kind in classes if kind.call is not layers.Layer.call]
    return {kind.__name__: kind for kind in sorted(concrete, key=lambda kind: kind.__name__)}


def layer_specimen(name: str) -> Specimen:
    """The specimen of a layer class, with weights that are not the defaults, and state where it has some.

    Raises:
        MadeElsewhereError: on another backend only.
        NotMadeError: not in this environment.
        LookupError: neither guessed nor in TABLE.
    """
    kind = layer_classes()[name]
    try:
        with without_initializers():  # `fill` gives values of its own; jax compiles a program a shape for random ones
            return TABLE[name](kind) if name in TABLE else guessed(kind)
    except ImportError as error:
        if "tensorflow" in str(error).lower():
            raise MadeElsewhereError("tensorflow") from error
        raise
    except (MadeElsewhereError, NotMadeError):
        raise
    except Exception as error:
        raise LookupError(f"No specimen of keras.layers.{name} can be guessed ({error}). Add it to TABLE.") from error


def label(kind: type) -> str:
    """The name of the layer of a class in its model."""
    return f"zoo_{kind.__name__.lower()}"


def floats(*shape: int) -> np.ndarray:
    """Eighths from -2 to 2, which bfloat16 holds."""
    return (np.random.default_rng(1).integers(-16, 17, (ROWS, *shape)) / 8).astype(np.float32)


def pixels(*shape: int) -> np.ndarray:
    """Whole numbers from 0 to 255, as floats."""
    return np.random.default_rng(2).integers(0, 256, (ROWS, *shape)).astype(np.float32)


def numbers(below: int, *shape: int) -> np.ndarray:
    """Whole numbers from 0 on."""
    return np.random.default_rng(3).integers(0, below, (ROWS, *shape)).astype(np.int32)


def words(*shape: int) -> np.ndarray:
    """Strings."""
    return np.array(["a cat", "the dog", "a bird", "the fish"])[numbers(4, *shape)]


def guessed(kind: type[keras.layers.Layer], arguments: dict[str, Any] | None = None) -> Specimen:
    """A specimen with required arguments by their names, and inputs as the module of the class tells."""
    required = [
        p.name
        for p in inspect.signature(kind.__init__).parameters.values()
        if p.default is p.empty and p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"
    ]
    given = arguments or {}
    return of(kind, _arrays(kind), {**{name: ARGUMENTS[name] for name in required if name not in given}, **given})


def _arrays(kind: type[keras.layers.Layer]) -> list[np.ndarray]:
    module, name = kind.__module__, kind.__name__
    if ".image_preprocessing" in module:
        return [pixels(*IMAGE)]
    if name.endswith("Embedding"):
        return [numbers(10, 5)]
    for ending, shape in (("1D", SEQUENCE), ("2D", IMAGE), ("3D", VOLUME)):
        if ending in name:
            return [floats(*((3, *shape) if "LSTM" in name else shape))]
    if ".merging" in module or ".attention" in module:
        first = floats(*SEQUENCE)
        return [first, np.ascontiguousarray(first[::-1] / 2)]
    return [floats(*(SEQUENCE if ".rnn" in module else VECTOR))]


def of(kind: type[keras.layers.Layer], arrays: Sequence[np.ndarray], arguments: dict[str, Any]) -> Specimen:
    """A model of one layer, adapted to the arrays where it adapts."""
    layer = kind(**arguments, name=label(kind))
    if hasattr(layer, "adapt"):
        layer.adapt(arrays[0])
    tensors = _tensors(arrays)
    apart = "query" in inspect.signature(kind.call).parameters
    outputs = layer(*tensors) if apart else layer(tensors[0] if len(tensors) == 1 else tensors)
    return model_of(kind, tensors, outputs, arrays)


def _tensors(arrays: Sequence[np.ndarray]) -> list[keras.KerasTensor]:
    kinds = ["string" if a.dtype.kind == "U" else a.dtype.name for a in arrays]
    return [keras.Input(a.shape[1:], dtype=d, name=f"x{i}") for i, (a, d) in enumerate(zip(arrays, kinds, strict=True))]


def model_of(kind: type, tensors: Any, outputs: Any, arrays: Sequence[np.ndarray]) -> Specimen:
    """A specimen of a functional model, with other weights than those it was made with."""
    model = keras.Model(tensors[0] if len(tensors) == 1 else tensors, outputs, name="specimen")
    fill(model)
    # A layer of text is refused by the input that brings it the text.
    texts = [tensor.name for tensor in tensors if tensor.dtype == "string"]
    named = {tensor.name: array for tensor, array in zip(tensors, arrays, strict=True)}
    return Specimen((label(kind), kind.__name__, *texts), model, named)


def fill(model: keras.Model) -> None:
    """Gives each float variable random values that are not the defaults; what a layer adapted to data, it keeps."""
    rng = np.random.default_rng(4)
    kept = {id(v) for layer in model._flatten_layers() if hasattr(layer, "adapt") for v in layer.variables}
    for variable in model.variables:
        if "float" in variable.dtype and id(variable) not in kept:
            values = rng.normal(0, 0.5, variable.shape)
            positive = "variance" in variable.path or "gamma" in variable.path
            variable.assign(np.abs(values) + 0.5 if positive else values)


def _inside(made: Callable[[], keras.layers.Layer], kind: type[keras.layers.Layer], argument: str) -> Specimen:
    """A wrapper around a layer."""
    return guessed(kind, {argument: made()})


def _cell(kind: type[keras.layers.Layer]) -> Specimen:
    """A cell is called by a layer that loops."""
    cell = kind([layers.GRUCell(3), layers.LSTMCell(2)]) if kind is layers.StackedRNNCells else kind(3)
    made = guessed(layers.RNN, {"cell": cell})
    return made._replace(layers=(*made.layers, kind.__name__))


def _masking(kind: type[keras.layers.Layer]) -> Specimen:
    """The mask shows in the layer after."""
    array = floats(*SEQUENCE)
    array[:, 5:] = 0
    tensors = _tensors([array])
    outputs = layers.GlobalAveragePooling1D()(kind(name=label(kind))(tensors[0]))
    return model_of(kind, tensors, outputs, [array])


def _input_layer(kind: type[keras.layers.Layer]) -> Specimen:
    array = floats(*VECTOR)
    model = keras.Sequential([kind(VECTOR, name=label(kind)), layers.Dense(2)])
    fill(model)
    return Specimen((label(kind), kind.__name__), model, {model.inputs[0].name: array})


def _pipeline(kind: type[keras.layers.Layer]) -> Specimen:
    return of(kind, [pixels(*IMAGE)], {"layers": [layers.Rescaling(1 / 256), layers.CenterCrop(6, 6)]})


def _needs(backend: str, made: Callable[[type], Specimen]) -> Callable[[type], Specimen]:
    def specimen(kind: type) -> Specimen:
        if keras.backend.backend() != backend:
            raise MadeElsewhereError(backend)
        return made(kind)

    return specimen


def _doubled(inputs: Any) -> Any:
    return inputs * 2


def _jax_layer(kind: type[keras.layers.Layer]) -> Specimen:
    return of(kind, [floats(*VECTOR)], {"call_fn": _doubled})


def _not_made(reason: str) -> Callable[[type], Specimen]:
    def specimen(kind: type) -> Specimen:
        raise NotMadeError(reason)

    return specimen


def _torch_module(kind: type[keras.layers.Layer]) -> Specimen:
    import torch

    return of(kind, [floats(*VECTOR)], {"module": torch.nn.Linear(6, 2), "output_shape": (None, 2)})


def _saved_model_layer(kind: type[keras.layers.Layer]) -> Specimen:
    import tempfile

    folder = tempfile.mkdtemp(prefix="kcost-zoo-")
    dense = keras.Sequential([keras.Input(VECTOR), layers.Dense(2)])
    dense.export(folder, verbose=False)
    return of(kind, [floats(*VECTOR)], {"filepath": folder, "call_endpoint": "serve"})


def _table(arguments: dict[str, Any], *arrays: np.ndarray) -> Callable[[type], Specimen]:
    return lambda kind: of(kind, arrays, arguments)


TABLE: dict[str, Callable[[type[keras.layers.Layer]], Specimen]] = {
    "Bidirectional": partial(_inside, lambda: layers.LSTM(3), argument="layer"),
    "CategoryEncoding": _table({"num_tokens": 10}, numbers(10, 5)),
    "Discretization": _table({"num_bins": 5}, floats(6)),
    "EinsumDense": _table({"equation": "abc,cd->abd", "output_shape": (None, 4), "bias_axes": "d"}, floats(*SEQUENCE)),
    "Equalization": _not_made("Keras makes no functional model of it: its output is the very tensor that went in"),
    "FlaxLayer": _not_made("it needs flax, which kcost does not use"),
    "GRUCell": _cell,
    "GroupNormalization": _table({"groups": 3}, floats(*VECTOR)),
    "HashedCrossing": _table({"num_bins": 5}, numbers(9, 1), numbers(7, 1)),
    "Hashing": _table({"num_bins": 5}, numbers(90, 3)),
    "InputLayer": _input_layer,
    "IntegerLookup": _table({}, 7 * numbers(10, 3)),
    "JaxLayer": _needs("jax", _jax_layer),
    "Lambda": _table({"function": lambda x: x * 2}, floats(*VECTOR)),
    "LSTMCell": _cell,
    "Masking": _masking,
    "MelSpectrogram": _table(
        {"fft_length": 32, "sequence_stride": 16, "num_mel_bins": 8, "min_freq": 100, "sampling_rate": 8000},
        floats(128),
    ),
    "Permute": _table({"dims": (2, 1)}, floats(*SEQUENCE)),
    "Pipeline": _pipeline,
    "RNN": lambda kind: guessed(kind, {"cell": layers.SimpleRNNCell(3)}),
    "RandomPosterization": _table({"factor": 4}, pixels(*IMAGE)),
    "Reshape": _table({"target_shape": (3, 8)}, floats(*SEQUENCE)),
    "STFTSpectrogram": _table({"frame_length": 32, "frame_step": 16, "fft_length": 32}, floats(128, 1)),
    "SimpleRNNCell": _cell,
    "SpectralNormalization": partial(_inside, lambda: layers.Dense(4), argument="layer"),
    "StackedRNNCells": _cell,
    "StringLookup": _needs("tensorflow", _table({}, words(3))),
    "TFSMLayer": _needs("tensorflow", _saved_model_layer),
    "TextVectorization": _needs("tensorflow", _table({"output_sequence_length": 4}, words(1))),
    "TimeDistributed": partial(_inside, lambda: layers.Dense(4), argument="layer"),
    "TorchModuleWrapper": _needs("torch", _torch_module),
}
"""What cannot be guessed: by the name of a class, what makes its specimen."""
