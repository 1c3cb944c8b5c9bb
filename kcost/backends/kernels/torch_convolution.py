"""Convolutions on PyTorch: oneDNN's integer convolutions on CPU, ReLU and rounding to the next layer's int8 fused in.

oneDNN takes activations as unsigned bytes around a zero point (signed ones are refused: PyTorch 2.13). The integers
that are summed are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch.nn import functional

from kcost.backends.chain_spec import ChainSpec, Stage
from kcost.backends.convolution_chain import StageParts, run_chain, same_padding
from kcost.backends.kernels.int8_products import EXACT_TERMS
from kcost.backends.kernels.torch_constants import prepared, weights_are_constant
from kcost.backends.kernels.torch_integers import ZERO_POINT, inexact, other_machine
from kcost.core.cpu_instructions import no_int8_cpu

Pair = tuple[int, int]
Parts = Mapping[str, Any]


def unavailable(spec: ChainSpec) -> str | None:
    """Why chains of this kind run the plain implementation here; None where they do not."""
    return _without_integer_convolutions() if spec.is_int8 else None


def convolution_chain(spec: ChainSpec, parts: Parts, x: Any) -> Any | None:
    """The output of a chain, (batch, height, width, filters), float32; None in an export that others read.

    Args:
        spec: of the chain.
        parts: its variables, as kcost.backends.chain_spec lays them out.
        x: (batch, height, width, channels), any float dtype.
    """
    if torch.compiler.is_exporting() and not weights_are_constant():
        return None
    if not spec.is_int8:
        return _float_chain(spec, parts, x)
    x = x.float()
    names = ("kernel", "kernel_scale", "bias", "input_scale")
    lists = [[parts[f"{name}_{i}"] for i in range(len(spec.stages))] for name in names]
    # Eager code calls the function itself: going through the dispatcher costs time at batch size 1.
    as_operator = torch.compiler.is_compiling() and not weights_are_constant()
    call: Any = torch.ops.kcost.integer_chain if as_operator else _integer_chain
    return call(x, *lists, [number for stage in spec.stages for number in _Geometry.of(stage).flat()])


def int8_convolution(x: Any, kernel: Any, strides: Pair, padding: str, dilation: Pair) -> Any | None:
    """The exact convolution of two int8 tensors, or None where this machine, or the kernel, has no fast one.

    Args:
        x: int8 (batch, height, width, channels).
        kernel: int8 (height, width, channels, filters).
        strides: along height and width.
        padding: valid or same, as in Keras.
        dilation: along height and width.

    Returns:
        int32 (batch, height, width, filters).
    """
    # The sums come as float32, which holds them exactly up to so many terms.
    if kernel[..., 0].numel() > EXACT_TERMS or _without_integer_convolutions() is not None:
        return None
    call = torch.ops.kcost.integer_convolution if torch.compiler.is_compiling() else _integer_convolution
    return call(x, kernel, [*strides, int(padding == "same"), *dilation])


class _Geometry(NamedTuple):
    """A stage without its channels, in numbers: operators take lists of them."""

    strides: Pair
    same: bool
    dilation: Pair
    relu: bool = False
    pool: Pair = (0, 0)
    pool_strides: Pair = (1, 1)
    pool_same: bool = False

    @classmethod
    def of(cls, stage: Stage) -> _Geometry:
        pool = (stage.pool or (0, 0), stage.pool_strides, stage.pool_padding == "same")
        return cls(stage.strides, stage.padding == "same", stage.dilation, stage.relu, *pool)

    def flat(self) -> list[int]:
        return [
            *self.strides, int(self.same), *self.dilation, int(self.relu),
            *self.pool, *self.pool_strides, int(self.pool_same),
        ]  # fmt: skip

    @classmethod
    def parse(cls, flat: Sequence[int]) -> _Geometry:
        a, b, same, c, d, relu, e, f, g, h, pool_same = flat
        return cls((a, b), bool(same), (c, d), bool(relu), (e, f), (g, h), bool(pool_same))


_FIELDS = 11


def _integer_chain(
    x: Any, kernels: Sequence[Any], scales: Sequence[Any], biases: Sequence[Any], steps: Sequence[Any], flat: list[int]
) -> Any:
    sizes = [float(step) for step in steps]
    # One pass over x. The half makes the cut to whole numbers a rounding.
    shifted = torch.add(torch.tensor(ZERO_POINT + 0.5), x.permute(0, 3, 1, 2), alpha=1 / sizes[0])
    x, zero_point = shifted.clamp_(1, 255).to(torch.uint8), ZERO_POINT
    for i, kernel in enumerate(kernels):
        geometry = _Geometry.parse(flat[i * _FIELDS : (i + 1) * _FIELDS])
        leaving = (sizes[i + 1], torch.uint8) if i + 1 < len(kernels) else (1.0, torch.float32)
        x = _onednn(x, sizes[i], zero_point, kernel, scales[i], biases[i], geometry, *leaving)
        x, zero_point = _pooled(x, geometry) if geometry.pool[0] else x, 0
    return x.permute(0, 2, 3, 1)


def _integer_convolution(x: Any, kernel: Any, flat: list[int]) -> Any:
    strides, same, dilation = (flat[0], flat[1]), bool(flat[2]), (flat[3], flat[4])
    whole = torch.bitwise_xor(x.view(torch.uint8), ZERO_POINT).permute(0, 3, 1, 2)
    ones = torch.ones(kernel.shape[3])
    sums = _onednn(whole, 1.0, ZERO_POINT, kernel, ones, None, _Geometry(strides, same, dilation), 1.0, torch.float32)
    return sums.permute(0, 2, 3, 1).int()


# Operators of their own: torch.compile takes oneDNN's only where the packed kernel is a constant of the graph, and a
# constant is baked into the code that is kept on disk.
torch.library.custom_op(
    "kcost::integer_chain",
    _integer_chain,
    mutates_args=(),
    schema="(Tensor x, Tensor[] kernels, Tensor[] scales, Tensor[] biases, Tensor[] steps, int[] flat) -> Tensor",
)
torch.library.custom_op(
    "kcost::integer_convolution",
    _integer_convolution,
    mutates_args=(),
    schema="(Tensor x, Tensor kernel, int[] flat) -> Tensor",
)


def _shape_of_chain(x: Any, kernels: Sequence[Any], scales: Any, biases: Any, steps: Any, flat: list[int]) -> Any:
    height, width = x.shape[1:3]
    for i, kernel in enumerate(kernels):
        geometry = _Geometry.parse(flat[i * _FIELDS : (i + 1) * _FIELDS])
        spans = _spans(kernel.shape[:2], geometry.dilation)
        height, width = _sizes((height, width), spans, geometry.strides, geometry.same)
        if geometry.pool[0]:
            spans = _spans(geometry.pool, (1, 1))
            height, width = _sizes((height, width), spans, geometry.pool_strides, geometry.pool_same)
    return _channels_last(x, (x.shape[0], height, width, kernels[-1].shape[3]), torch.float32)


def _shape_of_convolution(x: Any, kernel: Any, flat: list[int]) -> Any:
    spans = _spans(kernel.shape[:2], (flat[3], flat[4]))
    sizes = _sizes(x.shape[1:3], spans, (flat[0], flat[1]), bool(flat[2]))
    return _channels_last(x, (x.shape[0], *sizes, kernel.shape[3]), torch.int32)


def _channels_last(x: Any, shape: Sequence[Any], dtype: Any) -> Any:
    return x.new_empty(shape, dtype=dtype)


torch.library.register_fake("kcost::integer_chain", _shape_of_chain)
torch.library.register_fake("kcost::integer_convolution", _shape_of_convolution)


def _onednn(
    x: Any,
    step: float,
    zero_point: int,
    kernel: Any,
    scale: Any,
    bias: Any,
    geometry: _Geometry,
    next_step: float,
    dtype: Any,
) -> Any:
    """uint8 images (batch, channels, height, width), channels last in memory, through a convolution."""
    spans = _spans(kernel.shape[:2], geometry.dilation)
    before, after = _padding(x.shape[2:], spans, geometry.strides, geometry.same)
    if before != after:  # oneDNN's operator pads both sides alike
        x = functional.pad(x, (before[1], after[1], before[0], after[0]), value=zero_point)
        before = (0, 0)
    # What is too small to be told apart from channels first lies in memory as both.
    x = x.contiguous(memory_format=torch.channels_last)
    place = (list(geometry.strides), list(before), list(geometry.dilation), 1)
    key = (tuple(x.shape), zero_point)

    def pack(operator: Any) -> Any:
        packed = operator(kernel.detach(), scale, step, zero_point, *place, list(x.shape))
        return packed, torch.zeros(kernel.shape[3], dtype=torch.int32)

    if torch.compiler.is_compiling():
        packed, zeros = pack(torch.ops.kcost.packed_convolution)
    else:
        packed, zeros = prepared(kernel, key, lambda: pack(_packed))
    attribute = "relu" if geometry.relu else "none"
    return torch.ops.onednn.qconv_pointwise(
        x, step, zero_point, packed, scale, zeros, bias, *place, next_step, 0, dtype, attribute, [], ""
    )


def _packed(kernel: Any, *settings: Any) -> Any:
    return torch.ops.onednn.qconv_prepack(kernel.permute(3, 2, 0, 1).contiguous(), *settings)


# An operator for traces, as the layout that it gives is none that these know.
torch.library.custom_op(
    "kcost::packed_convolution",
    _packed,
    mutates_args=(),
    schema="(Tensor kernel, Tensor scale, float step, int zero_point, int[] strides, int[] padding, int[] dilation, "
    "int groups, int[] shape) -> Tensor",
)


def _shape_of_packed(kernel: Any, *settings: Any) -> Any:
    return kernel.new_empty([kernel.shape[i] for i in (3, 2, 0, 1)])


torch.library.register_fake("kcost::packed_convolution", _shape_of_packed)


def _float_chain(spec: ChainSpec, parts: Parts, x: Any) -> Any:
    dtype = getattr(torch, spec.compute)
    x = run_chain(spec.stages, _FloatOperations(spec, parts, dtype), x.permute(0, 3, 1, 2).to(dtype))
    return x.permute(0, 2, 3, 1).float()


class _FloatOperations(NamedTuple):
    """Those of images (batch, channels, height, width)."""

    spec: ChainSpec
    parts: Parts
    dtype: Any

    def convolved(self, number: int, stage: Stage, x: Any) -> Any:
        kernel, bias, *_ = StageParts.of(self.spec, self.parts, number)
        if torch.compiler.is_compiling():
            weight = kernel.permute(3, 2, 0, 1)
        else:
            weight = prepared(kernel, "float", functools.partial(_weight, kernel))
        before, after = _padding(x.shape[2:], stage.spans, stage.strides, stage.padding == "same")
        if before != after:
            x = functional.pad(x, (before[1], after[1], before[0], after[0]))
            before = (0, 0)
        x = functional.conv2d(x, weight, bias.to(self.dtype), stage.strides, before, stage.dilation)
        return functional.relu(x) if stage.relu else x

    def pooled(self, stage: Stage, x: Any) -> Any:
        return _pooled(x, _Geometry.of(stage))


def _weight(kernel: Any) -> Any:
    return kernel.detach().permute(3, 2, 0, 1).contiguous(memory_format=torch.channels_last)


def _pooled(x: Any, geometry: _Geometry) -> Any:
    sizes, strides = geometry.pool, geometry.pool_strides
    before, after = _padding(x.shape[2:], _spans(sizes, (1, 1)), strides, geometry.pool_same)
    if before != after or any(before):
        lowest = 0 if geometry.relu else -torch.inf
        x = functional.pad(x, (before[1], after[1], before[0], after[0]), value=lowest)
    if x.dtype == torch.uint8:  # max_pool2d refuses bytes whose channels lie last
        return torch.ops.quantized.max_pool2d(x, list(sizes), list(strides), [0, 0], [1, 1], False)
    return functional.max_pool2d(x, sizes, strides)


def _spans(sizes: Sequence[int], dilation: Pair) -> Pair:
    return (sizes[0] - 1) * dilation[0], (sizes[1] - 1) * dilation[1]


def _sizes(sizes: Sequence[Any], spans: Pair, strides: Pair, same: bool) -> Pair:
    """Height and width behind a window that moves over images."""
    if same:
        return -(-sizes[0] // strides[0]), -(-sizes[1] // strides[1])
    return (sizes[0] - spans[0] - 1) // strides[0] + 1, (sizes[1] - spans[1] - 1) // strides[1] + 1


def _padding(sizes: Sequence[int], spans: Pair, strides: Pair, same: bool) -> tuple[Pair, Pair]:
    """Rows and columns to put before and after images."""
    if not same:
        return (0, 0), (0, 0)
    rows, columns = (same_padding(*axis) for axis in zip(sizes, spans, strides, strict=True))
    return (rows[0], columns[0]), (rows[1], columns[1])


@functools.cache
def _without_integer_convolutions() -> str | None:
    """Why oneDNN's integer convolutions are not used on this machine, found by trying one."""

    def trial() -> Any:
        whole, kernel = torch.full((1, 3, 3, 64), -128), torch.full((3, 3, 64, 16), 127)
        return _integer_convolution(whole.to(torch.int8), kernel.to(torch.int8), [1, 1, 0, 1, 1])

    return other_machine("convolutions") or no_int8_cpu() or inexact("convolutions", trial, 9 * 64 * 127 * -128)
