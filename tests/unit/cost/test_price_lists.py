from datetime import date
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

from kcost.core.errors import PriceError
from kcost.cost.own_prices import parse_own
from kcost.cost.payment import RESTART_H, usd_per_hour
from kcost.cost.price_sources import read_list
from kcost.cost.price_update import book_csv, diff, updated
from kcost.cost.price_warnings import OLD_AFTER_DAYS
from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import _price_notices
from testing.runs import environment

OWN = PriceBook.read().prices
SKYPILOT = """InstanceType,AcceleratorName,AcceleratorCount,vCPUs,MemoryGiB,Price,SpotPrice,Region,AvailabilityZone
c7i.large,,,2.0,4.0,0.095,0.03,us-east-1,us-east-1a
c7i.large,,,2.0,4.0,0.094,0.04,us-east-1,us-east-1b
g6.xlarge,L4,1,4.0,16.0,,0.3,us-east-1,us-east-1a
x9.large,,,2.0,4.0,700.0,,us-east-1,us-east-1a
p9.large,X9,2,2.0,4.0,9,,us-east-1,us-east-1a
,,,,,1,,,
"""
KARPENTER = """// generated at 2026-10-01T13:07:41Z for us-east-1
var InitialOnDemandPricesAWS = map[string]map[string]float64{
	"us-east-1": {
		// c7i family
		"c7i.2xlarge": 0.400000, "c7i.4xlarge": 0.714000, "zz.nano": 0.1,
	},
	"us-west-2": {
		"c7i.2xlarge": 0.357,
	},
}
"""
GOOGLE = """{"us-central1": {
    "onDemand": {"e2-standard-4": 0.14, "a2-highgpu-1g": 1.0},
    "spot": {"e2-standard-4": 0.05}}}"""
TOML = """
[[instance]]
provider = "AWS"
instance = "c7i.2xlarge"
region = "us-east-1"
usd_per_hour = 0.30
spot_usd_per_hour = 0.12
spot_interruptions_per_hour = 0.5
committed_usd_per_hour = 0.21
committed_years = 1
as_of = 2026-11-01

[[machine]]
name = "workstation"
vcpus = 16
memory_gib = 64
accelerator = "RTX-4090"
accelerator_count = 1
purchase_usd = 3200
resale_usd = 400
years = 4
watts = 450
usd_per_kwh = 0.30
share_used = 0.25
"""


def own_book(tmp_path: Path, text: str = TOML) -> PriceBook:
    (tmp_path / "prices.toml").write_text(text)
    return PriceBook.read(tmp_path / "prices.toml")


def test_skypilots_catalogue_gives_the_cheapest_zone_and_says_what_it_left_out() -> None:
    read = read_list(SKYPILOT.encode(), "catalogs/v8/aws/vms.csv", OWN)
    by_name = {p.instance: p for p in read.prices}
    assert (by_name["c7i.large"].on_demand_usd_per_hour, by_name["c7i.large"].spot_usd_per_hour) == (0.094, 0.03)
    assert by_name["c7i.large"].as_of is None
    assert (by_name["p9.large"].accelerator, by_name["p9.large"].accelerator_count) == ("X9", 2)
    assert sum(read.left_out.values()) == 3
    assert "no on-demand price" in read.left_out


def test_karpenters_table_takes_sizes_from_the_book_and_its_day_from_its_head() -> None:
    read = read_list(KARPENTER.encode(), "a.go", OWN)
    assert {(p.instance, p.region, p.on_demand_usd_per_hour) for p in read.prices} == {
        ("c7i.2xlarge", "us-east-1", 0.4),
        ("c7i.4xlarge", "us-east-1", 0.714),
        ("c7i.2xlarge", "us-west-2", 0.357),
    }
    assert {p.as_of for p in read.prices} == {date(2026, 10, 1)}
    assert {p.vcpus for p in read.prices} == {8, 16}
    assert sum(read.left_out.values()) == 1  # zz.nano, which no book knows


def test_googles_machines_without_their_gpu_are_left_out() -> None:
    read = read_list(GOOGLE.encode(), "x.json", OWN, provider="gcp", as_of=date(2026, 10, 2))
    (price,) = read.prices
    assert (price.instance, price.on_demand_usd_per_hour, price.spot_usd_per_hour) == ("e2-standard-4", 0.14, 0.05)
    assert "a machine that the list prices without its accelerator" in read.left_out


def test_an_update_keeps_what_the_list_says_nothing_of_and_is_sound() -> None:
    read = read_list(KARPENTER.encode(), "a.go", OWN)
    merged, unknown = updated(OWN, read.prices, add=False)
    assert (len(merged), unknown) == (len(OWN), 1)
    changes = diff(OWN, merged, ("a", "b"))
    assert [(c.kind, c.price.instance) for c in changes.changes] == [("dearer", "c7i.2xlarge")]
    assert changes.changes[0].growth == pytest.approx(0.4 / 0.357 - 1)
    assert (changes.same, changes.redated) == (len(OWN) - 1, 1)
    again = PriceBook.parse(book_csv(merged), "again")
    assert again.prices == merged
    assert not again.check()
    longer, _ = updated(OWN, read.prices, add=True)
    assert diff(OWN, longer, ("a", "b")).count("new") == 1


