"""What to prune, as a user writes it. Pure data.

    magnitude:SPARSITY[,global][,OPTIONS]     single weights
    N:M[,importance=...]                      N of M weights next to each other stay
    block:HxW:SPARSITY[,pooling=max][,OPTIONS]
    structured:PART=SHARE[,...][,importance=...]    PART is ffn, heads, filters or neurons

OPTIONS are importance=magnitude|taylor, and schedule=constant|polynomial with begin=, end= (shares of all training
steps) and every= (steps).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, model_validator

from kcost.core.errors import InputError
from kcost.core.schema import Record, describe_validation

Importance = Literal["magnitude", "taylor"]
Share = Annotated[float, Field(gt=0, lt=1)]
PARTS = ("ffn", "heads", "filters", "neurons")

_REMEDY = (
    "Write magnitude:0.5, magnitude:0.8,global, magnitude:0.5,schedule=polynomial, 2:4, block:1x4:0.5 or "
    "structured:ffn=0.5,heads=0.33,filters=0.5; importance=taylor may follow."
)


class Scheduled(Record):
    """When masks change while a model is trained."""

    importance: Importance = "magnitude"
    schedule: Literal["constant", "polynomial"] = "constant"
    begin: float = Field(default=0.0, ge=0, lt=1, description="share of all steps before the first mask")
    end: float = Field(default=0.75, gt=0, le=1, description="share of all steps after which masks stay as they are")
    every: int | None = Field(
        default=None, ge=1, description="steps from mask to mask; None: about 50 masks in all, for constant one"
    )

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> Scheduled:
        if self.begin >= self.end:
            raise ValueError(f"begin ({self.begin}) lies before end ({self.end})")
        return self


class MagnitudePruning(Scheduled):
    """Single weights, the least important first, of each kernel or of all kernels together."""

    kind: Literal["magnitude"] = "magnitude"
    sparsity: Share
    scope: Literal["layer", "global"] = "layer"


class PatternPruning(Record):
    """`kept` of each `group` weights that lie next to each other along a kernel's inputs stay."""

    kind: Literal["pattern"] = "pattern"
    kept: int = Field(ge=1)
    group: int = Field(ge=2)
    importance: Importance = "magnitude"

    @model_validator(mode="after")
    def _zeroes_some(self) -> PatternPruning:
        if self.kept >= self.group:
            raise ValueError(f"{self.kept} of {self.group} leaves every weight")
        return self


class BlockPruning(Scheduled):
    """Blocks of `height` inputs by `width` outputs of a kernel seen as a matrix (inputs, outputs)."""

    kind: Literal["block"] = "block"
    height: int = Field(ge=1)
    width: int = Field(ge=1)
    sparsity: Share
    pooling: Literal["avg", "max"] = "avg"


class StructuredPruning(Record):
    """Whole units removed; each share is the part of its units that goes. None leaves that kind as it is."""

    kind: Literal["structured"] = "structured"
    ffn: Share | None = Field(default=None, description="hidden neurons of encoder blocks")
    heads: Share | None = Field(default=None, description="attention heads of encoder blocks")
    filters: Share | None = Field(default=None, description="filters of Conv2D layers")
    neurons: Share | None = Field(default=None, description="neurons of Dense layers that feed others")
    importance: Importance = "magnitude"

    @model_validator(mode="after")
    def _removes_something(self) -> StructuredPruning:
        if all(getattr(self, part) is None for part in PARTS):
            raise ValueError(f"it names at least one of {', '.join(PARTS)}")
        return self


MaskPruning = MagnitudePruning | PatternPruning | BlockPruning
PruneSpec = MaskPruning | StructuredPruning


def parse_prune_spec(text: str) -> PruneSpec:
    """What a text asks to prune.

    Raises:
        InputError: the text is none of the forms above, or a number in it is out of its range.
    """
    head, *options = [part.strip() for part in text.split(",")]
    kind, _, rest = head.partition(":")
    try:
        if kind == "magnitude":
            return MagnitudePruning.model_validate(
                {"sparsity": rest, **_settings(options, MagnitudePruning, text, _scope)}
            )
        if kind == "block":
            size, _, sparsity = rest.partition(":")
            height, _, width = size.partition("x")
            values = {"height": height, "width": width, "sparsity": sparsity}
            return BlockPruning.model_validate({**values, **_settings(options, BlockPruning, text)})
        if kind == "structured":
            return StructuredPruning.model_validate(_settings([rest, *options], StructuredPruning, text))
        if kind.isdecimal():
            return PatternPruning.model_validate(
                {"kept": kind, "group": rest, **_settings(options, PatternPruning, text)}
            )
    except ValidationError as error:
        raise _unknown(f"{text!r}: {describe_validation(error)}") from error
    raise _unknown(repr(text))


def prune_spec_text(spec: PruneSpec) -> str:
    """The shortest text that `parse_prune_spec` reads as this spec."""
    if isinstance(spec, StructuredPruning):
        return f"structured:{','.join(_options(spec, (*PARTS, 'importance')))}"
    if isinstance(spec, PatternPruning):
        return ",".join([f"{spec.kept}:{spec.group}", *_options(spec, ("importance",))])
    schedule = ("importance", "schedule", "begin", "end", "every")
    if isinstance(spec, BlockPruning):
        return ",".join([f"block:{spec.height}x{spec.width}:{spec.sparsity}", *_options(spec, ("pooling", *schedule))])
    scope = ["global"] if spec.scope == "global" else []
    return ",".join([f"magnitude:{spec.sparsity}", *scope, *_options(spec, schedule)])


def _settings(
    options: Iterable[str],
    spec: type[Record],
    text: str,
    word: Callable[[str], dict[str, str]] = lambda _: {},
) -> dict[str, Any]:
    """Options as fields of `spec`; `word` reads those without a value."""
    fixed = {"kind", "sparsity", "scope", "kept", "group", "height", "width"}
    allowed = set(spec.model_fields) - fixed
    settings: dict[str, Any] = {}
    for option in options:
        name, equals, value = option.partition("=")
        read = {name: value} if equals and name in allowed else word(option)
        if not read:
            raise _unknown(f"{option!r} in {text!r}, where only {', '.join(sorted(allowed))} can be set")
        if settings.keys() & read.keys():
            raise _unknown(f"{name!r} twice in {text!r}")
        settings |= read
    return settings


def _scope(option: str) -> dict[str, str]:
    return {"scope": option} if option in ("global", "layer") else {}


def _options(spec: Record, names: Iterable[str]) -> list[str]:
    fields = type(spec).model_fields
    return [f"{n}={getattr(spec, n)}" for n in names if getattr(spec, n) != fields[n].default]


def _unknown(received: str) -> InputError:
    return InputError("Pruning is asked for by kind and amount.", received=received, remedy=_REMEDY)
