"""What a chain of convolutions computes, written once: a backend gives the operations, in the forms it runs fastest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from kcost.backends.chain_spec import ChainSpec, Stage


class StageParts(NamedTuple):
    """What a stage multiplies by, and for int8 how what enters is rounded."""

    kernel: Any
    bias: Any
    kernel_scale: Any = None
    """int8: of the filters."""
    step: Any = None
    """int8: of what enters."""

    @classmethod
    def of(cls, spec: ChainSpec, parts: Mapping[str, Any], number: int) -> StageParts:
        """Those of a stage, from a chain's variables as kcost.backends.chain_spec lays them out."""
        names = ("kernel", "bias", "kernel_scale", "input_scale") if spec.is_int8 else ("kernel", "bias")
        return cls(*(parts[f"{name}_{number}"] for name in names))


class ChainOperations(Protocol):
    """What a backend computes of a chain. Tensors are of its own kind, and lie as it likes."""

    def convolved(self, number: int, stage: Stage, x: Any) -> Any:
        """The convolution of the stage with that number, with its bias and its ReLU."""
        ...

    def pooled(self, stage: Stage, x: Any) -> Any:
        """The max-pooling of a stage that has one."""
        ...


def run_chain(stages: Sequence[Stage], operations: ChainOperations, x: Any) -> Any:
    """What comes out of stages, one after the other."""
    for number, stage in enumerate(stages):
        x = operations.convolved(number, stage, x)
        if stage.pool is not None:
            x = operations.pooled(stage, x)
    return x


def entering_limits(number: int) -> tuple[int, int]:
    """The smallest and largest whole number that enters a stage.

    The first takes both signs, without -128: TensorFlow's fused convolutions take one scale for both. The others take
    what a ReLU gives.
    """
    return (-127, 127) if number == 0 else (0, 255)


def same_padding(size: Any, span: int, stride: int, largest: Callable[[Any, Any], Any] = max) -> tuple[Any, Any]:
    """Pixels to put before and after an axis of images for padding "same", as Keras does: the odd one goes after.

    Args:
        size: of the axis; a number, or a scalar tensor.
        span: pixels between the first and the last that the kernel meets.
        stride: along the axis.
        largest: of two numbers; a backend's own, for tensors.
    """
    total = largest((-(-size // stride) - 1) * stride + span + 1 - size, 0)
    return total // 2, total - total // 2
