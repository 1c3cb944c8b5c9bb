"""Cheaper versions of the model itself, as candidates: with fewer units, or with Keras's own layers in int8.

A version is made only where a bound says that it can win, and its score is held against the model's on the whole test
split before a step of it is timed.
"""

from __future__ import annotations

from pydantic import Field

from kcost.core.request import QuantizeMode
from kcost.core.schema import VERSIONS, Record
from kcost.core.score_drop import ScoreDrop
from kcost.recommend.drop import DropBound, drop_of


class Variant(Record):
    """A way of making the model cheaper, as `kcost optimize` does it."""

    name: str = Field(description="as candidates are called by")
    slug: str = Field(description="ends the name of the model that is made")
    what: str
    prune: str | None = None
    quantize: QuantizeMode | None = None
    share_kept: float = Field(gt=0, le=1, description="at least this part of the products stays")

    @property
    def is_int8(self) -> bool:
        """Whether its products may run at the peak of int8."""
        return self.quantize is not None


PRUNED_SHARE = 0.5

VARIANTS: tuple[Variant, ...] = (
    Variant(
        name="pruned",
        slug="pruned",
        what="half of the units of convolutions, dense layers and encoder blocks removed, then fine-tuned",
        prune="structured:" + ",".join(f"{part}={PRUNED_SHARE}" for part in ("filters", "neurons", "ffn")),
        share_kept=(1 - PRUNED_SHARE) ** 2,  # both ends of a layer lose their part
    ),
    Variant(
        name="int8 layers", slug="int8", what="Keras's own `model.quantize('int8')`", quantize="keras", share_kept=1
    ),
)
"""What is tried of every model with labelled training data."""


class MadeVariant(Record):
    """`variants/SLUG.json`: a version that was made, and what it lost."""

    schema_: int = Field(default=VERSIONS["variant"], alias="schema")
    variant: str
    of_sha256: str = Field(description="of the file of the model that it was made of")
    model: str = Field(description="its name in the run")
    folder: str = Field(description="the artifact, relative to the folder of the recommendation")
    score: ScoreDrop = Field(description="on the whole test split, against the model that it was made of")
    flops_per_example: float = Field(ge=0, description="of its products; 0 where they are not known")
    weight_bytes: int = Field(ge=0, description="of the weights of its products in float32; 0 where not known")

    @property
    def drop(self) -> DropBound:
        """The drop with its bound."""
        return drop_of(self.score)
