"""An encoder layer as one Keras layer, so that each backend can run it in the form that it runs fastest.

The operations are those of keras_nlp's TransformerEncoder: attention and feed-forward network, each with a
residual sum and a layer norm (after the sum as in BERT, or before the products as in GPT-2).
"""

from __future__ import annotations

import dataclasses
import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from kcost.backends.block_spec import BALANCED, PRODUCTS, BlockSpec, Compute
from kcost.backends.encoder_block import LEAST, BlockValues, Product, int8_product, run_block
from kcost.core.errors import InputError
from kcost.models.keras_private import mask_of
from kcost.optimize.forms.rounding import LARGEST, SMALLEST, quantized_weights
from kcost.optimize.forms.short_call import FusedLayer

Tensors = Mapping[str, Any]
Ranges = Mapping[str, "float | np.ndarray"]

BALANCE = 0.7
"""How much of the inequality of a stream's places goes into the weights."""

_MASKED = -1e9  # large enough for exp to give 0, small enough that a row with nothing but padding stays finite


@keras.saving.register_keras_serializable(package="kcost")
class EncoderBlock(FusedLayer):
    """An encoder layer of a transformer: inputs (batch, time, width) to outputs of that shape.

    Only compute float32 has trainable variables; `converted` makes the others from it. Inference runs the code of
    the backend in use, where it has some and the machine can run it; otherwise, and while training, the
    operations of keras.ops (`forward`).

    Args:
        spec: a BlockSpec, or its fields as a dict (which is how a .keras file keeps it).
    """

    spec: BlockSpec

    def __init__(self, spec: BlockSpec | dict[str, Any], **kwargs: Any) -> None:
        super().__init__(spec if isinstance(spec, BlockSpec) else BlockSpec(**spec), **kwargs)
        self.supports_masking = True
        trained_dropout = self.spec.compute == "float32" and self.spec.dropout > 0
        self._seed = keras.random.SeedGenerator() if trained_dropout else None
        self._backend, self._reason = _backend_module(self.spec)

    @property
    def fallback_reason(self) -> str | None:
        """Why inference runs the plain implementation on this backend and machine; None where it does not."""
        if self._is_cast:
            return f"the layer's dtype policy is {self.dtype_policy.name}"
        return self._reason

    @property
    def _is_cast(self) -> bool:
        """Whether a dtype policy asks a float32 block for something else."""
        return self.spec.compute == "float32" and self.dtype_policy.name != "float32"

    @property
    def _output_dtype(self) -> str:
        return str(self.compute_dtype) if self.spec.compute == "float32" else self.spec.output_dtype

    def build(self, *shapes: Any) -> None:
        """Makes the variables. Their shapes stand in the spec."""
        trainable = self.spec.compute == "float32"
        for name, (shape, dtype) in self.spec.variables().items():
            initializer = "glorot_uniform" if name.endswith("kernel") and trainable else "zeros"
            if name.endswith(("scale", "gamma")):
                initializer = "ones"
            self.parts[name] = self.add_weight(
                name=name,
                shape=shape,
                initializer=initializer,
                dtype=self.variable_dtype if trainable else dtype,
                trainable=trainable,
                autocast=False,
            )
        self.built = True

    def call(self, inputs: Any, padding_mask: Any = None, attention_mask: Any = None, training: bool = False) -> Any:
        """The block's output.

        Args:
            inputs: (batch, time, width), any float dtype.
            padding_mask: (batch, time), integers or bool, 1 for what is real; Keras's own mask where None.
            attention_mask: (batch, time, time), likewise: which places (last axis) each place may look at.
            training: whether dropout is on.
        """
        if padding_mask is None:
            padding_mask = mask_of(inputs)
        values: Tensors = _Values(self.parts)
        plain = training or attention_mask is not None or self.fallback_reason is not None
        if self._backend is not None and not plain:
            output = self._backend.encoder_block(self.spec, values, inputs, padding_mask)
        else:
            if self._is_cast:
                values = {name: ops.cast(value, self.compute_dtype) for name, value in values.items()}
            dtype = self.compute_dtype if self.spec.compute == "float32" else "float32"
            mask = _scores_mask(padding_mask, attention_mask)
            dropout = self._dropout if training and self._seed is not None else None
            output = forward(self.spec, values, ops.cast(inputs, dtype), mask, dropout).output
        return ops.cast(output, self._output_dtype)

    def packed(self, inputs: Any, padding_mask: Any, packing: Any) -> Any:
        """As `call`, of rows that lie end to end.

        Args:
            inputs: (1, places, width).
            padding_mask: (1, places); None for all.
            packing: a Packing of TensorFlow, which says where each row is.
        """
        assert self._backend is not None
        values = _Values(self.parts)
        return ops.cast(
            self._backend.encoder_block(self.spec, values, inputs, padding_mask, packing), self._output_dtype
        )

    def compute_output_spec(self, inputs: Any, *args: Any, **kwargs: Any) -> keras.KerasTensor:
        """Shape of the inputs, dtype of the spec; known without tracing what backends do inside."""
        return keras.KerasTensor(inputs.shape, dtype=self._output_dtype)

    def run_plainly(self) -> None:
        """Runs the plain implementation from now on, which has gradients."""
        self._backend = None

    def sites(self, inputs: Any, padding_mask: Any = None) -> dict[str, Any]:
        """What goes into the four products, for calibration: `input`, `context`, `attended`, `hidden`, and `output`.

        Computed by the plain implementation; float32, (batch, time, size).
        """
        values = {name: variable.value for name, variable in self.parts.items()}
        return forward(self.spec, values, ops.cast(inputs, "float32"), _scores_mask(padding_mask, None))._asdict()

    def converted(self, compute: Compute, ranges: Ranges | None = None, output_dtype: str = "float32") -> EncoderBlock:
        """A block for inference with this one's weights, of the same name.

        Args:
            compute: what its products are computed in.
            ranges: for int8_static, the largest absolute value at each of the sites `input`, `context`, `attended`
                and `hidden`; larger ones are clipped. For a balanced block, those of `input` and `attended` are
                arrays (width,), of each place of the stream.
            output_dtype: float32 or bfloat16.

        Raises:
            InputError: this block is not float32, or ranges are missing.
        """
        if self.spec.compute != "float32":
            raise InputError("A block is converted from float32.", received=f"{self.name!r}, at {self.spec.compute}")
        fields = dataclasses.asdict(self.spec) | {"compute": compute, "output_dtype": output_dtype}
        if compute != "float32":
            fields["dropout"] = 0.0
        if compute == "int8_static":
            fields["balanced"] = all(np.ndim((ranges or {}).get(PRODUCTS[product], 0.0)) for product in BALANCED)
        made = EncoderBlock(BlockSpec(**fields), name=self.name)
        made.build()
        weights = {n: np.asarray(ops.convert_to_numpy(v.value), np.float32) for n, v in self.parts.items()}
        for name, value in _converted_weights(made.spec, weights, ranges or {}).items():
            made.parts[name].assign(value)
        return made

    def set_ranges(self, ranges: Ranges) -> None:
        """Gives a static int8 block other ranges.

        Those of the sites that are balanced stay: the kernels behind them hold theirs.

        Args:
            ranges: as of `converted`.
        """
        for product, site in PRODUCTS.items():
            if not self.spec.is_balanced(product):
                self.parts[f"{site}_scale"].assign(_step(ranges[site]))

    def _dropout(self, x: Any) -> Any:
        return keras.random.dropout(x, self.spec.dropout, seed=self._seed)


