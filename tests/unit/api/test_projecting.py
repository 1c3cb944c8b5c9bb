import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import kcost
from kcost.bench.store import RunStore
from kcost.cli import app
from kcost.core.errors import InputError, KcostError
from kcost.core.result import Watch
from kcost.cost.cell_workload import ACTIVATIONS_A_FLOP, kind_of, workload_of
from kcost.cost.placements import Placement, cheaper_above, instance_device
from testing.probed_machines import probe
from testing.quotas import stopped_by_quota
from testing.runs import environment, preparation, replaced, write_run
from tests.unit.api.profiled_runs import GFLOP, keras_file, run_with_profiles

ONE_CORE = """[[instance]]
provider = "aws"
instance = "c7i.medium"
region = "us-east-1"
vcpus = 1
memory_gib = 2
usd_per_hour = 0.045
as_of = 2026-07-01
"""


def test_projections_stand_beside_measurements_with_their_basis(tmp_path: Path) -> None:
    report = kcost.project_run(run_with_profiles(tmp_path), ["g6.xlarge", "T4"], region="us-east-1", batches=[64])
    assert {o.basis for o in report.options} == {"simulated", "projected"}
    projected = [o for o in report.options if o.projection is not None]
    assert {o.price.accelerator for o in projected} == {"L4", "T4"}
    assert all(o.batch == 64 and o.low_ms < o.step_ms < (o.high_ms or 0) for o in projected)
    assert all(o.price.as_of is not None for o in projected)
    usable = [o for o in report.options if o.refused is None]
    assert [o.usd_per_million for o in usable] == sorted(o.usd_per_million for o in usable)
    t4 = next(o for o in projected if o.price.accelerator == "T4")
    assert any("T4" in row and "[" in row for row in t4.published)
    assert t4.usd_per_million == pytest.approx(t4.usd_per_hour / 3600 * t4.step_ms / 1e3 / 64 * 1e6)
    assert "[projected]" in report.sentences[0]


def test_what_was_measured_beside_other_work_is_not_projected(tmp_path: Path) -> None:
    folder = run_with_profiles(tmp_path)
    run = RunStore(folder).load()
    busy = Watch(wall_s=0.1, worker_cpu_s=0.1, parent_cpu_s=0.0, machine_busy_s=0.2)
    one, *others = run.cells
    disturbed = replaced(run, one.spec.cell_id, rounds=tuple(replace(r, watch=busy) for r in one.rounds))
    report = kcost.project_run(write_run(tmp_path / "one", disturbed, {}).path, ["T4"])
    reason = "INVALID: other processes took 50.0% of the machine's CPU time: measure again while nothing else runs"
    assert sum(line.endswith(reason) for line in report.not_projected) == 1
    for other in others:
        rounds = tuple(replace(r, watch=busy) for r in other.rounds)
        disturbed = replaced(disturbed, other.spec.cell_id, rounds=rounds)
    with pytest.raises(InputError, match=r"INVALID: other processes took .* while nothing else runs"):
        kcost.project_run(write_run(tmp_path / "all", disturbed, {}).path, ["T4"])


def run_under_quota(folder: Path, threads: int, periods: int, quota_cores: float = 1.0) -> Path:
    """A run of a container that sees two cores, whose cells had so many threads; without periods none was stopped."""
    run = RunStore(run_with_profiles(folder)).load()
    machine = environment(cores=2, cpu_quota_cores=quota_cores)
    cells = tuple(
        c.model_copy(
            update={
                "environment_id": machine.environment_id,
                "preparation": preparation(c.spec, threads=threads),
            }
        )
        for c in run.cells
    )
    held = run.model_copy(update={"environments": {machine.environment_id: machine}, "cells": cells})
    return write_run(folder / "held", stopped_by_quota(held, periods=periods) if periods else held, {}).path


def test_what_a_quota_stopped_says_what_helps_and_not_that_other_work_did_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a CPU quota of fewer cores than threads .*no more threads than") as caught:
        kcost.project_run(run_under_quota(tmp_path, threads=2, periods=4), ["T4"])
    assert "nothing else" not in str(caught.value)


