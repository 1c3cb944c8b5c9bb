"""What PyTorch tells of a step: its profiler's operations, and the count of its products as they are dispatched."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

from kcost.backends.base import Subject, arrange
from kcost.backends.profiling.work import LEAST_BYTES, least_bytes
from kcost.core.profile import Operation, Trace, Work, trace_of

TORCH_FLOPS = "torch.utils.flop_counter, run eagerly: matrix products, convolutions and attention alone"


def trace_steps(subject: Subject, steps: int) -> Trace:
    """The operations of a few steps on the CPU, by torch.profiler, which adds them up by name."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        start = time.perf_counter_ns()
        for number in range(steps):
            subject.step(number)
        wall_ns = time.perf_counter_ns() - start
    operations = (
        Operation(name=event.key, calls=event.count, self_ns=max(0, round(event.self_cpu_time_total * 1000)))
        for event in profiled.key_averages()
        if event.count
    )
    return trace_of("torch.profiler", steps, wall_ns, operations)


def count_work(subject: Subject) -> Work:
    """Flops of a step, by running one eagerly; a training step changes the weights as any other does."""
    with FlopCounterMode(display=False, custom_mapping=_more_formulas()) as counter:
        if subject.labels is None:
            device = "cuda" if torch.cuda.is_available() else "cpu"
            tensors = {name: torch.from_numpy(array).to(device) for name, array in subject.batches[0].items()}
            with torch.inference_mode():
                outputs = keras.tree.flatten(subject.model(arrange(subject.model, tensors), training=False))
        else:
            outputs = []  # the loss, one number
            subject.step(0)
    return Work(
        flops=int(counter.get_total_flops()),
        flops_source=TORCH_FLOPS,
        bytes=least_bytes(subject.model, subject.batches[0], outputs),
        bytes_source=LEAST_BYTES,
        bytes_are_least=True,
    )


def _more_formulas() -> dict[Any, Callable[..., int]]:
    """Formulas for products of the CPU that torch's own counter leaves out."""
    aten = torch.ops.aten
    formulas: dict[Any, Callable[..., int]] = {
        aten._scaled_dot_product_flash_attention_for_cpu: _attention,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _attention_backward,
        aten._int_mm: _last_axis_product,
    }
    onednn = getattr(torch.ops.onednn, "qlinear_pointwise", None)
    return formulas if onednn is None else {**formulas, onednn: _last_axis_product}


def _attention(query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return int(sdpa_flop_count(query, key, value))


def _attention_backward(grad: Any, query: Any, key: Any, value: Any, *rest: Any, **named: Any) -> int:
    return int(sdpa_backward_flop_count(grad, query, key, value))


def _last_axis_product(rows: Any, *rest: Any, out_shape: Any = None, **named: Any) -> int:
    """Of rows (..., k) and a matrix with k rows, from the shape of the product."""
    return int(2 * math.prod(out_shape) * rows[-1])


def square_product(size: int, dtype: str) -> Callable[[], None]:
    """A program that multiplies two (size, size) matrices of a dtype and waits for the product."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))

    def run() -> None:
        with torch.inference_mode():
            torch.matmul(a, b)
        _wait()

    return run


def convolution(images: int, side: int, channels: int, dtype: str) -> Callable[[], None]:
    """A program that convolves images of a dtype with windows of 3 x 3 and waits for what comes out."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    shapes = (images, channels, side, side), (channels, channels, 3, 3)
    x, w = (torch.randn(*shape, device=device).to(getattr(torch, dtype)) for shape in shapes)

    def run() -> None:
        with torch.inference_mode():
            torch.nn.functional.conv2d(x, w, padding=1)
        _wait()

    return run


def transfer(elements: int) -> Callable[[], None]:
    """A program that takes float32 numbers of numpy's to the device and back."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    numbers = np.ones(elements, np.float32)

    def run() -> None:
        torch.from_numpy(numbers).to(device, copy=True).to("cpu", copy=True).numpy()

    return run


def sum_in_place(elements: int) -> Callable[[], None]:
    """A program that adds `elements` float32 numbers to as many others where these lie, and waits."""
    held = torch.zeros(elements, device="cuda" if torch.cuda.is_available() else "cpu")
    ones = torch.ones_like(held)

    def run() -> None:
        held.add_(ones)
        _wait()

    return run


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
