"""What an encoder block is, for those who run one: its sizes, its arithmetic, and how its variables are laid out.

How the variables of a block are laid out:

- `qkv_kernel` (width, 3 * heads * head_width): columns in the order (query, key, value), then head, then place in
  the head. While compute is float32 the query part is as trained and scores are multiplied by
  `BlockSpec.query_scale` = 1/sqrt(head_width). In every other compute that factor lies in the query's columns
  and bias, and `query_scale` is 1. (Folding it into weights that are trained would change the size of Adam's steps.)
- `out_kernel` (heads * head_width, width), `up_kernel` (width, inner), `down_kernel` (inner, width); each product has
  a bias: `qkv_bias`, `out_bias`, `up_bias`, `down_bias`.
- `attention_norm_gamma`, `attention_norm_beta`, `output_norm_gamma`, `output_norm_beta` (width,).
- bfloat16: kernels are bfloat16, all else float32.
- int8_dynamic, int8_static: kernels are int8, symmetric per output column, kernel = int8 * `qkv_scale`, `out_scale`,
  `up_scale`, `down_scale` (float32, one number a column).
- int8_static: also `input_scale`, `context_scale`, `attended_scale`, `hidden_scale`, float32 scalars: what goes into
  the first three products is int8 * scale. What goes into the last comes from an activation, whose lowest value is
  known: it is one of 256 numbers from there to 127 * `hidden_scale`.
- int8_static and balanced: `input_scale` and `attended_scale` have a number for each place of the stream, (width,), by
  which the rows of the kernels behind them are multiplied already. A few places of a stream are many times as large
  as the others, and one number for all would leave those few steps. `down_sums` (width,), float32, are the sums of
  `down_kernel`'s columns, which int8 numbers that begin at the lowest value need.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from kcost.core.errors import InputError

Activation = Literal["gelu", "gelu_tanh", "relu"]
Compute = Literal["float32", "bfloat16", "int8_dynamic", "int8_static"]

PRODUCTS = {"qkv": "input", "out": "context", "up": "attended", "down": "hidden"}
"""Each product of a block and the site (the activation) that goes into it."""
BALANCED = ("qkv", "up")
"""The products that read the stream itself."""


@dataclasses.dataclass(frozen=True)
class BlockSpec:
    """Shape and arithmetic of an encoder block.

    Args:
        width: size of the residual stream.
        heads: number of attention heads; heads * head_width need not be `width`.
        head_width: size of a head's queries, keys and values.
        inner: size of the feed-forward network's hidden layer.
        activation: `gelu` (with erf), `gelu_tanh` (its approximation), `relu`.
        epsilon: of both layer norms.
        norm_first: layer norm before the products (GPT-2) instead of after the residual sum (BERT).
        dropout: rate while training; of attention weights, of the attention's and of the network's output.
        compute: what the four products are computed in.
        output_dtype: of what the block gives; ignored for float32, which follows the layer's dtype policy.

    Raises:
        InputError: a size that is not positive, an unknown word.
    """

    width: int
    heads: int
    head_width: int
    inner: int
    activation: Activation = "gelu"
    epsilon: float = 1e-5
    norm_first: bool = False
    dropout: float = 0.0
    compute: Compute = "float32"
    output_dtype: Literal["float32", "bfloat16"] = "float32"
    balanced: bool = False

    def __post_init__(self) -> None:
        sizes = {n: getattr(self, n) for n in ("width", "heads", "head_width", "inner")}
        if any(not isinstance(size, int) or size < 1 for size in sizes.values()):
            raise InputError("The sizes of an encoder block are whole numbers above 0.", received=sizes)
        for name, known in (("activation", get_args(Activation)), ("compute", get_args(Compute))):
            if getattr(self, name) not in known:
                raise InputError(f"An encoder block's {name} is one of {', '.join(known)}.", getattr(self, name))
        if self.output_dtype not in ("float32", "bfloat16"):
            raise InputError("An encoder block gives float32 or bfloat16.", received=self.output_dtype)

    @property
    def projected(self) -> int:
        """Size of all heads together."""
        return self.heads * self.head_width

    @property
    def query_scale(self) -> float:
        """What scores are multiplied by: 1/sqrt(head_width), or 1 where that lies in the query's weights."""
        return float(self.head_width**-0.5) if self.compute == "float32" else 1.0

    @property
    def is_int8(self) -> bool:
        """Whether the products are of integers."""
        return self.compute.startswith("int8")

    def is_balanced(self, product: str) -> bool:
        """Whether the kernel of a product holds the scales of what goes into it."""
        return self.balanced and product in BALANCED

    def variables(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each variable, by name, in the order in which they are made."""
        kernels = {
            "qkv": (self.width, 3 * self.projected),
            "out": (self.projected, self.width),
            "up": (self.width, self.inner),
            "down": (self.inner, self.width),
        }
        kernel_dtype = "int8" if self.is_int8 else self.compute
        variables: dict[str, tuple[tuple[int, ...], str]] = {}
        for name, shape in kernels.items():
            variables[f"{name}_kernel"] = shape, kernel_dtype
            variables[f"{name}_bias"] = shape[1:], "float32"
            if self.is_int8:
                variables[f"{name}_scale"] = shape[1:], "float32"
        for norm in ("attention_norm", "output_norm"):
            variables |= {f"{norm}_{part}": ((self.width,), "float32") for part in ("gamma", "beta")}
        if self.compute == "int8_static":
            for product, site in PRODUCTS.items():
                variables[f"{site}_scale"] = (self.width,) if self.is_balanced(product) else (), "float32"
            if self.balanced:
                variables["down_sums"] = (self.width,), "float32"
        return variables
