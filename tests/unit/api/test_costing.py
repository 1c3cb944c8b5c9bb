"""From a simulated run to a budget, by the API and by the command line; and each bad input by its message."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import kcost
from kcost.bench.store import RunStore
from kcost.cli import app, main
from kcost.core.errors import InputError, KcostError
from kcost.core.plan import Settings
from kcost.core.result import AfterIdle, Watch
from kcost.cost.budget import Budget
from kcost.cost.pricebook import PriceBook
from testing.runs import plan, replaced, simulated_run, write_run
from tests.unit.api.profiled_runs import run_with_profiles

HERE = {"provider": "aws", "region": "us-east-1"}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Plain Keras and ways that are faster, at two batch sizes; all of it simulated."""
    small = plan(
        backends=("tensorflow", "jax"),
        phases=("inference",),
        methods=("predict", "jit"),
        precisions=("float32",),
        settings=Settings(rounds=6),
    )
    return write_run(tmp_path_factory.mktemp("runs") / "run", *simulated_run(small)).path


@pytest.fixture(scope="module")
def budget(run: Path) -> Budget:
    return kcost.estimate_budget(run, qps=3_000, p99_ms=100, **HERE, assumptions={"headroom": 0.1})


def test_a_run_becomes_a_budget(budget: Budget, run: Path) -> None:
    by_name = {p.bill.option.name: p.bill for p in budget.options}
    assert "tensorflow/predict float32" in by_name
    fast, plain = by_name["jax/jit float32"], by_name["tensorflow/predict float32"]
    assert plain.option.is_plain
    assert plain.replicas > fast.replicas
    assert plain.usd_once == 0
    assert fast.usd_once == 800
    # 32 examples in 0.4 + 0.2 * 32 * 0.8 ms of simulated time
    assert fast.option.queries_per_s_at_full_load == pytest.approx(32 / 5.52e-3, rel=0.1)
    assert fast.option.queries_per_s_per_replica < fast.option.queries_per_s_at_full_load
    assert all(b.option.p99_ms is not None and b.option.p99_ms <= 100 for b in by_name.values())
    assert all(b.option.basis in ("measured", "scaled") for b in by_name.values())
    assert budget.simulated
    assert budget.sentence.startswith("[simulated step times")
    assert kcost.estimate_budget(run, qps=3_000, p99_ms=100, **HERE, assumptions={"headroom": 0.1}) == budget


def test_steps_after_idle_time_and_hand_overs_count_and_are_told(run: Path, tmp_path: Path, budget: Budget) -> None:
    """Steps after idle time that are longer than the limit: no rate holds it any more."""
    loaded = kcost.open_run(run)
    cells = [c for c in loaded.cells if (c.spec.method, c.spec.batch) == ("jit", 1)]
    store = RunStore(Path(shutil.copytree(run, tmp_path / "run")))
    for cell in cells:
        settings = {"environment_id": cell.environment_id, "seed": 0, "scenario_s": 3.0, "scenario_max_s": 120.0}
        slow = AfterIdle(**settings, gap_ns=(10**6,) * 40, step_ns=(2 * 10**8,) * 40)
        store.write_cell(cell.model_copy(update={"scenarios": (slow,)}))
    slower = kcost.estimate_budget(store.path, qps=3_000, p99_ms=100, **HERE)
    (note,) = (n for n in slower.notes if "after-idle" in n)
    assert "for jax/jit float32 at batch 1; for the others from steps back to back" in note
    assert not [n for n in budget.notes if "after-idle" in n]
    before, after = (
        {p.bill.option.name: p.bill.option.queries_per_s_per_replica for p in b.options} for b in (budget, slower)
    )
    assert after.get("jax/jit float32", 0.0) < 0.95 * before["jax/jit float32"]
    assert after["tensorflow/predict float32"] == before["tensorflow/predict float32"]
    handed = kcost.estimate_budget(run, qps=3_000, p99_ms=100, **HERE, assumptions={"hand_over_ms": 5.0})
    for priced in handed.options:
        option = priced.bill.option
        assert option.queries_per_s_per_replica < before[option.name]
        assert option.queries_per_s_at_full_load <= 32 / 5e-3


def test_a_better_balancer_is_told_where_it_saves_replicas(run: Path) -> None:
    budget = kcost.estimate_budget(run, qps=20_000, p99_ms=9, **HERE, assumptions={"headroom": 0.0})
    winner = budget.options[0].bill
    (note,) = (n for n in budget.notes if "balancer that always" in n)
    fewest = int(note.split(" of ")[0].split()[-1])
    assert winner.option.queries_per_s_at_full_load * fewest > 20_000, "no replica answers more than it can"
    assert fewest < winner.replicas


