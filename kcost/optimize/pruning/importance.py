"""How much the loss would change without a weight or a unit, to first order, on whichever backend this process runs.

Source: Molchanov et al. (2019), Importance Estimation for Neural Network Pruning (arXiv 1906.10771), the first-order
criterion |weight * gradient|. A unit's criterion is the sum over the weights that its output goes into, which is the
derivative by a gate on that output: for attention heads, that of Michel, Levy and Neubig (2019), Are Sixteen Heads
Really Better than One? (arXiv 1905.10650).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kcost.core.errors import InputError
from kcost.models.keras_private import variable_index
from kcost.optimize.forms.encoder_block import EncoderBlock
from kcost.optimize.kernels import walk

View = Callable[[np.ndarray], np.ndarray]
"""An array of a variable's shape -> (units, ...): what of it belongs to each unit."""


class Labelled(NamedTuple):
    """Data with labels, and the loss of a model on it."""

    batches: Iterable[tuple[Any, Any]]
    """Inputs as the model takes them, and labels as the loss takes them."""
    loss: Any
    """A keras.losses.Loss."""


def taylor_scores(
    model: keras.Model, variables: Sequence[Any], labelled: Labelled | None, views: Sequence[View] | None = None
) -> list[np.ndarray]:
    """Mean over the batches of |sum over a unit's weights of weight * gradient|; without views each weight is a unit.

    The gradients are those of the model as it answers users: without dropout, with running statistics.

    Args:
        model: a copy that nobody else uses; all its layers are made trainable.
        variables: some of the model's.
        views: one a variable.

    Returns:
        One float32 array a variable: of its shape, or (units,) with views.

    Raises:
        InputError: no data.
    """
    if labelled is None:
        raise InputError(
            "importance=taylor is measured on labelled data.",
            received="no data",
            remedy="Give data, or use importance=magnitude.",
        )
    model.trainable = True
    for _, layer in walk(model):
        layer.trainable = True
        if isinstance(layer, EncoderBlock):
            layer.run_plainly()  # what backends have for inference need not have gradients
    answering = _Answering(model)
    optimizer = _Products(variables)
    answering.compile(optimizer=optimizer, loss=labelled.loss)
    totals = [np.float32(0)] * len(variables)
    count = 0
    for inputs, labels in labelled.batches:
        answering.train_on_batch(inputs, labels)
        count += 1
        for i, product in enumerate(optimizer.products()):
            totals[i] = totals[i] + np.abs(product if views is None else _by_unit(views[i](product)))
    if not count:
        raise InputError("importance=taylor is measured on labelled data.", received="no batch of data")
    return [np.asarray(total / count, np.float32) for total in totals]


def _by_unit(product: np.ndarray) -> np.ndarray:
    return np.asarray(product.reshape(len(product), -1).sum(axis=1))


class _Answering(keras.Model):  # type: ignore[misc]  # keras has no types
    """A model that trains in the mode in which it answers users."""

    def __init__(self, model: keras.Model) -> None:
        super().__init__(name="answering")
        self.answering = model

    def call(self, inputs: Any) -> Any:
        """The model's answer."""
        return self.answering(inputs, training=False)


class _Products(keras.optimizers.Optimizer):  # type: ignore[misc]  # keras has no types
    """Keeps weight * gradient of some variables, and changes none: so that each backend's own training step is used."""

    def __init__(self, variables: Sequence[Any]) -> None:
        super().__init__(learning_rate=0.0, name="products")
        # Behind a function: a list would be tracked, and the model's variables would become the optimizer's.
        self._wanted: Callable[[], Sequence[Any]] = lambda: variables

    def build(self, variables: Sequence[Any]) -> None:
        """Makes a variable for each product."""
        if self.built:
            return
        super().build(variables)
        wanted = self._wanted()
        places = {id(variable): i for i, variable in enumerate(wanted)}
        self._places = [places.get(id(variable)) for variable in variables]
        self._kept = self.add_optimizer_variables(wanted, "product")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras calls this for each variable."""
        place = self._places[variable_index(self, variable)]
        if place is not None:
            self.assign(self._kept[place], ops.multiply(gradient, ops.cast(variable, gradient.dtype)))

    def products(self) -> list[np.ndarray]:
        """Those of the last batch, one array a variable."""
        return [np.asarray(ops.convert_to_numpy(v)) for v in self._kept]
