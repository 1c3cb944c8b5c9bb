import contextlib
import csv
import io
from pathlib import Path

import pytest
from hypothesis import given, settings, strategies as st

import kcost
from kcost.core.errors import PriceError
from kcost.cost.basis import basis_of
from kcost.cost.price_rules import COLUMNS
from kcost.cost.pricebook import Price, PriceBook
from testing.runs import environment

SOUND = {
    "provider": "aws",
    "instance": "m7i.large",
    "region": "us-east-1",
    "vcpus": "2",
    "memory_gib": "8",
    "accelerator": "",
    "accelerator_count": "0",
    "on_demand_usd_per_hour": "0.1",
    "spot_usd_per_hour": "0.04",
    "source": "a price list",
    "as_of": "2026-01-02",
}
GPU = {**SOUND, "instance": "g6.xlarge", "accelerator": "L4", "accelerator_count": "1", "on_demand_usd_per_hour": "0.8"}
BARE_A100 = {
    **GPU,
    "provider": "gcp",
    "instance": "a2-highgpu-1g",
    "accelerator": "A100-40GB",
    "on_demand_usd_per_hour": "0.74",
}
TPU = {
    **SOUND,
    "provider": "gcp",
    "instance": "tpu-v5p-8",
    "vcpus": "",
    "memory_gib": "",
    "accelerator": "TPU-v5p",
    "accelerator_count": "4",
    "on_demand_usd_per_hour": "16.8",
}
TPU_CHIP = {**TPU, "instance": "tpu-v5p-chip", "accelerator_count": "1", "on_demand_usd_per_hour": "4.2"}


def book(*rows: dict[str, str], columns: tuple[str, ...] = COLUMNS) -> PriceBook:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return PriceBook.parse(text.getvalue().encode(), "a test's book")


def test_the_packages_own_book_is_sound() -> None:
    own = PriceBook.read().checked()
    assert len(own.prices) > 250
    assert {p.provider for p in own.prices} == {"aws", "azure", "gcp", "lambda"}
    assert all(p.source for p in own.prices)
    g6 = own.find("aws", "us-east-1", "g6.2xlarge")
    assert [(p.on_demand_usd_per_hour, str(p.as_of)) for p in g6] == [(0.9776, "2026-07-20")]


def test_rows_of_an_unknown_day_say_so() -> None:
    undated = [p for p in PriceBook.read().prices if p.as_of is None]
    assert undated
    assert all("skypilot" in p.source for p in undated)


def test_sound_rows_have_no_problem() -> None:
    price_book = book(
        SOUND, GPU, TPU, TPU_CHIP, {**SOUND, "provider": "a small host", "spot_usd_per_hour": "", "as_of": ""}
    )
    assert price_book.check() == []
    assert price_book.checked() is price_book
    assert price_book.prices[0] == Price.model_validate({**SOUND, "accelerator": None})