def test_the_named_instance_is_taken(run: Path) -> None:
    budget = kcost.estimate_budget(run, qps=3_000, p99_ms=100, instance="m7i.xlarge", **HERE)
    assert {p.bill.option.instance for p in budget.options} == {"aws m7i.xlarge us-east-1"}
    assert {p.bill.option.workers_per_instance for p in budget.options} == {2}
    assert {p.bill.option.basis for p in budget.options} == {"scaled"}


def test_the_map_holds_sizes_that_could_serve_and_what_is_projected(tmp_path: Path) -> None:
    run = run_with_profiles(tmp_path)
    budget = kcost.estimate_budget(run, qps=20, p99_ms=10_000, **HERE, project_to=["T4", "g6.xlarge"])
    hatched = {p.instance for p in budget.instances if p.basis == "projected"}
    assert {"aws g4dn.xlarge us-east-1", "aws g6.xlarge us-east-1"} <= hatched
    assert all(
        p.low_ms is not None and p.low_ms < p.ms_per_prediction for p in budget.instances if p.instance in hatched
    )
    kinds = {(p.instance, p.way) for p in budget.instances}
    assert len(kinds) == len(budget.instances)
    winner = budget.options[0].bill.option
    sizes = {p.instance for p in budget.instances if p.way == winner.name}
    assert winner.instance in sizes
    assert len(sizes) > 3, "larger sizes of the same kind"
    assert not hatched & {p.bill.option.instance for p in budget.options}
    arguments = ["cost", str(run), "--qps", "20", "--p99-ms", "10000", "--to", "T4"]
    arguments += ["--html", str(tmp_path / "b.html"), "--provider", "aws", "--region", "us-east-1"]
    page = CliRunner().invoke(app, arguments)
    assert page.exit_code == 0, page.output
    assert "g4dn.xlarge" in (tmp_path / "b.html").read_text()


def test_only_a_run_is_projected(tmp_path: Path) -> None:
    guide = Path(__file__).parents[3] / "docs" / "scenario.toml"
    with pytest.raises(KcostError, match="--to T4 without a way of a run"):
        kcost.estimate_budget(scenario=guide, project_to=["T4"])


def test_the_region_says_how_clean_the_electricity_is(run: Path) -> None:
    dirty = kcost.estimate_budget(run, qps=3_000, p99_ms=100, instance="m7i.large", **HERE).options[0].bill.carbon
    assert dirty is not None
    assert dirty.kg_co2e_per_month == pytest.approx(dirty.kwh_per_month * 0.415755)
    assert "415.8 g a kWh" in dirty.why or "416 g a kWh" in dirty.why
    assert "United States" in dirty.why


