import contextlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from scipy.optimize import approx_fprime

import kcost
from kcost.core.errors import InputError
from kcost.cost.devices import Device, device_named, devices, parse_devices
from kcost.cost.projection import COMPONENTS, TERMS, WIDEST, Model, design, fitted, log_ms, project
from kcost.cost.projection_fit import fit, grade, leave_out, table_of
from kcost.cost.published import PublishedRow, cases, evidence, parse_published, published
from kcost.cost.workload import ARCHITECTURES, Workload, encoder_activations

BERT = Workload(
    kind="encoder",
    engine="tensorrt",
    phase="inference",
    precision="fp16",
    batch=32,
    flops_per_example=22.3e9,
    parameters=110e6,
    activations_per_example=encoder_activations(ARCHITECTURES["BERT-base"], 128),
    products=72,
)
RESNET = BERT.model_copy(
    update={
        "kind": "cnn",
        "engine": "torch eager",
        "precision": "fp32",
        "flops_per_example": 8.2e9,
        "parameters": 25e6,
        "activations_per_example": 11e6,
        "reads_images": True,
    }
)
STEPS = [
    (BERT, devices()["NVIDIA T4"]),
    (RESNET, devices()["2x Intel Xeon Platinum 8380"]),
    (BERT.model_copy(update={"phase": "training", "engine": "xla"}), devices()["Google TPU v5e"].model_copy(
        update={"peak_tflops": {"fp16": 100.0}})),
]  # fmt: skip


def own_cases() -> tuple:
    return cases(published(), devices())


def test_the_derivative_is_that_of_the_function() -> None:
    steps = design(STEPS)
    theta = np.random.default_rng(0).normal(0, 0.3, len(TERMS))
    _, slope, shares = log_ms(theta, steps)
    for row in range(len(STEPS)):
        numeric = approx_fprime(theta, lambda t, row=row: log_ms(t, steps)[0][row], 1e-6)
        np.testing.assert_allclose(slope[row], numeric, atol=1e-4)
    np.testing.assert_allclose(shares.sum(axis=1), 1)


def test_without_any_term_a_step_is_the_roofline_and_a_millisecond_a_call() -> None:
    device = devices()["NVIDIA T4"]
    total = log_ms(np.zeros(len(TERMS)), design([(BERT, device)]))[0][0]
    products = BERT.flops / (65e12) * 1e3
    memory = BERT.moved_bytes / 320e9 * 1e3
    assert math.exp(total) == pytest.approx(math.hypot(products, memory) + 72)


def test_training_costs_three_passes() -> None:
    training = BERT.model_copy(update={"phase": "training"})
    assert training.flops == 3 * BERT.flops
    assert training.moved_bytes == 3 * BERT.moved_bytes


def test_a_fit_finds_what_made_the_figures() -> None:
    """Steps made by known terms, without noise, are given back."""
    truth = np.array([p.mean for p in TERMS.values()]) + np.random.default_rng(1).normal(0, 0.1, len(TERMS))
    made = table_of(own_cases())
    made = made._replace(measured=log_ms(truth, made.design)[0])
    given_back = log_ms(fit(made).theta, made.design)[0]
    assert np.median(np.abs(given_back - made.measured)) < 0.02


def test_a_chip_that_is_left_out_tells_its_projection_nothing() -> None:
    """Were the T4 ten times slower, what is projected for it would be the same."""
    table = table_of(own_cases())
    is_t4 = np.array([c.device.chip == "T4" for c in table.cases])
    groups = np.where(is_t4, 1, 2)
    slower = table._replace(measured=table.measured + np.where(is_t4, math.log(10), 0.0))
    start = fit(table.of(~is_t4))
    chosen = [leave_out(t.of(np.ones(len(is_t4), bool)), groups, start) for t in (table, slower)]
    shift = chosen[0].log_error[is_t4] - chosen[1].log_error[is_t4]
    np.testing.assert_allclose(shift, math.log(10), atol=1e-9)
    np.testing.assert_allclose(chosen[0].sd[is_t4], chosen[1].sd[is_t4])
    graded = grade(table, chosen[0], "chip", groups, is_t4)
    assert graded.rows == is_t4.sum()


def test_quality_c_never_enters() -> None:
    rows = tuple(r.model_copy(update={"quality": "C"}) for r in published())
    assert cases(rows, devices()) == ()
    with pytest.raises(InputError, match="at least 20 measurements"):
        table_of(())


def test_a_projection_is_marked_and_its_interval_holds_it() -> None:
    projection = project(BERT, device_named("A100-80GB"))
    assert projection.low_ms < projection.step_ms < projection.high_ms
    assert projection.refused is None
    assert "projected" in projection.step_text
    assert sum(projection.shares.values()) == pytest.approx(1)
    assert set(projection.shares) == set(COMPONENTS)


def test_a_wide_interval_is_refused_and_says_what_would_help() -> None:
    projection = project(RESNET.model_copy(update={"reads_images": False}), device_named("Intel Core i7-12700H"))
    assert projection.high_ms / projection.low_ms > WIDEST
    assert projection.refused is not None
    assert "measuring the model there" in projection.refused