TRAPS = {
    "placeholder": ({**SOUND, "on_demand_usd_per_hour": "700.0"}, "placeholder"),
    "spot above on demand": ({**SOUND, "spot_usd_per_hour": "0.11"}, "spot price is at most"),
    "no source": ({**SOUND, "source": " "}, "names its source"),
    "no provider": ({**SOUND, "provider": ""}, "names its provider"),
    "free": ({**SOUND, "on_demand_usd_per_hour": "0"}, "above 0"),
    "negative price": ({**SOUND, "on_demand_usd_per_hour": "-1"}, "above 0"),
    "negative spot": ({**SOUND, "spot_usd_per_hour": "-0.1"}, "spot_usd_per_hour is a number above 0"),
    "not a number": ({**SOUND, "on_demand_usd_per_hour": "$0.10"}, "on_demand_usd_per_hour is a number"),
    "nan": ({**SOUND, "on_demand_usd_per_hour": "nan"}, "on_demand_usd_per_hour is a number"),
    "infinite": ({**SOUND, "on_demand_usd_per_hour": "1e999"}, "on_demand_usd_per_hour is a number"),
    "decimal comma": ({**SOUND, "on_demand_usd_per_hour": "0,1"}, "on_demand_usd_per_hour is a number"),
    "underscore": ({**SOUND, "on_demand_usd_per_hour": "1_0"}, "on_demand_usd_per_hour is a number"),
    "no price": ({**SOUND, "on_demand_usd_per_hour": ""}, "on_demand_usd_per_hour is a number"),
    "bad day": ({**SOUND, "as_of": "2026-02-30"}, "as_of is a day"),
    "other date format": ({**SOUND, "as_of": "02/01/2026"}, "as_of is a day"),
    "negative count": ({**GPU, "accelerator_count": "-1"}, "accelerator_count is a whole number"),
    "count without accelerator": ({**SOUND, "accelerator_count": "1"}, "are both there"),
    "accelerator without count": ({**GPU, "accelerator_count": "0"}, "are both there"),
    "no vcpus": ({**SOUND, "vcpus": ""}, "vcpus is a whole number"),
    "half a vcpu": ({**SOUND, "vcpus": "0.5"}, "vcpus is a whole number"),
    "no memory": ({**GPU, "memory_gib": ""}, "memory_gib is a number"),
    "Google machine without its GPU": (BARE_A100, "price of an instance includes its accelerator"),
    "TPU counted in cores": ({**TPU, "accelerator_count": "8"}, "the number in a v5p name counts cores"),
    "TPU v5e counted as if in cores": (
        {**TPU, "instance": "tpu-v5e-8", "accelerator": "TPU-v5e", "on_demand_usd_per_hour": "4.8"},
        "the number in a v5e name counts chips",
    ),
    "TPU slice at the price of a chip": ({**TPU, "on_demand_usd_per_hour": "4.2"}, "price of all the chips"),
    "TPU chip at the price of a slice": ({**TPU_CHIP, "on_demand_usd_per_hour": "16.8"}, "price of all the chips"),
    "TPU chip at the price of a core": ({**TPU_CHIP, "on_demand_usd_per_hour": "2.1"}, "price of all the chips"),
    "TPU without a unit": ({**TPU, "instance": "tpu-vm"}, "says what it prices"),
    "TPU as another source names it": ({**TPU_CHIP, "accelerator": "tpu-v5p-8"}, "says what it prices"),
}


@pytest.mark.parametrize(("row", "rule"), TRAPS.values(), ids=TRAPS.keys())
def test_a_trap_is_found_and_named(row: dict[str, str], rule: str) -> None:
    price_book = book({**SOUND, "instance": "sound.one"}, row)
    problems = price_book.check()
    assert [p.row for p in problems] == [3] * len(problems)
    assert any(rule in p.rule for p in problems), problems
    assert all(p.received and p.remedy for p in problems)
    with pytest.raises(PriceError, match="line 3"):
        price_book.checked()


def test_an_accelerator_that_adds_nothing_to_its_twin_is_found() -> None:
    bare = {**SOUND, "provider": "somewhere", "instance": "n1-standard-8", "vcpus": "8", "memory_gib": "30"}
    with_gpu = {**bare, "instance": "n1-standard-8+x", "accelerator": "NewChip", "accelerator_count": "1"}
    (problem,) = book(bare, with_gpu).check()
    assert problem.row == 3
    assert "n1-standard-8, which has the same vCPUs" in problem.received


def test_the_same_key_twice_is_found_with_both_lines() -> None:
    (problem,) = book(SOUND, GPU, {**SOUND, "spot_usd_per_hour": "", "as_of": ""}).check()
    assert (problem.row, problem.received) == (4, "the key of line 2 again")


def test_every_problem_of_a_file_is_reported_at_once() -> None:
    rows = [row for row, _ in TRAPS.values()]
    lines = {p.row for p in book(*rows).check()}
    assert lines == set(range(2, len(rows) + 2))


def test_a_row_with_an_unquoted_comma_is_found() -> None:
    text = ",".join(COLUMNS) + "\n" + ",".join({**SOUND, "source": "a list, of prices"}.values()) + "\n"
    (problem,) = PriceBook.parse(text.encode(), "book").check()
    assert problem.received == "12 cells"


def test_columns_may_stand_in_another_order_and_a_byte_order_mark_may_lead() -> None:
    assert book(SOUND, columns=tuple(reversed(COLUMNS))).prices == book(SOUND).prices
    text = ",".join(COLUMNS) + "\r\n" + ",".join(SOUND.values()) + "\r\n"
    assert PriceBook.parse(b"\xef\xbb\xbf" + text.encode(), "book").prices == book(SOUND).prices


@pytest.mark.parametrize("content", [b"", b"\n\n", b"a,b\n1,2\n", b"\xff\xfe\x00", b'"open', b"a;b"])
def test_a_file_that_is_no_price_book_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "prices.csv"
    path.write_bytes(content)
    with pytest.raises(PriceError, match=r"prices\.csv"):
        PriceBook.read(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PriceError, match="No such file"):
        PriceBook.read(tmp_path / "none.csv")
    with pytest.raises(PriceError, match="Is a directory"):
        PriceBook.read(tmp_path)