def test_a_log_is_traffic_and_names_nobody(run: Path, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    log.write_text("".join(f"2026-11-29T10:00:{s % 60:02d}Z secret-user-{s}\n" for s in range(60)))
    budget = kcost.estimate_budget(run, log=log, p99_ms=100, **HERE)
    assert budget.traffic.requests == 60
    assert "secret" not in budget.model_dump_json()


def test_a_scenario_names_ways_and_what_they_cost_once(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "s.toml"
    path.write_text(
        'p99_ms = 100\n[traffic]\nqps = 3000\n[serving]\nprovider = "aws"\nregion = "us-east-1"\n'
        '[assumptions]\nheadroom = { value = 0.5, source = "load test" }\n'
        '[[options]]\nname = "today"\nway = "tensorflow/predict float32"\n'
        '[[options]]\nname = "faster"\nway = "jax/jit float32"\nwork_hours = 3\nlabels = 10\nusd_per_label = 0.5\n'
    )
    budget = kcost.estimate_budget(run, scenario=path)
    by_name = {p.bill.option.name: p.bill for p in budget.options}
    assert by_name.keys() == {"today", "faster"}
    assert (by_name["today"].usd_once, by_name["faster"].usd_once) == (0, 305)
    assumed = {a.name: a for a in budget.assumptions}
    assert (assumed["headroom"].value, assumed["headroom"].source) == (0.5, "load test")
    budget_as_asked = kcost.estimate_budget(run, scenario=path, assumptions={"headroom": 0.0})
    assert {a.name: a.source for a in budget_as_asked.assumptions}["headroom"] == "as asked"
    path.write_text(path.read_text().replace("jax/jit float32", "jax/jit int4"))
    with pytest.raises(KcostError, match="'jax/jit int4'"):
        kcost.estimate_budget(run, scenario=path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"qps": -1}, "positive number of requests"),
        ({"qps": None}, "one of --qps"),
        ({"daily": [1.0] * 24}, "2 of them"),
        ({"p99_ms": None}, "limit on the p99"),
        ({"p99_ms": float("inf")}, "positive number of milliseconds"),
        ({"p99_ms": 1e-4}, "the fastest of"),
        ({"qps": 1e12}, "at most 1,000 replicas"),
        ({"region": "mars"}, "mars"),
        ({"instance": "none.such"}, "none.such"),
        ({"models": ["nobody"]}, "nobody: not in the run"),
        ({"assumptions": {"horizon_days": 0}}, "horizon_days"),
        ({"log": "nowhere.log", "qps": None}, "nowhere.log"),
    ],
)
def test_bad_input_is_refused_by_name(run: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(KcostError, match=message) as caught:
        kcost.estimate_budget(run, **{"qps": 100, "p99_ms": 100, **HERE, **changes})
    assert caught.value.exit_code == 2


def test_a_price_book_with_a_wrong_price_is_refused(run: Path, tmp_path: Path) -> None:
    book = tmp_path / "prices.csv"
    header = (
        "provider,instance,region,vcpus,memory_gib,accelerator,accelerator_count,on_demand_usd_per_hour,"
        "spot_usd_per_hour,source,as_of"
    )
    for price in ("-0.1", ""):
        book.write_text(f"{header}\naws,m7i.large,us-east-1,2,8,,0,{price},,made up,2026-01-01\n")
        with pytest.raises(KcostError, match=r"m7i\.large"):
            kcost.estimate_budget(run, qps=100, p99_ms=100, prices_file=book)
    assert isinstance(PriceBook.read(book), PriceBook)


BOOK_HEADER = (
    "provider,instance,region,vcpus,memory_gib,accelerator,accelerator_count,on_demand_usd_per_hour,"
    "spot_usd_per_hour,source,as_of\n"
)


@pytest.mark.parametrize(
    ("arguments", "messages"),
    [
        ("--qps 200 --p99-ms 50 --prices {negative}", ("negative.csv", "-0.1", "above 0")),
        ("--qps 200 --p99-ms 50 --prices {missing}", ("missing.csv", "on_demand_usd_per_hour")),
        ("--qps 200 --p99-ms 50 --region ap-nowhere-9", ("ap-nowhere-9",)),
        ("--qps 200 --p99-ms 50 --provider aws --region eu-west-1 --instance c7a.xlarge", ("c7a.xlarge", "eu-west-1")),
        ("--qps 1e12 --p99-ms 1000", ("at most 1,000 replicas", "--max-replicas")),
        ("--qps 200 --p99-ms 0.0001", ("0.0001 ms", "the fastest of", "--p99-ms")),
        ("--qps 200 --p99-ms 50 --horizon-days 0", ("horizon_days",)),
        ("--p99-ms 50 --log {backwards}", ("backwards.log, line 2", "Sort the log")),
    ],
)
def test_each_bad_input_ends_with_one_message_and_2(
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: str,
    messages: tuple[str, ...],
) -> None:
    """As the program ends: `main` turns an error into its message and its exit code."""
    row = "aws,m7i.large,us-east-1,2,8,,0,{},,made up,2026-01-01\n"
    files = {
        "negative.csv": BOOK_HEADER + row.format("-0.1"),
        "missing.csv": BOOK_HEADER + row.format(""),
        "backwards.log": "2026-11-29T10:00:05Z a\n2026-11-29T10:00:01Z b\n",
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    given = arguments.format(**{Path(name).stem: tmp_path / name for name in files})
    monkeypatch.setattr("sys.argv", ["kcost", "cost", str(run), *given.split()])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.count("error:") == 1
    assert "Traceback" not in said.err
    for message in messages:
        assert message in said.err


def test_spot_needs_a_spot_price(run: Path, tmp_path: Path) -> None:
    book = tmp_path / "prices.csv"
    book.write_text(
        "provider,instance,region,vcpus,memory_gib,accelerator,accelerator_count,on_demand_usd_per_hour,"
        "spot_usd_per_hour,source,as_of\naws,m7i.large,us-east-1,2,8,,0,0.1008,,made up,2026-01-01\n"
    )
    with pytest.raises(KcostError, match=r"spot price"):
        kcost.estimate_budget(run, qps=100, p99_ms=100, prices_file=book, assumptions={"spot_share": 0.5})


def test_the_command_says_the_conclusion_first_on_one_screen(run: Path, budget: Budget, tmp_path: Path) -> None:
    arguments = ["cost", str(run), "--qps", "3000", "--p99-ms", "100", "--headroom", "10%"]
    arguments += ["--provider", "aws", "--region", "us-east-1"]
    outcome = CliRunner().invoke(app, [*arguments, "--xlsx", str(tmp_path / "b.xlsx")])
    assert outcome.exit_code == 0, outcome.output
    lines = outcome.stdout.splitlines()
    assert " ".join(lines[:3]).replace("  ", " ").startswith(budget.sentence[:80])
    assert max(len(line.rstrip()) for line in lines) <= 100
    assert len(lines) <= 40
    assert (tmp_path / "b.xlsx").read_bytes()[:2] == b"PK"
    as_json = CliRunner().invoke(app, [*arguments, "--json"])
    assert Budget.model_validate(json.loads(as_json.stdout)) == budget


def test_options_of_a_budget_want_traffic(run: Path) -> None:
    outcome = CliRunner().invoke(app, ["cost", str(run), "--headroom", "10%"])
    assert outcome.exit_code == 2
    assert "give its traffic too" in outcome.output
    assert CliRunner().invoke(app, ["cost"]).exit_code == 2


BUSY_REASON = "other processes took 50.0% of the machine's CPU time: measure again while nothing else runs"


def test_a_way_that_was_measured_beside_other_work_is_left_out_and_named(tmp_path: Path) -> None:
    measured, outputs = simulated_run(plan(backends=("tensorflow", "jax"), phases=("inference",), batches=(32,)))
    fastest = next(c for c in measured.cells if c.spec.label.startswith("inference jax/jit float32"))
    busy = Watch(wall_s=0.1, worker_cpu_s=0.1, parent_cpu_s=0.0, machine_busy_s=0.2)
    rounds = tuple(replace(r, watch=busy) for r in fastest.rounds)
    disturbed = write_run(tmp_path / "run", replaced(measured, fastest.spec.cell_id, rounds=rounds), outputs).path
    budget = kcost.estimate_budget(disturbed, qps=100, p99_ms=1_000, **HERE)
    assert "jax/jit float32" not in {p.bill.option.name for p in budget.options}
    (left_out,) = (one for one in budget.refused if "jax/jit float32" in one.name)
    assert left_out.reason == f"INVALID: {BUSY_REASON}"


def beside_other_work(folder: Path) -> Path:
    """A run of which every cell was measured while something else took half of the machine."""
    measured, outputs = simulated_run(plan(backends=("tensorflow", "jax"), phases=("inference",), batches=(32,)))
    busy = Watch(wall_s=0.1, worker_cpu_s=0.1, parent_cpu_s=0.0, machine_busy_s=0.2)
    for cell in measured.cells:
        measured = replaced(measured, cell.spec.cell_id, rounds=tuple(replace(r, watch=busy) for r in cell.rounds))
    return write_run(folder / "run", measured, outputs).path


def test_of_a_run_that_was_disturbed_as_a_whole_no_figure_is_told(tmp_path: Path) -> None:
    run = beside_other_work(tmp_path)
    budget = kcost.estimate_budget(run, qps=100, p99_ms=1_000, **HERE)
    assert budget.outcome == "measured beside other work"
    assert budget.sentence.startswith("INVALID: ")
    assert budget.sentence.endswith(f"{BUSY_REASON}.")
    assert (budget.options, budget.probability, budget.basis) == ((), None, None)
    assert len(budget.refused) == len(kcost.open_run(run).cells)
    assert "No figure" not in budget._repr_html_()
    assert "measure again" in budget._repr_html_()
    page = tmp_path / "b.html"
    kcost.write_budget_page(budget, page)
    assert "measure again" in page.read_text()
    assert "<h2>Options</h2>" not in page.read_text()
    with pytest.raises(KcostError, match="calculation of a budget"):
        kcost.write_workbook(budget, tmp_path / "b.xlsx")


def test_the_command_says_to_measure_again_first(tmp_path: Path) -> None:
    arguments = ["cost", str(beside_other_work(tmp_path)), "--qps", "100", "--p99-ms", "1000"]
    outcome = CliRunner().invoke(app, [*arguments, "--provider", "aws", "--region", "us-east-1"])
    assert outcome.exit_code == 0, outcome.output
    assert outcome.stdout.startswith("INVALID: ")
    assert BUSY_REASON in " ".join(outcome.stdout.split())
    assert "a month" not in outcome.stdout
    workbook = CliRunner().invoke(app, [*arguments, "--xlsx", str(tmp_path / "b.xlsx")])
    assert isinstance(workbook.exception, InputError)
    assert not (tmp_path / "b.xlsx").exists()
