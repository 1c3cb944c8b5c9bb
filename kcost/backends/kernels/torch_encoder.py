"""Encoder blocks on PyTorch: oneDNN's integer products on CPU, scaled_dot_product_attention everywhere.

oneDNN takes activations as unsigned bytes around a zero point: with signed ones it has a fast product only on CPUs
with AMX and falls to a reference loop on others (seen with oneDNN 3.12). The integers that are summed are the same.
"""

from __future__ import annotations

import dataclasses
import functools
import platform
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from kcost.backends.block_spec import BlockSpec
from kcost.backends.kernels.bfloat16_products import PROBE, clearly_faster
from kcost.backends.kernels.int8_products import LOWEST, steps_above
from kcost.backends.kernels.torch_constants import prepared, weights_are_constant
from kcost.core.errors import in_a_line

Parts = Mapping[str, Any]

_ZERO_POINT = 128
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
    entered = _norm(spec, parts, "attention_norm", stream) if spec.norm_first else stream
    static = _static(spec, parts) if spec.compute == "int8_static" else None
    qkv = static.qkv(entered) if static else _product(spec, parts, "qkv", entered)
    context = _attention(spec, qkv.view(batch, time, -1), padding_mask).reshape(batch * time, -1)
    middle = static.out(context, residual=stream) if static else _product(spec, parts, "out", context, residual=stream)
    attended = _norm(spec, parts, "output_norm" if spec.norm_first else "attention_norm", middle)
    residual = middle if spec.norm_first else attended
    if static:
        output = static.down(static.up(attended), residual=residual)
    else:
        hidden = _activation(spec, _product(spec, parts, "up", attended))
        output = _product(spec, parts, "down", hidden, residual=residual)
    if not spec.norm_first:
        output = _norm(spec, parts, "output_norm", output)
    return output.view(batch, time, width)


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
    kernel, bias = parts[f"{name}_kernel"], parts[f"{name}_bias"]
    if spec.compute == "float32":
        product = torch.addmm(bias, x, kernel)
    elif spec.compute == "bfloat16":
        dtype = torch.bfloat16 if _multiplies_bfloat16() else torch.float32
        product = functional.linear(x.to(dtype), _transposed(kernel, dtype), bias.to(dtype))
    else:
        x = x.float()
        scale = x.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(127)
        zeros = torch.zeros(kernel.shape[1], dtype=torch.int32)
        operands = (1.0, _ZERO_POINT, _packed(kernel), parts[f"{name}_scale"], zeros)
        whole = _whole(x, scale.reciprocal())
        product = _onednn_product(whole, *operands, None, 1.0, 0, torch.float32, "none", [], "")
        product = torch.addcmul(bias, product, scale)
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
    found: _Static = prepared(
        parts["qkv_kernel"], "static", lambda: _prepare_static(spec, parts), lambda: [parts[name] for name in names]
    )
    return found


def _prepare_static(spec: BlockSpec, parts: Parts) -> _Static:
    def operands(name: str, step: float, zero_point: int) -> tuple[float, int, Any, Any, Any]:
        kernel, scale = parts[f"{name}_kernel"], parts[f"{name}_scale"].detach()
        return step, zero_point, _packed(kernel), scale, torch.zeros(kernel.shape[1], dtype=torch.int32)

    def product(name: str, site: str, *leaving: Any) -> _StaticProduct:
        step = parts[f"{site}_scale"]
        per_step = (1 / step.detach()).expand(parts[f"{name}_kernel"].shape[0]).contiguous()
        entering = operands(name, 1.0 if spec.is_balanced(name) else float(step), _ZERO_POINT)
        return _StaticProduct(per_step, entering, parts[f"{name}_bias"].detach(), *leaving)

    lowest = LOWEST[spec.activation]
    inside = steps_above(lowest, 127 * float(parts["hidden_scale"]))
    zero_point = round(-lowest / inside)
    post, algorithm = _POST[spec.activation]
    attention_dtype = torch.bfloat16 if _multiplies_bfloat16() else torch.float32
    return _Static(
        qkv=product("qkv", "input", (1.0, 0, attention_dtype, "none", [], "")),
        out=product("out", "context"),
        up=product("up", "attended", (inside, zero_point, torch.uint8, post, [], algorithm)),
        down=_StaticProduct(None, operands("down", inside, zero_point), parts["down_bias"].detach()),
    )


def _whole(x: Any, per_step: Any) -> Any:
    """Float32 x as the nearest number of steps, 127 at most, plus the zero point; uint8."""
    if torch.compiler.is_compiling():
        return (torch.round(x * per_step).clamp(-127, 127) + _ZERO_POINT).to(torch.uint8)
    # A cast to uint8 that begins at floats takes three times as long as this one.
    shifted = torch.addcmul(_SHIFT, x, per_step)
    return shifted.clamp_(_WHOLE_ONLY + 1, _WHOLE_ONLY + 255).view(torch.int32).to(torch.uint8)


_WHOLE_ONLY = 1.5 * 2**23
"""Around it float32 numbers lie 1 apart, so that a sum with it is rounded to whole numbers, kept in the lowest bits."""
_SHIFT = torch.tensor(_WHOLE_ONLY + _ZERO_POINT)


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


def _norm(spec: BlockSpec, parts: Parts, name: str, x: Any) -> Any:
    return functional.layer_norm(x, (spec.width,), parts[f"{name}_gamma"], parts[f"{name}_beta"], spec.epsilon)


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
    if torch.cuda.is_available():
        return "PyTorch's integer products with scales run on CPU only"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"oneDNN's integer products were measured on x86 CPUs only, not on {platform.machine()}"
    # Without VNNI, pairs of products are summed in 16 bits and are cut off: these extremes show it.
    kernel, scale = torch.full((64, 16), 127, dtype=torch.int8), torch.ones(16)
    whole = torch.full((16, 64), 255, dtype=torch.uint8)
    try:
        operands = (1.0, _ZERO_POINT, _pack(kernel), scale, torch.zeros(16, dtype=torch.int32))
        found = _onednn_product(whole, *operands, None, 1.0, 0, torch.float32, "none", [], "")
    except (AttributeError, RuntimeError) as error:
        return f"this PyTorch has no oneDNN integer products: {in_a_line(error)}"
    if not bool((found == 64 * 127 * (255 - _ZERO_POINT)).all()):
        return "this CPU has no VNNI: its integer products are cut off at 16 bits"
    return None