def test_more_work_takes_longer() -> None:
    device = device_named("NVIDIA L4")
    twice = BERT.model_copy(update={"batch": 64})
    assert project(twice, device).step_ms > project(BERT, device).step_ms


def test_a_precision_without_a_peak_is_refused() -> None:
    with pytest.raises(InputError, match="int8 on NVIDIA V100"):
        project(BERT.model_copy(update={"precision": "int8"}), device_named("V100"))


@pytest.mark.parametrize("name", ["", "T5", "nvidia", "A100"])
def test_a_device_is_one_that_is_known(name: str) -> None:
    if name == "A100":  # a price book's name
        assert device_named(name).name == "NVIDIA A100-SXM4-40GB"
        return
    with pytest.raises(InputError, match="peaks are known"):
        device_named(name)


def test_an_encoder_puts_out_what_timm_counts() -> None:
    """ViT-B/16 is an encoder of 197 tokens; timm counts 23.9 million activations with its two other layers."""
    vit = ARCHITECTURES["BERT-base"]
    assert encoder_activations(vit, 197) == pytest.approx(ARCHITECTURES["ViT-B/16"].activations, rel=0.02)


def test_evidence_is_of_the_chip_and_nearest_first() -> None:
    rows = evidence(published(), device_named("A100-80GB"), BERT, 2)
    assert [r.model for r in rows] == ["BERT-base", "BERT-base"]
    assert all("A100" in r.device and r.precision == "fp16" and r.batch == 32 for r in rows)
    assert "BERT-base" in rows[0].line
    assert evidence(published(), device_named("TPU-v5e"), BERT) == ()


def test_the_package_ships_only_what_it_may() -> None:
    assert all(not r.source.startswith(("mlcommons", "aws-neuron", "openvino")) for r in published())
    assert all(r.licence and r.source and r.source_commit_or_date for r in published())
    assert {r.quality for r in published()} == {"A", "B"}


def test_the_shipped_model_holds_its_target() -> None:
    model = fitted()
    assert list(model.terms) == list(TERMS)
    by_chip = model.gradings[0]
    assert by_chip.left_out == "chip"
    assert by_chip.median_error <= 0.25
    assert 0.85 <= by_chip.held <= 0.95


@given(st.binary(max_size=200))
@settings(max_examples=60)
def test_any_bytes_are_a_table_or_an_input_error(content: bytes) -> None:
    for parse in (parse_published, parse_devices):
        with contextlib.suppress(InputError):
            parse(content, "x")


def test_a_row_that_is_none_is_named() -> None:
    row = published()[0].model_dump(mode="json")
    header = ",".join(row)
    cells = ",".join("" if v is None else f'"{v}"' for v in {**row, "figure": -1}.values())
    with pytest.raises(InputError, match=f"row {row['id']}: figure"):
        parse_published(f"{header}\n{cells}\n".encode(), "x")


def data_folder() -> Path:
    folder = Path(os.environ.get("KCOST_DATA_DIR", "nowhere")) / "published"
    if not folder.is_dir():
        pytest.skip("KCOST_DATA_DIR with published/ is not set")
    return folder


def test_the_shipped_terms_are_those_of_the_whole_data() -> None:
    folder = data_folder()
    rows: tuple[PublishedRow, ...] = parse_published((folder / "measurements.csv").read_bytes(), "measurements")
    table = table_of(cases(rows, devices()))
    fitted_anew = fit(table)
    model = fitted()
    assert len(table.cases) == model.rows
    shipped = np.array(list(model.terms.values()))
    np.testing.assert_allclose(fitted_anew.theta, shipped, atol=0.01)
    np.testing.assert_allclose(fitted_anew.covariance, np.array(model.covariance), atol=0.01)
    kept = [r for r in rows if r.quality != "C" and not r.source.startswith(("mlcommons", "aws-neuron", "openvino"))]
    assert [r.id for r in kept] == [r.id for r in published()]


@pytest.mark.slow
def test_the_script_makes_what_is_shipped(tmp_path: Path) -> None:
    data_folder()
    script = Path(kcost.__file__).parent.parent / "scripts" / "fit_projection.py"
    subprocess.run([sys.executable, str(script), "--out", str(tmp_path)], check=True, capture_output=True)
    shipped = Path(kcost.__file__).parent / "cost" / "data"
    for name in ("devices.csv", "published.csv"):
        assert (tmp_path / name).read_bytes() == (shipped / name).read_bytes()
    again = Model.model_validate(json.loads((tmp_path / "projection.json").read_text()))
    for mine, theirs in zip(again.gradings, fitted().gradings, strict=True):
        assert mine.median_error == pytest.approx(theirs.median_error, abs=0.005)
        assert mine.held == pytest.approx(theirs.held, abs=0.01)


def test_a_device_without_a_source_for_its_peak_is_not_listed() -> None:
    assert "Intel Data Center GPU Flex 170" not in devices()
    assert isinstance(devices()["NVIDIA L4"], Device)
