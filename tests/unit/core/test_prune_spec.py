"""What to prune, as a user writes it."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import InputError
from kcost.core.prune_spec import (
    BlockPruning,
    MagnitudePruning,
    PatternPruning,
    PruneSpec,
    StructuredPruning,
    parse_prune_spec,
    prune_spec_text,
)

shares = st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True)
importances = st.sampled_from(["magnitude", "taylor"])


@st.composite
def schedules(draw: st.DrawFn) -> dict[str, object]:
    begin = draw(st.floats(min_value=0, max_value=1, exclude_max=True))
    end = draw(st.floats(min_value=begin, max_value=1, exclude_min=True))
    return {
        "importance": draw(importances),
        "schedule": draw(st.sampled_from(["constant", "polynomial"])),
        "begin": begin,
        "end": end,
        "every": draw(st.none() | st.integers(min_value=1)),
    }


@st.composite
def specs(draw: st.DrawFn) -> PruneSpec:
    kind = draw(st.sampled_from(["magnitude", "pattern", "block", "structured"]))
    if kind == "magnitude":
        scope = draw(st.sampled_from(["layer", "global"]))
        return MagnitudePruning(sparsity=draw(shares), scope=scope, **draw(schedules()))  # type: ignore[arg-type]
    if kind == "pattern":
        group = draw(st.integers(min_value=2, max_value=64))
        kept = draw(st.integers(min_value=1, max_value=group - 1))
        return PatternPruning(kept=kept, group=group, importance=draw(importances))
    if kind == "block":
        sizes = st.integers(min_value=1, max_value=64)
        pooling = draw(st.sampled_from(["avg", "max"]))
        return BlockPruning(
            height=draw(sizes),
            width=draw(sizes),
            sparsity=draw(shares),
            pooling=pooling,
            **draw(schedules()),  # type: ignore[arg-type]
        )
    parts = draw(st.dictionaries(st.sampled_from(["ffn", "heads", "filters", "neurons"]), shares, min_size=1))
    return StructuredPruning(importance=draw(importances), **parts)


@given(specs())
def test_the_text_of_a_spec_reads_as_that_spec(spec: PruneSpec) -> None:
    assert parse_prune_spec(prune_spec_text(spec)) == spec


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("magnitude:0.5", MagnitudePruning(sparsity=0.5)),
        ("magnitude:0.8,global", MagnitudePruning(sparsity=0.8, scope="global")),
        ("magnitude:0.5,schedule=polynomial", MagnitudePruning(sparsity=0.5, schedule="polynomial")),
        ("2:4", PatternPruning(kept=2, group=4)),
        ("block:1x4:0.5", BlockPruning(height=1, width=4, sparsity=0.5)),
        (
            "structured:ffn=0.5, heads=0.33, filters=0.5, importance=taylor",
            StructuredPruning(ffn=0.5, heads=0.33, filters=0.5, importance="taylor"),
        ),
    ],
)
def test_texts_are_read(text: str, spec: PruneSpec) -> None:
    assert parse_prune_spec(text) == spec


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "Received: ''"),
        ("half", "'half'"),
        ("magnitude:1.5", "sparsity"),
        ("magnitude:nan", "sparsity"),
        ("magnitude:", "sparsity"),
        ("magnitude:0.5,heads=0.5", "'heads=0.5'"),
        ("magnitude:0.5,begin=0.9,end=0.2", "begin"),
        ("magnitude:0.5,every=2,every=3", "twice"),
        ("4:4", "leaves every weight"),
        ("2:4,global", "'global'"),
        ("block:4:0.5", "width"),
        ("structured:", "''"),
        ("structured:importance=taylor", "at least one"),
        ("structured:heads=1", "heads"),
    ],
)
def test_a_wrong_text_is_refused_with_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        parse_prune_spec(text)
    assert message in str(error.value)
    assert error.value.remedy is not None
    assert "magnitude:0.5" in error.value.remedy


@given(st.text(max_size=30))
def test_any_text_is_read_or_refused(text: str) -> None:
    with contextlib.suppress(InputError):
        parse_prune_spec(text)
