"""In which scale a model takes the pixels of images."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from kcost.core.schema import Record

PixelScale = Literal["0-1", "0-255", "mean-std", "as-is"]
"""What a user may name. `as-is`: as the files of the data have them."""


class Pixels(Record):
    """How the pixels of an image in [0, 1] become what a model takes: x * factor + offset."""

    scale: PixelScale
    factor: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    offset: float = Field(default=0.0, allow_inf_nan=False)
    why: str = Field(description="who said so, as the end of a sentence: `as ...`")

    @property
    def range(self) -> tuple[float, float]:
        """What black and white become."""
        return self.offset, self.offset + self.factor

    def __str__(self) -> str:
        what: str = self.scale
        if self.scale == "mean-std":
            mean, std = -self.offset / self.factor, 1 / self.factor
            what = f"mean-std, (x - {mean:.4f}) / {std:.4f} for x in 0 to 1"
        elif self.scale == "as-is":
            what = f"as-is, 0 to {self.factor:g} as the data have them"
        return f"pixels: {what}, {self.why}"


UNIT = Pixels(scale="0-1", why="as kcost reads images")
"""The pixels of every image set as it is loaded."""
