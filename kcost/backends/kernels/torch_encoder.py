"""Encoder blocks on PyTorch: oneDNN's integer products on CPU, scaled_dot_product_attention everywhere.

oneDNN takes activations as unsigned bytes around a zero point: with signed ones it has a fast product only on CPUs
with AMX and falls to a reference loop on others (seen with oneDNN 3.12). The integers that are summed are the same.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from kcost.backends.block_spec import BlockSpec
from kcost.backends.encoder_block import LEAST, Product, run_block
from kcost.backends.kernels.bfloat16_products import PROBE, clearly_faster
from kcost.backends.kernels.int8_products import steps_above
from kcost.backends.kernels.torch_constants import prepared, weights_are_constant
from kcost.backends.kernels.torch_integers import ZERO_POINT, inexact, other_machine

Parts = Mapping[str, Any]

_MASKED = -1e9
_POST = {"gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "relu": ("relu", "")}


def unavailable(spec: BlockSpec) -> str | None:
    """Why blocks of this kind run the plain implementation here; None where they do not."""
    _multiplies_bfloat16()  # found now: what is traced later has no times
    return _without_integer_products() if spec.is_int8 else None


def encoder_block(spec: BlockSpec, parts: Parts, x: Any, padding_mask: Any | None) -> Any:
    """The output of an encoder block, (batch, time, width), float32; compute float32 has gradients.

    Args:
        spec: of the block.
        parts: its variables, as kcost.backends.block_spec lays them out.
        x: (batch, time, width), any float dtype.
        padding_mask: (batch, time), 1 for what is real; None for no padding.
    """
    if spec.is_int8 and torch.compiler.is_compiling() and not weights_are_constant():
        sizes = [spec.width, spec.heads, spec.head_width, spec.inner, int(spec.norm_first), int(spec.balanced)]
        ordered = [parts[name] for name in spec.variables()]
        words = [spec.activation, spec.compute]
        return torch.ops.kcost.encoder_block(x, padding_mask, ordered, sizes, spec.epsilon, words)
    return _block(spec, parts, x, padding_mask)


def _block(spec: BlockSpec, parts: Parts, x: Any, padding_mask: Any | None) -> Any:
    batch, time, width = x.shape
    stream = x.reshape(batch * time, width).float()
    static = _static(spec, parts) if spec.compute == "int8_static" else None
    operations = _Operations(spec, parts, static, padding_mask, batch, time)
    return run_block(spec, operations, stream).output.view(batch, time, width)


class _Operations(NamedTuple):
    """Those of rows (batch * time, ...)."""

    spec: BlockSpec
    parts: Parts
    static: _Static | None
    padding_mask: Any | None
    batch: int
    time: int

    def product(self, name: str, x: Any, residual: Any = None) -> Any:
        if self.static is not None:
            return getattr(self.static, name)(x, residual)
        return _product(self.spec, self.parts, name, x, residual)

    def activated(self, x: Any) -> Any:
        if self.static is not None:
            return self.static.up(x)
        return _activation(self.spec, _product(self.spec, self.parts, "up", x))

    def attention(self, qkv: Any) -> Any:
        heads = _attention(self.spec, qkv.view(self.batch, self.time, -1), self.padding_mask)
        return heads.reshape(self.batch * self.time, -1)

    def norm(self, name: str, x: Any) -> Any:
        gamma, beta = self.parts[f"{name}_gamma"], self.parts[f"{name}_beta"]
        return functional.layer_norm(x, (self.spec.width,), gamma, beta, self.spec.epsilon)


# An operator of its own: torch.compile takes oneDNN's products only where the packed kernels are constants.
_LIBRARY = torch.library.Library("kcost", "FRAGMENT")
_LIBRARY.define(
    "encoder_block(Tensor x, Tensor? padding_mask, Tensor[] ordered, int[] sizes, float epsilon, str[] words) -> Tensor"
)
_LIBRARY.define("packed(Tensor kernel) -> Tensor")


def _block_of_fields(
    x: Any, padding_mask: Any | None, ordered: Sequence[Any], sizes: list[int], epsilon: float, words: list[Any]
) -> Any:
    width, heads, head_width, inner, norm_first, balanced = sizes
    spec = BlockSpec(
        *(width, heads, head_width, inner, words[0], epsilon, bool(norm_first)),
        compute=words[1],
        balanced=bool(balanced),
    )
    return _block(spec, dict(zip(spec.variables(), ordered, strict=True)), x, padding_mask)


def _shape_of_block(x: Any, *others: Any) -> Any:
    return x.new_empty(x.shape, dtype=torch.float32)


_LIBRARY.impl("encoder_block", _block_of_fields, "CPU")
torch.library.register_fake("kcost::encoder_block", _shape_of_block)


def _product(spec: BlockSpec, parts: Parts, name: str, x: Any, residual: Any = None) -> Any:
    """x times the kernel, plus bias and residual; (rows, columns). Float32, or bfloat16 where there is no residual."""
    kernel, bias, column_scale, *_ = Product.of(spec, parts, name)
    if spec.compute == "float32":
        product = torch.addmm(bias, x, kernel)
    elif spec.compute == "bfloat16":
        dtype = torch.bfloat16 if _multiplies_bfloat16() else torch.float32
        product = functional.linear(x.to(dtype), _transposed(kernel, dtype), bias.to(dtype))
    else:
        x = x.float()
        steps = x.abs().amax(-1, keepdim=True).clamp_(min=LEAST).div_(127)
        zeros = torch.zeros(kernel.shape[1], dtype=torch.int32)
        operands = (1.0, ZERO_POINT, _packed(kernel), column_scale, zeros)
        whole = _whole(x, steps.reciprocal())
        product = _onednn_product(whole, *operands, None, 1.0, 0, torch.float32, "none", [], "")
        product = torch.addcmul(bias, product, steps)
        if name == "qkv" and _multiplies_bfloat16():
            product = product.bfloat16()
    return product if residual is None else product + residual


@dataclasses.dataclass(frozen=True, slots=True)
class _StaticProduct:
    """A product of int8 numbers whose steps are known, with all that it needs besides its input.

    Calling it multiplies rows (rows, inputs), float or uint8 already where `per_step` is None, and adds the bias and
    a residual, if there is one.
    """

    per_step: Any | None
    """1 / the step of what goes in, (inputs,)."""
    operands: tuple[float, int, Any, Any, Any]
    """Step and zero point of what goes in, and the kernel's operands."""
    bias: Any
    leaving: tuple[float, int, Any, str, list[Any], str] = (1.0, 0, torch.float32, "none", [], "")
    """Step, zero point and dtype of what comes out, and the activation."""

    def __call__(self, x: Any, residual: Any | None = None) -> Any:
        whole = x if self.per_step is None else _whole(x.float(), self.per_step)  # bfloat16 has no halves above 128
        if residual is None:
            return _onednn_product(whole, *self.operands, self.bias, *self.leaving)
        return torch.ops.onednn.qlinear_pointwise.binary(
            whole, *self.operands, residual, self.bias, 1.0, 0, torch.float32, 1.0, 0, "add", 1.0, "none", [], ""
        )


