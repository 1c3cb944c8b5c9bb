"""Encoder blocks on PyTorch: oneDNN's integer products on CPU, scaled_dot_product_attention everywhere.

oneDNN takes activations as unsigned bytes around a zero point: with signed ones it has a fast product only on CPUs
with AMX and falls to a reference loop on others (seen with oneDNN 3.12). The integers that are summed are the same.
"""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from torch.utils.weak import WeakIdKeyDictionary

from kcost.backends.bfloat16_products import PROBE, clearly_faster
from kcost.backends.int8_products import LOWEST, steps_above

if TYPE_CHECKING:
    from kcost.optimize.blocks import BlockSpec

Parts = Mapping[str, Any]

_ZERO_POINT = 128
_MASKED = -1e9
_SITES = {"qkv": "input", "out": "context", "up": "attended", "down": "hidden"}
_POST = {"gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "relu": ("relu", "")}

_prepared_kernels: Any = WeakIdKeyDictionary()
"""Kernels -> (version, what was prepared from them); an entry goes when its kernel does."""


def unavailable(spec: BlockSpec) -> str | None:
    """Why blocks of this kind run the plain implementation here; None where they do not."""
    _multiplies_bfloat16()  # found now: what is traced later has no times
    return _without_integer_products() if spec.is_int8 else None


def encoder_block(spec: BlockSpec, parts: Parts, x: Any, padding_mask: Any | None, cache: dict[str, Any]) -> Any:
    """The output of an encoder block, (batch, time, width), float32; compute float32 has gradients.

    Args:
        spec: of the block.
        parts: its variables, as kcost.optimize.blocks lays them out.
        x: (batch, time, width), any float dtype.
        padding_mask: (batch, time), 1 for what is real; None for no padding.
        cache: unused: packed kernels are kept by kernel, so that compiled code finds them too.
    """
    batch, time, width = x.shape
    stream = x.reshape(batch * time, width).float()
    entered = _norm(spec, parts, "attention_norm", stream) if spec.norm_first else stream
    qkv = _product(spec, parts, "qkv", entered)
    context = _attention(spec, qkv.view(batch, time, -1), padding_mask).reshape(batch * time, -1)
    middle = _product(spec, parts, "out", context, residual=stream)
    attended = _norm(spec, parts, "output_norm" if spec.norm_first else "attention_norm", middle)
    residual = middle if spec.norm_first else attended
    if spec.compute == "int8_static":
        output = _static_network(spec, parts, attended, residual)
    else:
        hidden = _activation(spec, _product(spec, parts, "up", attended))
        output = _product(spec, parts, "down", hidden, residual=residual)
    if not spec.norm_first:
        output = _norm(spec, parts, "output_norm", output)
    return output.view(batch, time, width)


def _product(spec: BlockSpec, parts: Parts, name: str, x: Any, residual: Any = None) -> Any:
    """x times the kernel, plus bias and residual; (rows, columns). Float32, or bfloat16 where there is no residual."""
    kernel, bias = parts[f"{name}_kernel"], parts[f"{name}_bias"]
    if spec.compute == "int8_static":
        step = parts[f"{_SITES[name]}_scale"]
        narrow = name == "qkv" and _multiplies_bfloat16()  # attention follows
        whole, left = _whole(x, step), torch.tensor(1.0) if spec.is_balanced(name) else step
        return _integer_product(parts, name, whole, left, bias, residual=residual, narrow=narrow)
    if spec.compute == "float32":
        product = torch.addmm(bias, x, kernel)
    elif spec.compute == "bfloat16":
        dtype = torch.bfloat16 if _multiplies_bfloat16() else torch.float32
        product = functional.linear(x.to(dtype), _transposed(kernel, dtype), bias.to(dtype))
    else:
        x = x.float()
        scale = x.abs().amax(-1, keepdim=True).clamp_(min=1e-12).div_(127)
        # The half makes the cut to whole numbers a rounding.
        whole = torch.addcmul(torch.tensor(_ZERO_POINT + 0.5), x, scale.reciprocal()).to(torch.uint8)
        product = torch.addcmul(bias, _integer_product(parts, name, whole, torch.tensor(1.0), None), scale)
        if name == "qkv" and _multiplies_bfloat16():
            product = product.bfloat16()
    return product if residual is None else product + residual


def _static_network(spec: BlockSpec, parts: Parts, x: Any, residual: Any) -> Any:
    """The feed-forward network whose hidden layer never leaves eight bits."""
    entering, lowest = parts["attended_scale"], LOWEST[spec.activation]
    inside = steps_above(lowest, 127 * parts["hidden_scale"])
    post, algorithm = _POST[spec.activation]
    left = torch.tensor(1.0) if spec.is_balanced("up") else entering
    hidden = _integer_product(
        parts, "up", _whole(x, entering), left, parts["up_bias"],
        post=post, algorithm=algorithm, next_step=inside, next_lowest=lowest,
    )  # fmt: skip
    return _integer_product(parts, "down", hidden, inside, parts["down_bias"], lowest=lowest, residual=residual)


def _whole(x: Any, step: Any) -> Any:
    x = x.float()  # bfloat16 has no halves above 128
    shift = torch.tensor(_ZERO_POINT + 0.5)  # the half makes the cut to whole numbers a rounding
    # Eager code takes one pass over x for it; compiled code can't turn the step into a number.
    if torch.compiler.is_compiling():
        shifted = x * (1 / step) + shift
    elif step.ndim:
        shifted = torch.addcmul(shift, x, step.reciprocal())
    else:
        shifted = torch.add(shift, x, alpha=1 / float(step))
    return shifted.clamp_(1, 255).to(torch.uint8)


def _integer_product(
    parts: Parts,
    name: str,
    whole: Any,
    step: Any,
    bias: Any,
    *,
    lowest: float | None = None,
    residual: Any = None,
    post: str = "none",
    algorithm: str = "",
    next_step: Any = None,
    next_lowest: float | None = None,
    narrow: bool = False,
) -> Any:
    """(whole - zero point) * step times a kernel, plus bias and residual, float32.

    uint8 where `next_step` is given, bfloat16 where `narrow` is true.

    A zero point is 128, or follows from the lowest value and the step.
    """
    # Eager code calls the function itself: going through the dispatcher costs as much as a small product.
    call = torch.ops.kcost.integer_product if torch.compiler.is_compiling() else _onednn_product
    return call(
        whole, parts[f"{name}_kernel"], parts[f"{name}_scale"], bias, step, lowest, residual, post, algorithm,
        next_step, next_lowest, narrow,
    )  # fmt: skip


def _onednn_product(
    whole: Any,
    kernel: Any,
    scale: Any,
    bias: Any,
    step: Any,
    lowest: float | None,
    residual: Any,
    post: str,
    algorithm: str,
    next_step: Any,
    next_lowest: float | None,
    narrow: bool,
) -> Any:
    packed, zeros = _packed(kernel)
    step_size = float(step)
    entering = (whole, step_size, _zero_point(lowest, step_size), packed, scale, zeros)
    if residual is not None:
        return torch.ops.onednn.qlinear_pointwise.binary(
            *entering, residual, bias, 1.0, 0, torch.float32, 1.0, 0, "add", 1.0, "none", [], ""
        )
    if next_step is None:
        leaving: tuple[Any, ...] = (1.0, 0, torch.bfloat16 if narrow else torch.float32)
    else:
        next_size = float(next_step)
        leaving = (next_size, _zero_point(next_lowest, next_size), torch.uint8)
    return torch.ops.onednn.qlinear_pointwise.default(*entering, bias, *leaving, post, [], algorithm)


def _zero_point(lowest: float | None, step: float) -> int:
    return _ZERO_POINT if lowest is None else round(-lowest / step)


# An operator of its own: torch.compile takes oneDNN's only where the packed kernel is a constant of the graph, and a
# constant is baked into the code that is kept on disk. Defined by hand, as `custom_op` adds 15 us to each call.
_LIBRARY = torch.library.Library("kcost", "FRAGMENT")
_LIBRARY.define(
    "integer_product(Tensor whole, Tensor kernel, Tensor scale, Tensor? bias, Tensor step, float? lowest, "
    "Tensor? residual, str post, str algorithm, Tensor? next_step, float? next_lowest, bool narrow) -> Tensor"
)
_LIBRARY.impl("integer_product", _onednn_product, "CPU")


def _shape_of_product(whole: Any, kernel: Any, *others: Any) -> Any:
    next_step, narrow = others[-3], others[-1]
    dtype = torch.uint8 if next_step is not None else torch.bfloat16 if narrow else torch.float32
    return whole.new_empty((whole.shape[0], kernel.shape[1]), dtype=dtype)


torch.library.register_fake("kcost::integer_product", _shape_of_product)


def _packed(kernel: Any) -> tuple[Any, Any]:
    """An int8 kernel in oneDNN's layout, and its zero points."""

    def pack() -> tuple[Any, Any]:
        packed = torch.ops.onednn.qlinear_prepack(kernel.detach().t().contiguous(), None)
        return packed, torch.zeros(kernel.shape[1], dtype=torch.int32)

    found: tuple[Any, Any] = _prepared(kernel, pack)
    return found


def _transposed(kernel: Any, dtype: Any) -> Any:
    """A kernel as (outputs, inputs) in a dtype, laid out so: oneDNN takes up to twice as long for a mere view."""
    if torch.compiler.is_compiling():
        return kernel.t().to(dtype)
    return _prepared(kernel, lambda: kernel.detach().t().to(dtype).contiguous())


def _prepared(kernel: Any, prepare: Callable[[], Any]) -> Any:
    version = 0 if kernel.is_inference() else kernel._version  # counts assignments
    kept = _prepared_kernels.get(kernel)
    if kept is None or kept[0] != version:
        kept = version, prepare()
        _prepared_kernels[kernel] = kept
    return kept[1]


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
    parts = {"k_kernel": torch.full((64, 16), 127, dtype=torch.int8), "k_scale": torch.ones(16)}
    whole = torch.full((16, 64), 255, dtype=torch.uint8)
    try:
        found = _integer_product(parts, "k", whole, torch.tensor(1.0), None)
    except (AttributeError, RuntimeError) as error:
        return f"this PyTorch has no oneDNN integer products: {str(error).splitlines()[0]}"
    if not bool((found == 64 * 127 * (255 - _ZERO_POINT)).all()):
        return "this CPU has no VNNI: its integer products are cut off at 16 bits"
    return None