def test_find_filters_and_sorts_by_price() -> None:
    in_region = PriceBook.read().find(provider="AWS", region="us-east-1")
    assert {(p.provider, p.region) for p in in_region} == {("aws", "us-east-1")}
    prices = [p.on_demand_usd_per_hour for p in in_region]
    assert prices == sorted(prices)
    assert PriceBook.read().find(instance="no such thing") == ()


@given(st.binary(max_size=300))
def test_any_bytes_give_a_book_or_a_price_error(content: bytes) -> None:
    for text in (content, ",".join(COLUMNS).encode() + b"\n" + content):
        with contextlib.suppress(PriceError):
            PriceBook.parse(text, "bytes").check()


cell = st.one_of(st.text(max_size=12), st.sampled_from(["", "0", "-1", "1e400", "TPU-v9", "tpu-v2-7", "gcp", "700"]))


@settings(max_examples=300)
@given(st.lists(st.fixed_dictionaries(dict.fromkeys(COLUMNS, cell)), max_size=4))
def test_any_cells_give_prices_that_can_be_computed_with_or_problems(rows: list[dict[str, str]]) -> None:
    try:
        price_book = book(*rows)
    except (PriceError, csv.Error):  # csv.Error: the test's own writer cannot write it
        return
    problems = price_book.check()
    assert len(price_book.prices) + len({p.row for p in problems}) >= sum(any(row.values()) for row in rows)
    for price in price_book.prices:
        assert 0 < price.on_demand_usd_per_hour < float("inf")
        assert price.accelerator_count >= 0


@given(
    price=st.floats(1e-3, 600),
    vcpus=st.integers(1, 512),
    memory=st.floats(0.5, 4096),
    spot=st.floats(1e-3, 1),
)
def test_what_is_written_is_what_is_read(price: float, vcpus: int, memory: float, spot: float) -> None:
    row = {**SOUND, "vcpus": str(vcpus), "memory_gib": repr(memory), "on_demand_usd_per_hour": repr(price)}
    read_back = book({**row, "spot_usd_per_hour": repr(price * spot)}).checked().prices[0]
    assert (read_back.vcpus, read_back.memory_gib, read_back.on_demand_usd_per_hour) == (vcpus, memory, price)
    assert read_back.spot_usd_per_hour == price * spot


def machine(*accelerators: str, **changes: object):
    return environment(accelerators=accelerators, **changes)


@pytest.mark.parametrize(
    ("name", "accelerator"),
    [
        ("NVIDIA H100 80GB HBM3, 81559 MiB", "H100"),
        ("NVIDIA H100 NVL, 95830 MiB", "H100-NVL"),
        ("NVIDIA A100-SXM4-40GB, 40960 MiB", "A100-40GB"),
        ("NVIDIA A100 80GB PCIe, 81920 MiB", "A100-80GB"),
        ("Tesla T4, 15360 MiB", "T4"),
        ("Tesla V100-SXM2-16GB, 16160 MiB", "V100"),
        ("NVIDIA L4, 23034 MiB", "L4"),
        ("NVIDIA L40S, 46068 MiB", "L40S"),
        ("NVIDIA A10G, 23028 MiB", "A10G"),
        ("NVIDIA A10, 24564 MiB", "A10"),
        ("NVIDIA H200, 143771 MiB", "H200"),
        ("NVIDIA RTX A6000, 49140 MiB", "RTX-A6000"),
        ("TPU v5 lite", "TPU-v5e"),
        ("TPU v6 lite", "TPU-v6e"),
        ("TPU v4", "TPU-v4"),
    ],
)
def test_closest_takes_the_machines_accelerator(name: str, accelerator: str) -> None:
    match = PriceBook.read().closest(machine(name))
    assert match.price.accelerator == accelerator
    assert match.is_assumption
    assert match.same_machine
    assert name in match.why
    assert match.share == 1 / match.price.accelerator_count


def test_closest_prefers_one_accelerator_and_counts_one_of_many() -> None:
    assert PriceBook.read().closest(machine("NVIDIA H100 80GB HBM3")).price.accelerator_count == 1
    h200 = PriceBook.read().closest(machine("NVIDIA H200"))
    assert (h200.price.accelerator_count, h200.share) == (8, 1 / 8)
    assert "One of its 8 accelerators" in h200.why


