import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import kcost
from kcost.cli import app
from kcost.core.artifact import sha256_of
from kcost.core.errors import InputError, KcostError
from kcost.core.profile import Profile, Work
from kcost.core.result import Run
from kcost.cost.cell_workload import kind_of
from kcost.cost.placements import Placement, cheaper_above, instance_device
from testing.runs import plan, simulated_run, write_run

GFLOP = 10**9


def keras_file(path: Path, *classes: str) -> Path:
    names = enumerate(classes)
    layers = [{"class_name": c, "module": "keras.layers", "config": {"name": f"{c}_{n}"}} for n, c in names]
    config = {"class_name": "Functional", "module": "keras", "config": {"name": "m", "layers": layers}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"")
    return path


def run_with_profiles(folder: Path, flops_per_example: int | None = 4 * GFLOP, *classes: str) -> Path:
    folder.mkdir(exist_ok=True)
    model = keras_file(folder / "simulated-cnn.keras", *(classes or ("Conv2D",) * 20 + ("Dense",)))
    run, _ = simulated_run(plan(batches=(1, 32), phases=("inference",), backends=("jax",)))
    entry = run.entry("simulated-cnn").model_copy(update={"path": str(model), "sha256": sha256_of(model)})
    cells = []
    for cell in run.cells:
        flops = None if flops_per_example is None else flops_per_example * cell.spec.batch
        work = Work(flops=flops, flops_source="a test", bytes=None, bytes_source="nobody")
        spec = cell.spec.model_copy(update={"model_sha256": entry.sha256})
        cells.append(
            cell.model_copy(update={"profile": Profile(status="ok", work=work), "spec": spec, "outputs_file": None})
        )
    index = run.index.model_copy(update={"models": (entry,)})
    write_run(folder / "run", Run(index=index, environments=run.environments, cells=tuple(cells)), {})
    return folder / "run"


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