class _Static(NamedTuple):
    """The four products of a static int8 block."""

    qkv: _StaticProduct
    out: _StaticProduct
    up: _StaticProduct
    down: _StaticProduct


def _static(spec: BlockSpec, parts: Parts) -> _Static:
    """What eager code prepares once, and a trace each time: in it, the packed kernels come from an operator."""
    if torch.compiler.is_compiling():
        return _prepare_static(spec, parts)
    names = [name for name in spec.variables() if name.endswith(("kernel", "scale", "bias"))]
    static: _Static = prepared(
        parts["qkv_kernel"], "static", lambda: _prepare_static(spec, parts), lambda: [parts[name] for name in names]
    )
    return static


def _prepare_static(spec: BlockSpec, parts: Parts) -> _Static:
    def operands(product: Product, step: float, zero_point: int) -> tuple[float, int, Any, Any, Any]:
        zeros = torch.zeros(product.kernel.shape[1], dtype=torch.int32)
        return step, zero_point, _packed(product.kernel), product.scale.detach(), zeros

    def rounding(name: str, *leaving: Any) -> _StaticProduct:
        product = Product.of(spec, parts, name)
        per_step = (1 / product.step.detach()).expand(product.kernel.shape[0]).contiguous()
        entering = operands(product, 1.0 if product.balanced else float(product.step), ZERO_POINT)
        return _StaticProduct(per_step, entering, product.bias.detach(), *leaving)

    down = Product.of(spec, parts, "down")
    assert down.lowest is not None  # as of every static block
    inside = steps_above(down.lowest, 127 * float(down.step))
    zero_point = round(-down.lowest / inside)
    post, algorithm = _POST[spec.activation]
    attention_dtype = torch.bfloat16 if _multiplies_bfloat16() else torch.float32
    return _Static(
        qkv=rounding("qkv", (1.0, 0, attention_dtype, "none", [], "")),
        out=rounding("out"),
        up=rounding("up", (inside, zero_point, torch.uint8, post, [], algorithm)),
        down=_StaticProduct(None, operands(down, inside, zero_point), down.bias.detach()),
    )


