"""The file of a cost scenario: what it says, and that each wrong field is named."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import InputError
from kcost.cost.assumptions import ABOUT
from kcost.cost.scenario_file import UNSOURCED, parse_scenario

DOCS = Path(__file__).parents[3] / "docs"

WHOLE = """
p99_ms = 50
[traffic]
qps = 200
[assumptions]
headroom = { value = 0.25, source = "load test of May" }
autoscale = true
[[options]]
name = "int8"
way = "jax/jit int8"
work_hours = 12
[[options]]
name = "elsewhere"
instance = "ours"
usd_per_hour = 0.2
queries_per_s_per_replica = 90
basis = "published"
source = "a vendor's page"
"""


def test_a_whole_scenario() -> None:
    scenario = parse_scenario(WHOLE.encode(), "s.toml")
    assert scenario.assumptions["headroom"].source == "load test of May"
    assert (scenario.assumptions["autoscale"].value, scenario.assumptions["autoscale"].source) == (True, UNSOURCED)
    assert scenario.needs_run
    way, given_ = scenario.options
    assert way.given() is None
    assert way.one_off(8.0).work_hours == 12
    option = given_.given()
    assert option is not None
    assert (option.basis, option.basis_why, option.queries_per_s_at_full_load) == ("published", "a vendor's page", 90)
    assert option.one_off.work_hours == 0


def changed(old: str, new: str) -> str:
    assert old in WHOLE
    return WHOLE.replace(old, new)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "traffic: Field required"),
        ("[traffic", "s.toml: "),
        (changed("qps = 200", "qps = 200\ndaily = [1.0]"), "exactly one of qps, daily, weekly and log"),
        (changed("qps = 200", "qqps = 200"), "traffic.qqps"),
        (changed("headroom =", "head_room ="), "no assumption is called head_room"),
        (changed("usd_per_hour = 0.2", "usd_per_hour = -0.2"), "options.1.usd_per_hour"),
        (changed("usd_per_hour = 0.2\n", ""), "usd_per_hour missing"),
        (changed('"published"', '"guessed"'), "options.1.basis"),
        (changed('way = "jax/jit int8"', 'way = "jax/jit int8"\nusd_per_hour = 1.0'), "not both: usd_per_hour"),
        (changed('"elsewhere"', '"int8"'), "twice: int8"),
        (changed("p99_ms = 50", "p99_ms = 0"), "p99_ms"),
    ],
)
def test_what_is_wrong_is_named(text: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_scenario(text.encode(), "s.toml")
    assert message in str(caught.value)


def test_the_scenarios_of_the_guide_are_right() -> None:
    guide = (DOCS / "cost.md").read_text()
    block = guide[guide.index("    p99_ms = 50\n") : guide.index("`kcost cost run --scenario")]
    scenario = parse_scenario(textwrap.dedent(block).encode(), "cost.md")
    assert [o.name for o in scenario.options] == ["today", "jax", "our server"]
    labels = guide[guide.index("    [options.labelling]") : guide.index("Cost = items x")]
    whole = WHOLE.replace("work_hours = 12", "work_hours = 12\n" + textwrap.dedent(labels))
    assert parse_scenario(whole.encode(), "cost.md").options[0].labelling is not None


def test_the_guide_names_every_assumption() -> None:
    guide = (DOCS / "cost.md").read_text()
    assert [name for name in ABOUT if f"--{name.replace('_', '-')}" not in guide] == []


@given(st.binary(max_size=100))
def test_no_file_ends_in_another_error(content: bytes) -> None:
    with pytest.raises(InputError):
        parse_scenario(content, "any")
