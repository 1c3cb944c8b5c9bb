"""The interface of a backend."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from kcost.core.errors import UnavailableError
from kcost.core.profile import Trace, Work
from kcost.core.signature import in_structure, input_structure
from kcost.models.ways_of_call import own_call

PREDICT = "predict"
"""A way of calling for `slow_call`: it makes a data set of the inputs and puts the outputs of batches together."""

Inputs = dict[str, np.ndarray]
LoadedPrecision = Literal["float32", "bfloat16", "mixed_bfloat16", "saved"]
Step = Callable[[Inputs], Any]
"""One inference step: numpy inputs by name in, outputs on the device out (not yet waited for)."""


class Subject(NamedTuple):
    """A cell that is ready, as a profiler needs it."""

    model: Any
    step: Callable[[int], None]
    """Does the i-th step to its end, as it was measured."""
    batches: list[Inputs]
    labels: np.ndarray | None
    """Of the first batch, for a training step; None for inference."""


class Driver(ABC):
    """What kcost needs of a framework beyond what Keras offers on every backend alike."""

    name: str
    simulated = False

    @abstractmethod
    def version(self) -> str:
        """Version of the framework."""

    @abstractmethod
    def devices(self) -> dict[str, list[str]]:
        """Names of the devices that the framework sees, by kind: cpu, gpu, tpu."""

    def take_device(self, device: str) -> None:  # noqa: B027 -- most frameworks choose by themselves
        """Makes what follows run on a kind of device that `devices` lists, where Keras does not choose it by itself.

        Called before anything is loaded; a process takes one.
        """

    @abstractmethod
    def set_threads(self, threads: int) -> None:
        """Limits the framework's own thread pools. Called before anything is computed."""

    @abstractmethod
    def compile_forward(self, model: Any, method: str) -> Step:
        """The forward pass of a Keras model, compiled as a careful user of the backend would.

        Args:
            model: a built keras.Model.
            method: one of the backend's INFERENCE_METHODS other than `predict`.
        """

    @abstractmethod
    def to_host(self, outputs: Any) -> list[np.ndarray]:
        """Waits for the outputs of a step and returns them as float32 (or integer) numpy arrays."""

    @abstractmethod
    def device_kind(self, outputs: Any) -> str:
        """The kind of device that the outputs of a step lie on: cpu, gpu or tpu."""

    def tf32(self) -> bool | None:
        """Whether float32 products may be rounded to TF32; None where no device has it."""
        return None

    def peak_device_bytes(self) -> int | None:
        """Peak memory taken on the accelerator since the process began; None on CPU or where unknown."""
        return None

    def random_state(self) -> np.ndarray | None:
        """The state of random numbers that no Keras variable holds, uint8; None where there is none."""
        return None

    def set_random_state(self, state: np.ndarray) -> None:
        """Brings back what `random_state` gave."""
        raise TypeError(f"The {self.name} backend keeps no random state of its own.")

    def load(self, keras_file: Path, precision: LoadedPrecision) -> Any:
        """The model in a .keras file, at a precision that `with_precision` knows.

        Raises:
            ArtifactError: the file cannot be loaded safely.
            UnavailableError: the model cannot be rebuilt at that precision.
        """
        from kcost.models.loading import load_keras_file
        from kcost.models.precision import with_precision

        return with_precision(load_keras_file(keras_file), precision)

    def not_numbers(self, model: Any) -> str | None:
        """Which weights of a loaded model are NaN, in words; None where none are, or nothing can be seen of them."""
        if not hasattr(model, "variables"):
            return None
        from kcost.models.nan_weights import nan_weights

        return nan_weights(model)

    def computed_dtype(self, model: Any) -> str:
        """What the layers of a loaded model compute in, such as `float32` or `bfloat16 and float32`."""
        from kcost.models.precision import computed_dtypes

        computed = computed_dtypes(model)
        return " and ".join(sorted({t.compute for t in computed if t.is_fixed or "float" in t.compute})) or "integers"

    def forward(self, model: Any, method: str, batch: int) -> Step:
        """The forward pass that a cell of this method and batch size measures, and that `kcost.load` gives.

        Args:
            model: as `load` gives it.
            method: `predict`, or one that `compile_forward` knows.
            batch: rows that `predict` takes at once.
        """
        if method != "predict":
            return self.compile_forward(model, method)
        step = self.predict_step(model, batch)

        def predict(inputs: Inputs) -> Any:
            with own_call():
                return step(inputs)

        return predict

    def predict_step(self, model: Any, batch: int) -> Step:
        """Keras's own `predict`, as a user who knows nothing of the backend calls it."""
        arranged = arranger(model)
        return lambda inputs: model.predict(arranged(inputs), batch_size=batch, verbose=0)

    def train_step(self, model: Any, loss: Any) -> Callable[[Inputs, np.ndarray], Any]:
        """One optimizer step of a model with a keras loss: inputs by name and labels in, loss out."""
        model.compile(optimizer="adam", loss=loss)
        arranged = arranger(model)
        return lambda inputs, labels: model.train_on_batch(arranged(inputs), labels)

    def gradient_of(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """The gradient of a function of tensors with respect to its first argument, for use in a compiled step.

        Args:
            function: tensors in, a scalar out; it changes no variable.

        Raises:
            UnavailableError: the backend has no gradients.
        """
        raise UnavailableError("An attack needs a backend with gradients.", received=self.name)

    @abstractmethod
    def int8_matmul(self, x: Any, w: Any) -> Any:
        """The exact product of two int8 tensors, fast where the machine can; for use in a traced forward, too.

        Args:
            x: int8 tensor (..., k), at least two axes.
            w: int8 tensor (k, n), k at least 1.

        Returns:
            int32 tensor (..., n): the same bits on each backend, as long as no sum leaves int32 (k <= 131,071).
        """

    def static_int8_product(self, x: Any, step: Any, kernel: Any, scale: Any) -> Any | None:
        """An int8 product with rounding and scales inside, as one operation; None where there is none here.

        It gives what rounding, `int8_matmul` and the scales give, to the precision of float32: sums of many terms are
        not the same bits, and a number in the middle between two whole ones may be rounded the other way. Step, kernel
        and scale are those of the moment at which the graph is made.

        Args:
            x: float tensor (..., k).
            step: float32 variable (): what x is divided by before it is rounded.
            kernel: int8 variable (k, n).
            scale: float32 variable (n,).

        Returns:
            float32 tensor (..., n).
        """
        return None

    def fused_layer_norm(self, x: Any, gamma: Any, beta: Any, epsilon: float) -> Any | None:
        """A layer norm over the last axis as one operation without gradients; None where there is none here.

        Gamma and beta are those of the moment at which the graph is made.

        Args:
            x: float tensor (..., width).
            gamma: float32 variable (width,), the scale.
            beta: float32 variable (width,), the offset.
            epsilon: added to the variance.

        Returns:
            float32 tensor (..., width).
        """
        return None

    def int8_unavailable(self) -> str | None:
        """Why `int8_matmul` does without int8 instructions here, or None where it has them."""
        return None

    def slow_call(self, inputs: Any, training: bool | None) -> str | None:
        """How kcost's inference layers are called now, where the backend runs them slower so; None elsewhere.

        Args:
            inputs: the tensor that a layer is called with.
            training: what the layer, or the model around it, was told of training.

        Returns:
            Words that name the way, such as "an eager call".
        """
        return None

    def trace_steps(self, subject: Subject, steps: int) -> Trace:
        """The operations of `steps` steps on the CPU, by the backend's own profiler.

        Raises:
            UnavailableError: the backend has none that tells operations apart.
        """
        raise UnavailableError("Operations are told apart by a profiler of the backend.", f"{self.name} without one")

    def count_work(self, subject: Subject) -> Work:
        """Flops and bytes of one step, with who counted them.

        Raises:
            UnavailableError: nothing counts them.
        """
        raise UnavailableError("Flops and bytes are counted in the program of a backend.", received=self.name)

    def square_product(self, size: int, dtype: str) -> Callable[[], None]:
        """A program that multiplies two (size, size) matrices and waits for the product, 2 * size**3 flops.

        Args:
            dtype: float32 or bfloat16.

        Raises:
            UnavailableError: the backend runs no programs but its models.
        """
        raise UnavailableError("A peak is measured with programs of a backend.", f"{self.name}, which runs models only")

    def convolution(self, images: int, side: int, channels: int, dtype: str) -> Callable[[], None]:
        """A program that convolves images of side x side pixels with windows of 3 x 3, as many channels out as in, and
        waits: 18 * images * side**2 * channels**2 flops.

        Args:
            dtype: float32 or bfloat16.

        Raises:
            UnavailableError: the backend runs no programs but its models.
        """
        raise UnavailableError("A peak is measured with programs of a backend.", f"{self.name}, which runs models only")

    def transfer(self, elements: int) -> Callable[[], None]:
        """A program that takes float32 numbers of numpy's to the device and back, and waits: 8 bytes an element.

        Raises:
            UnavailableError: the backend runs no programs but its models.
        """
        raise UnavailableError("A peak is measured with programs of a backend.", f"{self.name}, which runs models only")

    def sum_in_place(self, elements: int) -> Callable[[], None]:
        """A program that adds float32 numbers to as many others where these lie, and waits: 12 bytes an element.

        Raises:
            UnavailableError: the backend runs no programs but its models.
        """
        raise UnavailableError("A peak is measured with programs of a backend.", f"{self.name}, which runs models only")

    def is_jit(self, model: Any, method: str) -> bool:
        """Whether a step of this method runs as one compiled program."""
        if method in ("predict", "train_on_batch"):
            return bool(getattr(model, "jit_compile", False))
        return method in ("xla", "jit", "compile")


def arrange(model: Any, inputs: Mapping[str, Any]) -> Any:
    """Arrays, or tensors, by name in the structure that the model takes: dictionaries, lists or a single one.

    The names are those of the inputs, or the keys of the model's dictionary; `in_structure` has the rule. A model of no
    known structure takes them as they are, and one alone without its name.

    Raises:
        InputError: an input of the model has none.
    """
    return arranger(model)(inputs)


def arranger(model: Any) -> Callable[[Mapping[str, Any]], Any]:
    """`arrange` for many batches of one model, which is looked at once: that takes as long as a step of a small one."""
    structure = input_structure(model)
    if structure is None:
        return lambda inputs: next(iter(inputs.values())) if len(inputs) == 1 else inputs
    places: dict[tuple[str, ...], Any] = {}  # names of arrays -> the structure, with the name of an array at each place

    def arranged(inputs: Mapping[str, Any]) -> Any:
        names = tuple(inputs)
        place = places.get(names)
        if place is None:
            place = places[names] = in_structure(structure, {name: name for name in names})
        return _put(inputs, place)

    return arranged


def _put(arrays: Mapping[str, Any], place: Any) -> Any:
    if isinstance(place, str):
        return arrays[place]
    if isinstance(place, Mapping):
        return {key: _put(arrays, part) for key, part in place.items()}
    return [_put(arrays, part) for part in place]


def as_host_array(array: np.ndarray) -> np.ndarray:
    """Small float types, bfloat16 among them, as float32; everything else as it is."""
    kept = array.dtype.kind in "iub" or array.dtype in (np.float32, np.float64)
    return array if kept else array.astype(np.float32)
