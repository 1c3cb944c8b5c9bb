"""A model whose probabilities were put at a temperature: it answers the same, as sure as it is often right."""

from __future__ import annotations

from typing import Any

import keras
from keras import ops

from kcost.core.conversion import OutputTemperature
from kcost.core.predictions import LEAST_PROBABILITY


def at_temperature(model: keras.Model, temperature: OutputTemperature) -> keras.Model:
    """A model over the same layers, with the logits of one output divided by a temperature.

    Logits stay logits, and probabilities stay probabilities. The outputs keep their names.

    Source: Guo, Pleiss, Sun and Weinberger (2017), On Calibration of Modern Neural Networks, ICML: section 4.2.

    Args:
        model: functional.

    Examples:
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Softmax()])
        >>> cooler = at_temperature(model, OutputTemperature(value=2.0, place=0, kind="multiclass", logits=False))
        >>> bool(cooler(np.array([[4.0, 0.0]]))[0, 0] < model(np.array([[4.0, 0.0]]))[0, 0])
        True
    """
    outputs = keras.tree.flatten(model.output)
    taken = {layer.name for layer in model.layers}
    name = next(n for i in range(len(taken) + 1) if (n := f"at_temperature_{i}") not in taken)
    outputs[temperature.place] = DividedLogits(temperature, name=name)(outputs[temperature.place])
    calibrated = keras.Model(model.input, keras.tree.pack_sequence_as(model.output, outputs), name=model.name)
    calibrated.output_names = list(model.output_names)
    return calibrated


class DividedLogits(keras.layers.Layer):  # type: ignore[misc]  # keras has no types
    """One layer, so that no name of its operations can be that of a layer of the model."""

    def __init__(self, temperature: OutputTemperature, name: str) -> None:
        super().__init__(name=name, dtype="float32", autocast=False)
        self._temperature = temperature

    def call(self, output: Any) -> Any:
        """The output with its logits divided."""
        numbers, value = ops.cast(output, "float32"), self._temperature.value
        if self._temperature.logits:
            return ops.cast(numbers / value, output.dtype)
        logs = ops.log(ops.maximum(numbers, LEAST_PROBABILITY))
        if not self._temperature.one_unit(tuple(output.shape)):
            return ops.cast(ops.softmax(logs / value, axis=-1), output.dtype)
        logit = logs - ops.log(ops.maximum(1 - numbers, LEAST_PROBABILITY))
        return ops.cast(ops.sigmoid(logit / value), output.dtype)
