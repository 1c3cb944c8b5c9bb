"""Which layers of anybody's model are encoder layers that an EncoderBlock can stand for."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from keras import ops

from kcost.backends.block_spec import Activation, BlockSpec
from kcost.optimize.forms.encoder_block import EncoderBlock

_ACTIVATIONS: dict[Activation, Any] = {
    "gelu": lambda x: ops.gelu(x, approximate=False),
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "relu": ops.relu,
}
_NORMS = {"attention_norm": "_self_attention_layer_norm", "output_norm": "_feedforward_layer_norm"}


def encoder_block_of(layer: keras.layers.Layer) -> EncoderBlock | str:
    """A float32 EncoderBlock that computes what `layer` does, with its weights and its name; or why there is none.

    An EncoderBlock at float32 is given back as it is. The layer is not changed.
    """
    if isinstance(layer, EncoderBlock):
        return layer if layer.spec.compute == "float32" else f"an encoder block at {layer.spec.compute} already"
    # By name: importing keras_nlp to compare classes takes seconds, also for models without it.
    if type(layer).__name__ != "TransformerEncoder" or not type(layer).__module__.startswith("keras_hub."):
        return "no encoder layer that kcost knows"
    if not layer.built:
        return "not built yet: call the model on inputs once"
    if layer.dtype_policy.name != "float32":
        return f"its dtype policy is {layer.dtype_policy.name}, not float32"
    activation = _activation_of(layer.activation)
    if activation is None:
        return "its activation is none of gelu, gelu with tanh, relu"
    try:
        weights = _weights_of(layer)
        attention = layer._self_attention_layer
        spec = BlockSpec(
            width=int(weights["qkv_kernel"].shape[0]),
            heads=int(attention.num_heads),
            head_width=int(attention.key_dim),
            inner=int(weights["up_kernel"].shape[1]),
            activation=activation,
            epsilon=float(layer.layer_norm_epsilon),
            norm_first=bool(layer.normalize_first),
            dropout=float(layer.dropout),
        )
    except AttributeError as error:
        return f"of a version of keras_hub that kcost does not know: {error}"
    block = EncoderBlock(spec, name=layer.name)
    block.trainable = layer.trainable
    block.build()
    for name, value in weights.items():
        block.parts[name].assign(value)
    return block


def _activation_of(function: Any) -> Activation | None:
    """Told by what it computes: functions have many names, and lambdas none."""
    x = np.linspace(-6, 6, 97, dtype=np.float32)
    activated = ops.convert_to_numpy(function(ops.convert_to_tensor(x)))
    for name, known in _ACTIVATIONS.items():
        if np.abs(ops.convert_to_numpy(known(ops.convert_to_tensor(x))) - activated).max() < 1e-5:
            return name
    return None


def _weights_of(layer: Any) -> dict[str, np.ndarray]:
    """A TransformerEncoder's weights in the layout of `EncoderBlock.parts`."""
    attention = layer._self_attention_layer
    projections = [attention.query_dense, attention.key_dense, attention.value_dense]
    width = int(projections[0].kernel.shape[0])
    weights = {
        # (width, heads, head_width) each
        "qkv_kernel": np.concatenate([_array(p.kernel).reshape(width, -1) for p in projections], axis=1),
        "qkv_bias": np.concatenate([_array(p.bias).reshape(-1) for p in projections]),
        # (heads, head_width, width)
        "out_kernel": _array(attention.output_dense.kernel).reshape(-1, width),
        "out_bias": _array(attention.output_dense.bias),
        "up_kernel": _array(layer._feedforward_intermediate_dense.kernel),
        "up_bias": _array(layer._feedforward_intermediate_dense.bias),
        "down_kernel": _array(layer._feedforward_output_dense.kernel),
        "down_bias": _array(layer._feedforward_output_dense.bias),
    }
    for name, attribute in _NORMS.items():
        norm = getattr(layer, attribute)
        weights |= {f"{name}_gamma": _array(norm.gamma), f"{name}_beta": _array(norm.beta)}
    return weights


def _array(value: Any) -> np.ndarray:
    return np.asarray(ops.convert_to_numpy(value))