def test_a_step_with_the_pauses_of_a_quota_in_it_is_not_projected(tmp_path: Path) -> None:
    run = run_under_quota(tmp_path, threads=2, periods=8)
    here, there = probes_of_two_machines(tmp_path, run, 2.0, cpu_model="Another CPU")
    report = kcost.project_run(run, [f"c7i.xlarge={there}"], region="us-east-1", probes=[here])
    assert not [o for o in report.options if o.between is not None]
    assert len([line for line in report.not_projected if "no more threads than the quota has cores" in line]) == len(
        kcost.open_run(run).cells
    )


def test_another_size_of_the_family_does_not_take_over_the_quota_of_the_container_that_measured(
    tmp_path: Path,
) -> None:
    """Steps of one thread in a container with the time of half a core; the instance has one whole core."""
    run = run_under_quota(tmp_path, threads=1, periods=0, quota_cores=0.5)
    here, _ = probes_of_two_machines(tmp_path, run)
    book = tmp_path / "prices.toml"
    book.write_text(ONE_CORE)
    report = kcost.project_run(run, ["c7i.medium"], probes=[here], prices_file=book)
    scaled = [o for o in report.options if o.between is not None]
    assert scaled, report.not_projected
    assert all(o.between is not None and o.between.times_slower == pytest.approx(1, rel=0.05) for o in scaled)


def test_a_misspelt_instance_is_told_what_it_may_have_meant(tmp_path: Path) -> None:
    with pytest.raises(KcostError, match=r"Did you mean 'g6.xlarge'"):
        kcost.project_run(run_with_profiles(tmp_path), ["g6.xlarg"])


def test_small_steps_are_refused_with_what_would_help(tmp_path: Path) -> None:
    report = kcost.project_run(run_with_profiles(tmp_path, 10_000), ["T4"])
    assert all("of models below 0.46" in (o.refused or "") for o in report.options if o.basis == "projected")
    assert "nothing could be projected" in report.sentences[0]


def test_a_run_without_flops_says_how_to_get_them(tmp_path: Path) -> None:
    report = kcost.project_run(run_with_profiles(tmp_path, None), ["T4"])
    assert any("kcost bench --profile" in reason for reason in report.not_projected)


@pytest.mark.parametrize(
    ("to", "options", "says"),
    [
        ([], {}, "names where to"),
        (["g6.xlrge"], {}, "g6.xlrge"),
        (["c7i.large"], {}, "which has none"),
        (["g6.xlarge"], {"precision": "fp7"}, "fp7"),
        (["g6.xlarge"], {"batches": [0]}, "at least one example"),
        (["g6.xlarge"], {"pay": "committed"}, "committed_usd_per_hour"),
    ],
)
def test_bad_requests_are_one_clear_message(tmp_path: Path, to: list[str], options: dict[str, Any], says: str) -> None:
    run = run_with_profiles(tmp_path)
    with pytest.raises(KcostError, match=says) as caught:
        kcost.project_run(run, to, region="us-east-1", **options)
    assert caught.value.exit_code == 2


def test_a_model_that_changed_or_is_gone_is_refused(tmp_path: Path) -> None:
    run = run_with_profiles(tmp_path)
    keras_file(tmp_path / "simulated-cnn.keras", "Dense")
    with pytest.raises(InputError, match="has changed since"):
        kcost.project_run(run, ["T4"])
    (tmp_path / "simulated-cnn.keras").unlink()
    with pytest.raises(InputError, match="Put the file back"):
        kcost.project_run(run, ["T4"])


def test_a_model_without_products_is_not_projected(tmp_path: Path) -> None:
    report = kcost.project_run(run_with_profiles(tmp_path, GFLOP, "Flatten"), ["T4"])
    assert any("layers with products" in reason for reason in report.not_projected)


