"""What an encoder block computes, written once: a backend gives the operations, in the forms that it runs fastest."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

from kcost.backends.block_spec import PRODUCTS, BlockSpec
from kcost.backends.kernels.int8_products import LOWEST, steps_above

LEAST = 1e-12
"""The largest value of a row of zeros is taken for this: any step is right for it, but 0."""


class BlockOperations(Protocol):
    """What a backend computes of a block. Tensors are of its own kind, and lie as it likes."""

    def product(self, name: str, x: Any, residual: Any = None) -> Any:
        """x times a kernel of the block, plus bias, plus the residual where there is one."""
        ...

    def activated(self, x: Any) -> Any:
        """The activation of the product `up`."""
        ...

    def attention(self, qkv: Any) -> Any:
        """The heads' outputs, (..., heads * head_width), from the product `qkv`."""
        ...

    def norm(self, name: str, x: Any) -> Any:
        """A layer norm of the block, over the last axis."""
        ...


class BlockValues(NamedTuple):
    """The output of a block, and what goes into its four products: the sites that static int8 needs the ranges of."""

    input: Any
    context: Any
    attended: Any
    hidden: Any
    output: Any


def run_block(spec: BlockSpec, operations: BlockOperations, x: Any) -> BlockValues:
    """Attention and a feed-forward network, each with a residual sum and a layer norm after it, or before its products.

    Args:
        spec: of the block.
        operations: the backend's.
        x: what goes into the block, in the dtype of its residual sums.
    """
    entered = operations.norm("attention_norm", x) if spec.norm_first else x
    context = operations.attention(operations.product("qkv", entered))
    middle = operations.product("out", context, x)
    if spec.norm_first:
        attended = operations.norm("output_norm", middle)
    else:
        middle = attended = operations.norm("attention_norm", middle)
    hidden = operations.activated(attended)
    output = operations.product("down", hidden, middle)
    if not spec.norm_first:
        output = operations.norm("output_norm", output)
    return BlockValues(entered, context, attended, hidden, output)


class Product(NamedTuple):
    """One of a block's four products: what it multiplies by, and for int8 how what goes in is rounded."""

    kernel: Any
    bias: Any
    scale: Any = None
    """int8: of the kernel's columns."""
    step: Any = None
    """int8_static: of what goes in; a number, or one for each place of the stream where that is balanced."""
    balanced: bool = False
    lowest: float | None = None
    """int8_static: where what goes in comes from an activation, the value of its smallest whole number."""
    sums: Any = None
    """Of the kernel's columns, where they are kept."""

    @classmethod
    def of(cls, spec: BlockSpec, parts: Mapping[str, Any], name: str) -> Product:
        """A product of a block, from its variables as kcost.backends.block_spec lays them out; reads no others."""
        kernel, bias = parts[f"{name}_kernel"], parts[f"{name}_bias"]
        if not spec.is_int8:
            return cls(kernel, bias)
        scale = parts[f"{name}_scale"]
        if spec.compute == "int8_dynamic":
            return cls(kernel, bias, scale)
        step, balanced = parts[f"{PRODUCTS[name]}_scale"], spec.is_balanced(name)
        if name != "down":
            return cls(kernel, bias, scale, step, balanced)
        sums = parts["down_sums"] if spec.balanced else None
        return cls(kernel, bias, scale, step, balanced, LOWEST[spec.activation], sums)


class WholeNumbers(Protocol):
    """What a backend computes of an int8 product."""

    def rounded(self, x: Any) -> Any:
        """The nearest whole numbers, from -128 to 127, as `multiplied` takes them."""
        ...

    def multiplied(self, whole: Any, kernel: Any) -> Any:
        """The exact product of rows of whole numbers and an int8 kernel, float32."""
        ...

    def row_steps(self, x: Any) -> Any:
        """What takes the largest absolute value of each row, at least LEAST, to 127; (..., 1)."""
        ...

    def column_sums(self, kernel: Any) -> Any:
        """Of an int8 kernel, float32."""
        ...


def int8_product(product: Product, numbers: WholeNumbers, x: Any) -> Any:
    """x (..., inputs), float32, times the kernel, by whole numbers, plus bias; float32.

    Numbers around 0 are x = whole * step. Those that an activation gives are x = lowest + (whole + 128) * step: with
    256 numbers from the lowest on, their steps are half as wide.
    """
    kernel, scale, bias = product.kernel, product.scale, product.bias
    if product.lowest is not None:
        step = steps_above(product.lowest, 127 * product.step)
        whole = numbers.rounded((x - product.lowest) * (1 / step) - 128)
        sums = numbers.column_sums(kernel) if product.sums is None else product.sums
        shift = (128 * step + product.lowest) * sums
        return (numbers.multiplied(whole, kernel) * step + shift) * scale + bias
    step = numbers.row_steps(x) if product.step is None else product.step
    whole = numbers.rounded(x * (1 / step))
    left = 1.0 if product.balanced else step  # a balanced kernel holds the steps already
    return numbers.multiplied(whole, kernel) * (left * scale) + bias