def test_an_accelerator_that_no_price_has_is_an_error() -> None:
    with pytest.raises(PriceError, match="GTX 1050"):
        PriceBook.read().closest(machine("NVIDIA GeForce GTX 1050"))
    named = PriceBook.read().closest(machine("NVIDIA GeForce GTX 1050"), instance="m7i.large")
    assert not named.same_machine


@pytest.mark.parametrize(
    ("changes", "provider", "instance"),
    [
        ({}, None, "m7i.large"),  # 2 cores, 8 GiB, AMX
        ({"cores": 8, "memory_bytes": 31 << 30}, "aws", "m7i.2xlarge"),
        ({"cores": 8, "memory_bytes": 31 << 30, "cpu_features": ("avx512f",)}, "aws", "m6i.2xlarge"),
        ({"cores": 8, "memory_bytes": 16 << 30, "machine": "aarch64"}, "aws", "c7g.2xlarge"),
        ({"cores": 8, "memory_bytes": 32 << 30, "cpu_features": ("avx2",)}, "azure", "Standard_D8as_v5"),
        ({"cores": 8, "memory_bytes": 32 << 30}, "gcp", "c3-standard-8"),
    ],
)
def test_closest_without_accelerator_goes_by_size_and_then_generation(changes, provider, instance) -> None:
    match = PriceBook.read().closest(environment(**changes), provider=provider)
    assert match.price.instance == instance
    assert match.why.startswith("Assumed: ")
    assert match.price.accelerator is None


def test_a_named_instance_is_taken_and_told_apart_from_the_machine() -> None:
    match = PriceBook.read().closest(environment(), provider="aws", instance="c7i.xlarge")
    assert (match.price.instance, match.is_assumption, match.same_machine) == ("c7i.xlarge", False, False)
    assert "as asked" in match.why
    assert "2 cores" in match.why
    assert PriceBook.read().closest(environment(), instance="c7i.large").same_machine


@pytest.mark.parametrize(
    ("cpu_model", "features", "provider", "instance", "same_machine", "same_family"),
    [
        ("Intel Xeon", ("avx512f", "amx_bf16"), "aws", "m7i.large", True, True),
        ("Intel Xeon", ("avx512f", "amx_bf16"), "aws", "m7i.xlarge", False, True),
        ("Intel Xeon", ("avx512f",), "aws", "m7i.large", False, False),
        ("Intel Xeon", ("avx512f",), "aws", "c6i.large", True, True),
        ("AMD EPYC", ("avx512f",), "aws", "c6i.large", False, False),
        ("AMD EPYC", ("avx512f",), "aws", "c7a.xlarge", False, True),
        ("a name that tells nothing", ("avx512f",), "aws", "c6i.large", True, True),
        ("Intel Xeon", ("avx512f", "amx_bf16"), "azure", "Standard_D8s_v6", False, True),
        ("AMD EPYC", ("avx512f",), "azure", "Standard_D8s_v6", False, False),
    ],
)
def test_the_same_machine_has_the_same_kind_of_processor(  # as many vCPUs are not enough
    cpu_model: str, features: tuple[str, ...], provider: str, instance: str, same_machine: bool, same_family: bool
) -> None:
    measured = environment(cpu_model=cpu_model, cpu_features=features)
    match = PriceBook.read().closest(measured, provider=provider, instance=instance)
    assert (match.same_machine, match.same_family) == (same_machine, same_family)
    of_budget = basis_of(measured, match.price)
    assert of_budget == ("measured" if same_machine else "scaled" if same_family else "projected")


def test_a_machine_of_ones_own_is_the_one_that_measured_where_its_size_says_so(tmp_path: Path) -> None:
    for vcpus, memory_gib, same in ((2, 8, True), (2, 64, False), (4, 8, False)):
        own = tmp_path / "prices.toml"
        own.write_text(
            f'[[machine]]\nname = "box"\nvcpus = {vcpus}\nmemory_gib = {memory_gib}\npurchase_usd = 1000\n'
            "years = 4\nwatts = 100\nusd_per_kwh = 0.3\nshare_used = 0.5\n"
        )
        match = kcost.prices(own).checked().closest(environment(), provider="own", instance="box")
        assert match.same_machine is same


def test_a_price_that_the_book_does_not_have_is_an_error() -> None:
    with pytest.raises(PriceError, match="mars-north1"):
        PriceBook.read().closest(environment(), provider="aws", region="mars-north1")
    with pytest.raises(PriceError, match="aarch64"):
        PriceBook.read().closest(environment(machine="aarch64"), provider="lambda")
