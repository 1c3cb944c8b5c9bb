"""Layers for inference whose call is short on PyTorch, where a step is a sum of short calls."""

from __future__ import annotations

import dataclasses
from typing import Any

import keras

from kcost.models.keras_private import mask_of
from kcost.optimize.forms.slow_calls import warn_of_slow_call


class LeanLayer(keras.layers.Layer):  # type: ignore[misc]  # Keras is not read by the type checker
    """A layer that calls `call` at once where Keras would do nothing around it.

    Keras looks for symbolic inputs, masks, dtypes, hooks and whether a training goes on, which takes 0.2 ms a layer
    (keras 3.15 on torch): as long as int8 products of a short text. Where each input is a plain tensor of a dtype that
    stays, the model has said training=False, and nobody listens, there is nothing to find. Other backends trace a
    model once, so that it costs them nothing.
    """

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """The outputs, as `call` describes them."""
        training = kwargs.get("training")
        if args:
            warn_of_slow_call(self, args[0], training)
        if keras.backend.backend() == "torch" and training is False and self._is_plain(args, kwargs):
            del kwargs["training"]
            return self.call(*args, **kwargs)
        return super().__call__(*args, **kwargs)

    def _is_plain(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        if not self.built or self._forward_hooks or self._forward_pre_hooks or self.dtype_policy.name != "float32":
            return False
        if self.supports_masking and type(self).compute_mask is not keras.layers.Layer.compute_mask:
            return False  # it makes a mask of its own, which Keras attaches to the outputs
        return all(
            value is None
            or value is False
            or (keras.ops.is_tensor(value) and value.device.type != "meta" and _stays(value))
            for value in (*args, *kwargs.values())
        )


class FusedLayer(LeanLayer):
    """Several layers of Keras as one, which a spec describes: a dataclass with what it computes in, `compute`."""

    def __init__(self, spec: Any, **kwargs: Any) -> None:
        super().__init__(autocast=False, **kwargs)
        self.spec = spec
        self.parts: dict[str, keras.Variable] = {}

    @property
    def computes_in(self) -> str:
        """What `computed_dtypes` says of it."""
        return str(self.spec.compute)

    def get_config(self) -> dict[str, Any]:
        """What `from_config` needs."""
        config: dict[str, Any] = super().get_config()
        config.pop("autocast", None)
        return {**config, "spec": dataclasses.asdict(self.spec)}


def _stays(tensor: Any) -> bool:
    """Whether Keras would neither cast a tensor nor follow a mask that it carries."""
    return mask_of(tensor) is None and (not tensor.is_floating_point() or tensor.itemsize == 4)