@pytest.mark.parametrize(
    ("content", "name", "says"),
    [
        (b"", "aws.csv", "an empty file"),
        (b"a,b\n1,2\n", "aws.csv", "begins 'a,b"),
        (b"\xff\xfe", "aws.csv", "UTF-8"),
        (b"{", "aws.json", "is JSON"),
        (b"{}", "aws.json", "no rows"),
        (SKYPILOT.encode(), "vms.csv", "names none"),
        (SKYPILOT.partition("\n")[0].encode(), "aws/vms.csv", "no rows"),
        (SKYPILOT.replace(",0.095,0.03", ",-1,").replace(",0.094,", ",nan,").replace(",9,", ",,").encode(),
         "aws/vms.csv", "no on-demand price"),
    ],
)  # fmt: skip
def test_a_bad_list_is_one_clear_message(content: bytes, name: str, says: str) -> None:
    with pytest.raises(PriceError, match=says):
        read_list(content, name, OWN)


@given(st.text(max_size=200), st.sampled_from(["", SKYPILOT, KARPENTER, GOOGLE]), st.integers(0, 300))
@settings(max_examples=80)
def test_any_text_is_a_list_or_a_price_error(text: str, around: str, at: int) -> None:
    try:
        read = read_list((around[:at] + text + around[at:]).encode(), "aws.x", OWN)
        assert all(p.on_demand_usd_per_hour > 0 for p in read.prices)
    except PriceError:
        pass


def test_the_users_rows_win_and_a_machine_of_ones_own_has_a_price(tmp_path: Path) -> None:
    book = own_book(tmp_path).checked()
    (mine,) = book.find("aws", "us-east-1", "c7i.2xlarge")
    assert (mine.on_demand_usd_per_hour, mine.vcpus) == (0.30, 8)  # the size is the book's
    (machine,) = book.find("own")
    # (3200 - 400) USD over 4 years of 8766 hours, a quarter of them used, and 0.45 kW at 0.30 USD.
    assert machine.on_demand_usd_per_hour == pytest.approx(2800 / (4 * 8766 * 0.25) + 0.45 * 0.30)
    assert len(book.prices) == len(OWN) + 1


def test_ways_to_pay(tmp_path: Path) -> None:
    book = own_book(tmp_path)
    (mine,) = book.find("aws", "us-east-1", "c7i.2xlarge")
    assert usd_per_hour(mine, "committed") == 0.21
    assert usd_per_hour(mine, "spot") == pytest.approx(0.12 / (1 - 0.5 * RESTART_H))
    match = book.closest(environment(), instance="c7i.2xlarge", region="us-east-1", pay="spot")
    assert match.usd_per_hour == usd_per_hour(mine, "spot")
    assert "0.5 interruptions an hour" in match.why
    with pytest.raises(PriceError, match="committed_usd_per_hour"):
        book.closest(environment(), instance="c7i.large", region="us-east-1", pay="committed")
    with pytest.raises(PriceError, match="between two interruptions"):
        usd_per_hour(mine.model_copy(update={"spot_interruptions_per_hour": 10.0}), "spot")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (("usd_per_hour = 0.30", "usd_per_hour = -1"), r"instance\[1\].usd_per_hour = -1"),
        (("usd_per_hour = 0.30", "usd_per_huor = 1"), "usd_per_h"),
        (("share_used = 0.25", "share_used = 0"), r"machine\[1\].share_used = 0"),
        (("years = 4", "years = inf"), "years"),
        (("resale_usd = 400", "resale_usd = 99999"), "costs something"),
        (("[[machine]]", "[[machine"), "TOML"),
        (('"c7i.2xlarge"', '"new.2xlarge"'), "vcpus and memory_gib"),
        (("[[instance]]", 'book = "none.csv"\n[[instance]]'), "none.csv"),
    ],
)
def test_a_bad_prices_toml_is_one_clear_message(tmp_path: Path, change: tuple[str, str], says: str) -> None:
    with pytest.raises(PriceError, match=says):
        own_book(tmp_path, TOML.replace(*change, 1))


def test_an_empty_prices_toml_changes_nothing() -> None:
    assert parse_own(b"", "x").instance == ()


def test_prices_from_memory_are_told_of_and_not_used() -> None:
    prices = [*OWN[:3], OWN[3].model_copy(update={"source": "vendor page (from memory)"})]
    book = PriceBook.parse(book_csv(prices), "x")
    assert book.prices == tuple(OWN[:3])
    assert any("from memory" in w.rule for w in book.warnings())
    assert not book.check()


def test_old_and_undated_prices_are_said() -> None:
    match = PriceBook.read().closest(environment(), "aws", "us-east-1")
    day = match.price.as_of
    assert day is not None
    young, old = (date.fromordinal(day.toordinal() + OLD_AFTER_DAYS + more) for more in (0, 1))
    codes = {t: [n.code for n in _price_notices({"e": match}, t)] for t in (young, old)}
    assert "price-old" not in codes[young]
    assert "price-old" in codes[old]
    undated = match.model_copy(update={"price": match.price.model_copy(update={"as_of": None})})
    assert "no date" in next(_price_notices({"e": undated}, old)).text


def test_a_committed_price_names_its_years() -> None:
    prices = [OWN[0].model_copy(update={"committed_usd_per_hour": 0.1})]
    (problem,) = PriceBook.parse(book_csv(prices), "x").check()
    assert "names its years" in problem.rule
