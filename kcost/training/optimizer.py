"""AdamW as fine-tuning wants it: warm-up and decay of the rate, clipping, and a rate for each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kcost.backends import driver
from kcost.core.request import TrainRequest
from kcost.models.keras_private import variable_index
from kcost.training.layers import depth_of_layers


class WarmupDecay(keras.optimizers.schedules.LearningRateSchedule):  # type: ignore[misc]  # keras has no types
    """A rate that rises linearly from 0 to its peak, then stays, or falls to 0 in a line or half a cosine."""

    def __init__(self, peak: float, kind: str, warmup_steps: int, total_steps: int) -> None:
        super().__init__()
        self._peak, self._kind, self._warmup, self._total = peak, kind, warmup_steps, total_steps

    def __call__(self, step: Any) -> Any:
        """The rate at a step, counted from 0."""
        step = ops.cast(step, "float32")
        rising = step / max(1, self._warmup)
        done = ops.clip((step - self._warmup) / max(1, self._total - self._warmup), 0.0, 1.0)
        falling = {
            "constant": ops.ones_like(done),
            "linear": 1 - done,
            "cosine": 0.5 * (1 + ops.cos(math.pi * done)),
        }[self._kind]
        return self._peak * ops.where(step < self._warmup, rising, falling)


class LayerwiseAdamW(keras.optimizers.Adam):  # type: ignore[misc]  # keras has no types
    """AdamW with a factor of the learning rate for each variable.

    Source of decoupled weight decay: Loshchilov and Hutter (2019), arXiv 1711.05101.
    """

    def __init__(self, learning_rate: Any, factors: Sequence[float], decays: Sequence[float], **keywords: Any) -> None:
        """`factors` and `decays` give each trainable variable's factor of the rate and weight decay, in their order."""
        super().__init__(learning_rate, **keywords)
        self._factors, self._decays = factors, decays

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Keras calls this for each variable."""
        # By number, as Keras finds momentums: on tensorflow the variable is not Keras's own and has no path.
        index = variable_index(self, variable)
        rate, decay = learning_rate * self._factors[index], self._decays[index]
        if decay:
            self.assign_sub(variable, ops.cast(rate * decay, variable.dtype) * variable)
        super().update_step(gradient, variable, rate)


def make_optimizer(
    model: keras.Model, request: TrainRequest, learning_rate: float, total_steps: int
) -> keras.optimizers.Optimizer:
    """The optimizer that a request asks for. Biases and normalisations are not decayed, as is usual for BERT."""
    warmup_steps = round(request.warmup_fraction * total_steps)
    plain_rate = request.schedule == "constant" and warmup_steps == 0
    rate = learning_rate if plain_rate else WarmupDecay(learning_rate, request.schedule, warmup_steps, total_steps)
    decays = [request.weight_decay if len(v.shape) > 1 else 0.0 for v in model.trainable_variables]
    if keras.backend.backend() == "torch" and not driver("torch").devices()["gpu"]:
        from kcost.backends.kernels.torch_adamw import FusedAdamW

        return FusedAdamW(rate, _factors(model, request.layer_decay), decays, global_clipnorm=request.clip_norm)
    if request.layer_decay == 1.0:
        # Keras's own class: on torch it updates all variables in one call.
        optimizer = keras.optimizers.AdamW(rate, weight_decay=request.weight_decay, global_clipnorm=request.clip_norm)
        spared = [v for v in model.trainable_variables if len(v.shape) <= 1]
        if spared:
            optimizer.exclude_from_weight_decay(var_list=spared)
        return optimizer
    return LayerwiseAdamW(rate, _factors(model, request.layer_decay), decays, global_clipnorm=request.clip_norm)


def _factors(model: keras.Model, layer_decay: float) -> list[float]:
    """The factor of the learning rate of each trainable variable: the deeper its layer, the nearer to 1."""
    if layer_decay == 1.0:
        return [1.0] * len(model.trainable_variables)
    depths = depth_of_layers(model)
    top = max(depths.values())
    depth_of = {id(v): depths[layer.name] for layer in model.layers for v in layer.trainable_variables}
    return [layer_decay ** (top - depth_of[id(v)]) for v in model.trainable_variables]