class _Values(Mapping[str, Any]):
    """The values of variables, each read when it is asked for: reading all takes longer than a small product."""

    def __init__(self, variables: Mapping[str, keras.Variable]) -> None:
        self._variables = variables

    def __getitem__(self, name: str) -> Any:
        return self._variables[name].value

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables)

    def __len__(self) -> int:
        return len(self._variables)


def forward(
    spec: BlockSpec, parts: Tensors, x: Any, mask: Any = None, dropout: Callable[[Any], Any] | None = None
) -> BlockValues:
    """A block in operations of keras.ops: runs on every backend and device, and has gradients in float32.

    Integer products are computed on whole numbers kept in float32: exact up to 2**24, and never slower than float32.

    Args:
        spec: of the block.
        parts: its variables' values.
        x: inputs (batch, time, width), float32 (or what the parts are in, where spec.compute is float32).
        mask: broadcastable to (batch, heads, time, time), bool, true where a place may be looked at; None for all.
        dropout: what is done to attention weights and to what is added to the residual stream.

    Returns:
        The output, and what goes into the four products.
    """
    return run_block(spec, _Operations(spec, parts, mask, dropout or (lambda y: y)), x)


class _Operations(NamedTuple):
    spec: BlockSpec
    parts: Tensors
    mask: Any
    dropout: Callable[[Any], Any]

    def product(self, name: str, x: Any, residual: Any = None) -> Any:
        product = Product.of(self.spec, self.parts, name)
        if self.spec.is_int8:
            y = int8_product(product, _WholeNumbers(), x)
        elif self.spec.compute == "bfloat16":
            y = ops.cast(ops.matmul(ops.cast(x, "bfloat16"), product.kernel), "float32") + product.bias
        else:
            y = ops.matmul(x, product.kernel) + product.bias
        return y if residual is None else residual + self.dropout(y)

    def activated(self, x: Any) -> Any:
        x = self.product("up", x)
        if self.spec.activation == "relu":
            return ops.relu(x)
        return ops.gelu(x, approximate=self.spec.activation == "gelu_tanh")

    def attention(self, qkv: Any) -> Any:
        spec, time = self.spec, ops.shape(qkv)[1]
        split = ops.reshape(qkv, (-1, time, 3, spec.heads, spec.head_width))
        query, key, value = ops.unstack(ops.transpose(split, (2, 0, 3, 1, 4)), 3)
        scores = ops.matmul(query * spec.query_scale, ops.transpose(key, (0, 1, 3, 2)))
        if self.mask is not None:
            scores = ops.where(self.mask, scores, ops.cast(_MASKED, scores.dtype))
        context = ops.matmul(self.dropout(ops.softmax(scores)), value)
        return ops.reshape(ops.transpose(context, (0, 2, 1, 3)), (-1, time, spec.projected))

    def norm(self, name: str, x: Any) -> Any:
        mean, variance = ops.moments(x, axes=-1, keepdims=True)
        scaled = (x - mean) * ops.rsqrt(variance + self.spec.epsilon)
        return scaled * self.parts[f"{name}_gamma"] + self.parts[f"{name}_beta"]


