"""What a chain of convolutions is, for those who run one: its stages, its arithmetic, how its variables are laid out.

A stage is a convolution with its bias, a batch normalisation folded into both, ReLU, and max-pooling. How the variables
of the stage with number i are laid out:

- `kernel_i` (height, width, channels, filters): float32, bfloat16, or int8 with one scale a filter, symmetric:
  kernel = int8 * `kernel_scale_i` (filters,).
- `bias_i` (filters,), float32.
- int8_static: `input_scale_i`, a float32 scalar. What enters the first stage is int8 * scale, -127 to 127; what enters
  the others comes from a ReLU and is uint8 * scale, 0 to 255.
"""

from __future__ import annotations

import dataclasses
from typing import Literal, get_args

from kcost.core.errors import InputError

Compute = Literal["float32", "bfloat16", "int8_static"]
Padding = Literal["valid", "same"]
Pair = tuple[int, int]


@dataclasses.dataclass(frozen=True)
class Stage:
    """A convolution and what follows it; channels stand last.

    Args:
        kernel_shape: height, width, channels, filters.
        strides: of the convolution, along height and width.
        padding: of the convolution, as in Keras.
        dilation: of the kernel, along height and width.
        relu: whether ReLU follows.
        pool: height and width of the max-pooling behind it; None for none.
        pool_strides: of the pooling.
        pool_padding: of the pooling, as in Keras.
    """

    kernel_shape: tuple[int, int, int, int]
    strides: Pair = (1, 1)
    padding: Padding = "valid"
    dilation: Pair = (1, 1)
    relu: bool = False
    pool: Pair | None = None
    pool_strides: Pair = (1, 1)
    pool_padding: Padding = "valid"

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):  # a .keras file has lists
            value = getattr(self, field.name)
            if isinstance(value, list):
                object.__setattr__(self, field.name, tuple(value))
        for padding in (self.padding, self.pool_padding):
            if padding not in get_args(Padding):
                raise InputError(f"A stage's padding is one of {', '.join(get_args(Padding))}.", received=repr(padding))

    @property
    def spans(self) -> Pair:
        """Pixels between the first and the last that the kernel meets, along height and width."""
        height, width = ((self.kernel_shape[axis] - 1) * self.dilation[axis] for axis in (0, 1))
        return height, width


@dataclasses.dataclass(frozen=True)
class ChainSpec:
    """Shape and arithmetic of a chain.

    Args:
        stages: at least one; all but the last have a ReLU.
        compute: what the convolutions are computed in; the output is float32.

    Raises:
        InputError: no stage, stages that don't fit one another, an unknown word.
    """

    stages: tuple[Stage, ...]
    compute: Compute = "float32"

    def __post_init__(self) -> None:
        if self.compute not in get_args(Compute):
            raise InputError(f"A chain's compute is one of {', '.join(get_args(Compute))}.", repr(self.compute))
        if not self.stages:
            raise InputError("A chain has at least one stage.", received="none")
        for before, after in zip(self.stages, self.stages[1:], strict=False):
            if not before.relu or before.kernel_shape[3] != after.kernel_shape[2]:
                rule = "A stage of a chain takes the channels that the stage before gives, out of a ReLU."
                raise InputError(rule, received=f"{before}, then {after}")

    @property
    def is_int8(self) -> bool:
        """Whether the products are of integers."""
        return self.compute == "int8_static"

    def variables(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each variable, by name, in the order in which they are made."""
        variables: dict[str, tuple[tuple[int, ...], str]] = {}
        for i, stage in enumerate(self.stages):
            variables[f"kernel_{i}"] = stage.kernel_shape, "int8" if self.is_int8 else self.compute
            variables[f"bias_{i}"] = stage.kernel_shape[3:], "float32"
            if self.is_int8:
                variables[f"kernel_scale_{i}"] = stage.kernel_shape[3:], "float32"
                variables[f"input_scale_{i}"] = (), "float32"
        return variables
