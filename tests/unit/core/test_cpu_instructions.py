"""Which products of lower precision oneDNN has, within what the environment holds it to."""

from __future__ import annotations

import pytest

from kcost.core.cpu_instructions import may_multiply_bfloat16, no_int8_within

GENOA = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16")
ALDER_LAKE = ("avx2", "avx_vnni")
OLD = ("avx2",)


@pytest.mark.parametrize(
    ("flags", "limit", "has_int8"),
    [
        *((GENOA, None, True), (ALDER_LAKE, None, True), (OLD, None, False)),
        *((GENOA, "AVX512_CORE", False), (GENOA, "avx2", False), (GENOA, "AVX512_CORE_VNNI", True)),
        *((GENOA, "AVX2_VNNI", False), (ALDER_LAKE, "AVX2_VNNI", True), (ALDER_LAKE, "AVX2", False)),
        *((GENOA, "AVX2_VNNI_2", False), (ALDER_LAKE, "AVX512_CORE_VNNI", False), (ALDER_LAKE, "AVX10_1_512", True)),
        *((GENOA, "DEFAULT", True), (GENOA, "", True), (GENOA, "of another release", True)),
    ],
)
@pytest.mark.parametrize("name", ["ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"])
def test_int8_needs_instructions_that_onednn_may_use(
    flags: tuple[str, ...], limit: str | None, has_int8: bool, name: str
) -> None:
    reason = no_int8_within(flags, {} if limit is None else {name: limit})
    assert (reason is None) == has_int8
    if reason is not None and flags != OLD:
        assert f"{name}={limit}".upper() in reason


def test_the_newer_name_counts_where_both_are_set() -> None:
    both = {"DNNL_MAX_CPU_ISA": "AVX2", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}
    assert no_int8_within(GENOA, both) is None
    assert may_multiply_bfloat16(both)


@pytest.mark.parametrize(
    ("limit", "may"),
    [(None, True), ("AVX2", False), ("avx2_vnni", False), ("AVX2_VNNI_2", False), ("AVX512_CORE", True), ("ALL", True)],
)
def test_bfloat16_products_end_tensorflow_where_onednn_has_none(limit: str | None, may: bool) -> None:
    assert may_multiply_bfloat16({} if limit is None else {"ONEDNN_MAX_CPU_ISA": limit}) == may