class _WholeNumbers:
    """Whole numbers kept in float32."""

    def rounded(self, x: Any) -> Any:
        return ops.clip(ops.round(x), SMALLEST, LARGEST)

    def multiplied(self, whole: Any, kernel: Any) -> Any:
        return ops.matmul(whole, ops.cast(kernel, "float32"))

    def row_steps(self, x: Any) -> Any:
        return ops.maximum(ops.max(ops.abs(x), axis=-1, keepdims=True), LEAST) / LARGEST

    def column_sums(self, kernel: Any) -> Any:
        return ops.sum(ops.cast(kernel, "float32"), axis=0)


def _scores_mask(padding_mask: Any, attention_mask: Any) -> Any:
    mask = None if padding_mask is None else ops.cast(padding_mask, "bool")[:, None, None, :]
    if attention_mask is None:
        return mask
    attention_mask = ops.cast(attention_mask, "bool")[:, None, :, :]
    return attention_mask if mask is None else ops.logical_and(mask, attention_mask)


def _converted_weights(spec: BlockSpec, weights: Mapping[str, np.ndarray], ranges: Ranges) -> dict[str, np.ndarray]:
    """The values of a block's variables at spec.compute, from those at float32."""
    if spec.compute == "int8_static" and (missing := set(PRODUCTS.values()) - set(ranges)):
        raise InputError("int8_static needs the range of each activation.", received=f"none for {sorted(missing)}")
    values = dict(weights)
    if spec.compute != "float32":
        fold = np.where(np.arange(3 * spec.projected) < spec.projected, np.float32(spec.head_width**-0.5), 1)
        values["qkv_kernel"], values["qkv_bias"] = values["qkv_kernel"] * fold, values["qkv_bias"] * fold
    if spec.compute == "int8_static":
        for product, site in PRODUCTS.items():
            if spec.is_balanced(product):
                scale = _balanced_scale(np.asarray(ranges[site], np.float32), values[f"{product}_kernel"])
                values[f"{product}_kernel"] = values[f"{product}_kernel"] * scale[:, None]
            else:
                scale = _step(ranges[site])
            values[f"{site}_scale"] = scale
    if spec.is_int8:
        for name in PRODUCTS:
            kernel, scale = quantized_weights(values[f"{name}_kernel"], (0,))
            values[f"{name}_kernel"], values[f"{name}_scale"] = kernel, scale
    if spec.balanced:
        values["down_sums"] = values["down_kernel"].sum(axis=0, dtype=np.int32).astype(np.float32)
    return values


def _step(largest: float | np.ndarray) -> np.ndarray:
    """One step for all of a site, float32 ()."""
    return np.asarray(max(float(np.max(largest)), LEAST) / LARGEST, np.float32)


def _balanced_scale(largest: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """The scale of each place of a stream, (width,), that leaves neither its values nor its weights much larger.

    Source: Xiao et al. (2023), SmoothQuant, equation 4. On the BTC tagger, a BALANCE of 0.7 or 0.8 gave the smallest
    error of the outputs (0.031 of their norm; 0.035 at the paper's 0.5; 0.048 without).

    Args:
        largest: absolute value at each place, (width,).
        kernel: (width, columns).
    """
    values, weights = np.maximum(largest, 1e-5), np.maximum(np.abs(kernel).max(axis=1), 1e-5)
    balance = values**BALANCE / weights ** (1 - BALANCE)
    return np.asarray(balance * (values / balance).max() / LARGEST, np.float32)


def _backend_module(spec: BlockSpec) -> tuple[ModuleType | None, str | None]:
    """The module that runs blocks on the backend in use, and why it does not run this one."""
    name = f"kcost.backends.kernels.{keras.backend.backend()}_encoder"
    if importlib.util.find_spec(name) is None:
        return None, f"kcost has no encoder block for the {keras.backend.backend()} backend"
    module = importlib.import_module(name)
    return module, module.unavailable(spec)