def _whole(x: Any, per_step: Any) -> Any:
    """Float32 x as the nearest number of steps, -128 to 127, plus the zero point; uint8."""
    if torch.compiler.is_compiling():
        return (torch.round(x * per_step).clamp(-128, 127) + ZERO_POINT).to(torch.uint8)
    # A cast to uint8 that begins at floats takes three times as long as this one.
    shifted = torch.addcmul(_SHIFT, x, per_step)
    return shifted.clamp_(_WHOLE_ONLY, _WHOLE_ONLY + 255).view(torch.int32).to(torch.uint8)


_WHOLE_ONLY = 1.5 * 2**23
"""Around it float32 numbers lie 1 apart, so that a sum with it is rounded to whole numbers, kept in the lowest bits."""
_SHIFT = torch.tensor(_WHOLE_ONLY + ZERO_POINT)


def _onednn_product(whole: Any, *operands: Any) -> Any:
    return torch.ops.onednn.qlinear_pointwise.default(whole, *operands)


def _packed(kernel: Any) -> Any:
    """An int8 kernel in oneDNN's layout; in a trace an operator, as its layout is none that traces know."""
    if torch.compiler.is_compiling():
        return torch.ops.kcost.packed(kernel)
    return prepared(kernel, "packed", lambda: _pack(kernel))


def _pack(kernel: Any) -> Any:
    return torch.ops.onednn.qlinear_prepack(kernel.detach().t().contiguous(), None)


_LIBRARY.impl("packed", _pack, "CPU")
torch.library.register_fake("kcost::packed", lambda kernel: kernel.new_empty(kernel.shape))


def _transposed(kernel: Any, dtype: Any) -> Any:
    """A kernel as (outputs, inputs) in a dtype, laid out so: oneDNN takes up to twice as long for a mere view."""
    if torch.compiler.is_compiling():
        return kernel.t().to(dtype)
    return prepared(kernel, dtype, lambda: kernel.detach().t().to(dtype).contiguous())


def _attention(spec: BlockSpec, qkv: Any, padding_mask: Any | None) -> Any:
    batch, time, _ = qkv.shape
    split = qkv.view(batch, time, 3, spec.heads, spec.head_width).permute(2, 0, 3, 1, 4)
    query, key, value = split.unbind(0)
    mask = None
    if padding_mask is not None:
        # Added rather than boolean: a row with nothing but padding stays finite.
        mask = torch.where(padding_mask.bool(), 0.0, _MASKED).to(qkv.dtype)[:, None, None, :]
    context = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=spec.query_scale)
    return context.transpose(1, 2)


def _activation(spec: BlockSpec, x: Any) -> Any:
    if spec.activation == "relu":
        return torch.relu(x)
    # With eight bits, or bfloat16's, the two forms (5e-4 apart) can't be told apart, and erf takes a third of the time.
    exact = spec.activation == "gelu" or spec.compute != "float32"
    return functional.gelu(x, approximate="none" if exact else "tanh")


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]  # torch is not read by the type checker
def _multiplies_bfloat16() -> bool:
    """Whether bfloat16 products are clearly faster than float32 ones here."""
    return _measured_bfloat16()


@functools.cache
def _measured_bfloat16() -> bool:
    if torch.cuda.is_available():
        return True
    narrow, wide = (torch.ones(PROBE, dtype=dtype) for dtype in (torch.bfloat16, torch.float32))
    return clearly_faster(lambda: narrow @ narrow.t(), lambda: wide @ wide.t())


@functools.cache
def _without_integer_products() -> str | None:
    """Why oneDNN's integer products are not used on this machine, found by trying one."""

    def trial() -> Any:
        kernel, scale = torch.full((64, 16), 127, dtype=torch.int8), torch.ones(16)
        whole = torch.full((16, 64), 255, dtype=torch.uint8)
        operands = (1.0, ZERO_POINT, _pack(kernel), scale, torch.zeros(16, dtype=torch.int32))
        return _onednn_product(whole, *operands, None, 1.0, 0, torch.float32, "none", [], "")

    return other_machine("products") or inexact("products", trial, 64 * 127 * (255 - ZERO_POINT))