def test_the_command_prints_the_answer_first_within_a_screen(tmp_path: Path) -> None:
    run = run_with_profiles(tmp_path)
    shown = CliRunner().invoke(app, ["project", str(run), "--to", "g6.xlarge,T4", "--region", "us-east-1"])
    assert shown.exit_code == 0, shown.output
    assert shown.output.startswith("simulated-cnn: simulated, the cheapest is jax/")
    assert "off in the median" in " ".join(shown.output.split())
    as_json = CliRunner().invoke(app, ["project", str(run), "--to", "g6.xlarge", "--region", "us-east-1", "--json"])
    assert json.loads(as_json.output)["options"]
    wrong = CliRunner().invoke(app, ["project", str(run), "--to", "g6.xlarge", "--batches", "x"])
    assert wrong.exit_code == 2


def test_bytes_that_a_compiler_left_out_are_those_of_a_typical_model(tmp_path: Path) -> None:
    run = kcost.open_run(run_with_profiles(tmp_path))
    classes = {"Conv2D": 20, "Dense": 1}
    typical, lean, none = (
        workload_of(run.cells[0], classes, None, activations=counted).activations_per_example
        for counted in (None, 0.3 * ACTIVATIONS_A_FLOP["cnn"] * 4 * GFLOP, 10.0)
    )
    assert none == typical
    assert lean == pytest.approx(0.3 * typical)


def test_kinds_of_models() -> None:
    assert kind_of({"Conv2D": 3, "DepthwiseConv2D": 1}) == "small products"
    assert kind_of({"Conv2D": 3, "Dense": 1}) == "cnn"
    assert kind_of({"Dense": 3, "MultiHeadAttention": 1}) == "encoder"


def test_the_rate_above_which_one_instance_there_is_cheaper(tmp_path: Path) -> None:
    """Here 100 a second cost 1 USD an hour; there 1,000 cost 2.5: the third machine here is needed above 200."""
    report = kcost.project_run(run_with_profiles(tmp_path), ["T4"])
    here = _option(report.options[0], 1.0, 100.0)
    assert cheaper_above(here, _option(report.options[0], 2.5, 1000.0)) == 200.0
    assert cheaper_above(here, _option(report.options[0], 2.5, 150.0)) is None


def _option(like: Placement, usd_per_hour: float, examples_per_s: float) -> Placement:
    return like.model_copy(update={"usd_per_hour": usd_per_hour, "examples_per_s": examples_per_s})


def test_every_accelerator_of_the_book_is_a_device_or_refused() -> None:
    known = refused = 0
    for price in kcost.prices().find():
        if price.accelerator is None:
            continue
        try:
            known += bool(instance_device(price))
        except InputError:
            refused += 1
    assert known > refused


def probes_of_two_machines(folder: Path, run: Path, times: float = 2.0, **there: Any) -> tuple[str, str]:
    """Files with a probe of the run's machine and of one with products that many times as fast."""
    machine = kcost.open_run(run).environments
    own = next(iter(machine.values()))
    here = probe(backend="jax").model_copy(update={"environment": own})
    other = probe(1e11 * times, 2e10 * times, 1e-5 / times, backend="jax", **{"cores": own.cores, **there})
    for name, made in (("here", here), ("there", other)):
        (folder / f"{name}.json").write_text(made.model_dump_json())
    return str(folder / "here.json"), str(folder / "there.json")


def test_a_probed_instance_stands_beside_the_measurement(tmp_path: Path) -> None:
    run = run_with_profiles(tmp_path)
    here, there = probes_of_two_machines(tmp_path, run, 2.0, cpu_model="Another CPU")
    report = kcost.project_run(run, [f"c7i.xlarge={there}", "T4"], region="us-east-1", probes=[here])
    probed = [o for o in report.options if o.between is not None and o.precision == "fp32"]
    measured = {(o.runs_as, o.batch): o for o in report.options if o.was_measured and o.precision == "float32"}
    assert {(o.runs_as, o.batch) for o in probed} == set(measured)
    for option in probed:
        # All parts are twice as fast there, which real steps follow in part: `between_machines.json` says how far.
        ms = measured[option.runs_as, option.batch].step_ms
        assert ms / 2 <= option.step_ms < ms / 1.5
        assert option.low_ms < ms / 2
        assert option.low_ms < option.step_ms < (option.high_ms or 0)
        assert option.usd_per_million == pytest.approx(option.usd_per_hour / 3.6 * option.step_ms / option.batch)
    assert any(o.projection is not None for o in report.options)
    assert report.between_fitted_to
    assert "projected" in probed[0].step_text


def test_another_size_of_the_family_is_scaled_by_the_probe_that_is_at_hand(tmp_path: Path) -> None:
    run = run_with_profiles(tmp_path)
    here, _ = probes_of_two_machines(tmp_path, run)
    book = tmp_path / "prices.toml"
    book.write_text(ONE_CORE)
    report = kcost.project_run(run, ["c7i.medium"], probes=[here], prices_file=book)
    scaled = [o for o in report.options if o.between is not None and o.precision == "fp32"]
    assert scaled, report.not_projected
    measured = {(o.runs_as, o.batch): o for o in report.options if o.was_measured and o.precision == "float32"}
    for option in scaled:
        times = option.step_ms / measured[option.runs_as, option.batch].step_ms
        assert 1 < times < 2.01


@pytest.mark.parametrize(
    ("to", "probes", "says"),
    [
        ("c7i.xlarge=there.json", [], "begins at a probe of the machine that measured"),
        ("c7i.xlarge=none.json", ["here.json"], "No such file"),
        ("c7i.xlarge=there.json", ["there.json"], "processor: Another CPU in the probe"),
        ("c7i.xlarge=there.json", ["here.json", "here.json"], "one probe of each backend"),
        ("c7i.xlarge=run/run.json", ["here.json"], "probe file"),
    ],
)
def test_probes_that_do_not_fit_are_one_clear_message(tmp_path: Path, to: str, probes: list[str], says: str) -> None:
    run = run_with_profiles(tmp_path)
    probes_of_two_machines(tmp_path, run, cpu_model="Another CPU")
    name, _, file = to.partition("=")
    with pytest.raises(KcostError, match=says) as caught:
        kcost.project_run(run, [f"{name}={tmp_path / file}"], region="us-east-1", probes=[tmp_path / p for p in probes])
    assert caught.value.exit_code == 2


def test_what_no_probe_speaks_of_is_not_projected(tmp_path: Path) -> None:
    run = run_with_profiles(tmp_path)
    here, there = probes_of_two_machines(tmp_path, run, cpu_model="Another CPU")
    other = probe(backend="torch")
    (tmp_path / "torch.json").write_text(other.model_dump_json())
    report = kcost.project_run(run, [f"c7i.xlarge={tmp_path / 'torch.json'}"], region="us-east-1", probes=[here])
    assert any("probes of one backend" in reason for reason in report.not_projected)
    report = kcost.project_run(run, [f"c7i.xlarge={there}"], region="us-east-1", probes=[here], batches=[7])
    assert any("keeps its batch size" in reason for reason in report.not_projected)
    report = kcost.project_run(run, ["c7g.large"], region="us-east-1", probes=[here])
    assert any("needs a probe of it" in reason for reason in report.not_projected)


def test_a_precision_that_a_probe_lacks_costs_its_own_cells_alone(tmp_path: Path) -> None:
    run = run_with_profiles(tmp_path)
    here, there = probes_of_two_machines(tmp_path, run, cpu_model="Another CPU")
    lacking = json.loads(Path(there).read_text())
    for each in lacking["by_threads"]:
        each["answer"]["products"] = [p for p in each["answer"]["products"] if p["dtype"] == "float32"]
    Path(there).write_text(json.dumps(lacking))
    report = kcost.project_run(run, [f"c7i.xlarge={there}"], region="us-east-1", probes=[here])
    assert {o.precision for o in report.options if o.between is not None} == {"fp32"}
    assert any("bf16" in reason for reason in report.not_projected)


def test_the_command_takes_probes_and_marks_what_they_gave(tmp_path: Path) -> None:
    run = run_with_profiles(tmp_path)
    here, there = probes_of_two_machines(tmp_path, run, 40.0, cpu_model="Another CPU")
    options = ["--to", f"c7i.xlarge={there}", "--region", "us-east-1", "--probe", here]
    shown = CliRunner().invoke(app, ["project", str(run), *options])
    assert shown.exit_code == 0, shown.output
    assert "By probes each part of a measured step" in shown.output
