from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from kcost.core.errors import PlanError
from kcost.core.plan import BACKENDS, INFERENCE_METHODS, CellSpec, Plan, baseline_of, expand

AXES = {
    "backends": st.lists(st.sampled_from(BACKENDS), min_size=1, unique=True),
    "precisions": st.lists(st.sampled_from(["float32", "bfloat16"]), min_size=1, unique=True),
    "batches": st.lists(st.integers(1, 512), min_size=1, max_size=4, unique=True),
    "phases": st.lists(st.sampled_from(["inference", "training"]), min_size=1, unique=True),
    "threads": st.integers(0, 8),
}
MODELS = {"a": "0" * 64, "b": "1" * 64}


@given(st.fixed_dictionaries(AXES))
def test_expanding_is_pure_and_ids_are_unique(axes: dict[str, object]) -> None:
    plan = Plan.parse({"models": ["x"], **axes})
    cells = expand(plan, MODELS)
    assert cells == expand(plan, MODELS)
    assert len({c.cell_id for c in cells}) == len(cells)
    assert {c.backend for c in cells} == set(plan.backends)
    assert {c.batch for c in cells} == set(plan.batches)
    assert all(c.method in (*INFERENCE_METHODS[c.backend], "train_on_batch") for c in cells)


@given(st.fixed_dictionaries(AXES), st.integers(1, 50))
def test_a_wider_plan_keeps_the_ids_that_it_had(axes: dict[str, object], more: int) -> None:
    plan = Plan.parse({"models": ["x"], **axes})
    wider = plan.model_copy(
        update={"batches": tuple({*plan.batches, more}), "settings": plan.settings.model_copy(update={"rounds": 99})}
    )
    assert {c.cell_id for c in expand(plan, MODELS)} <= {c.cell_id for c in expand(wider, MODELS)}


def test_predict_is_measured_in_float32_and_slow_compilers_only_when_named() -> None:
    cells = expand(Plan.parse({"models": ["x"]}), MODELS)
    assert {c.precision for c in cells if c.method == "predict"} == {"float32"}
    assert "compile" not in {c.method for c in cells}
    named = expand(Plan.parse({"models": ["x"], "methods": ["compile", "predict"], "phases": ["inference"]}), MODELS)
    assert {c.method for c in named} == {"compile", "predict"}


def test_a_changed_model_is_another_cell() -> None:
    spec = expand(Plan.parse({"models": ["x"]}), MODELS)[0]
    assert spec.model_copy(update={"model_sha256": "2" * 64}).cell_id != spec.cell_id


def test_the_id_of_a_cell_stays_what_it_is_in_run_folders_out_there() -> None:
    spec = CellSpec(
        model="m",
        model_sha256="0" * 64,
        backend="jax",
        device="cpu",
        precision="float32",
        batch=1,
        phase="inference",
        method="jit",
        threads=0,
    )
    assert spec.cell_id == "7a263f1b40c68004"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"colour": "blue"}, "colour: Extra inputs are not permitted"),
        ({"batches": []}, "batches: Tuple should have at least 1 item"),
        ({"models": []}, "models: Tuple should have at least 1 item"),
        ({"batches": [0]}, "batches.0: Input should be greater than 0"),
        ({"batches": [1, 1]}, "an axis holds each value once"),
        ({"backends": ["mxnet"]}, "backends.0: Input should be 'tensorflow', 'jax' or 'torch'"),
        ({"devices": ["npu"]}, "devices.0: Input should be 'cpu', 'gpu' or 'tpu'"),
        ({"settings": {"round": 3}}, "settings.round: Extra inputs"),
        ({"threads": -1}, "threads.0: Input should be greater than or equal to 0"),
    ],
)
def test_a_bad_plan_is_named_by_its_key(change: dict[str, object], message: str) -> None:
    with pytest.raises(PlanError, match=r"docs/file-formats\.md") as caught:
        Plan.parse({"models": ["x"], **change})
    assert message in str(caught.value)


def test_a_plan_file_names_models_relative_to_itself(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text('models = ["a.keras", "/b.keras"]\nbatches = [4]\n[settings]\nrounds = 3\n')
    plan = Plan.read(path)
    assert plan.models == (str(tmp_path / "a.keras"), "/b.keras")
    assert (plan.batches, plan.settings.rounds) == ((4,), 3)


@pytest.mark.parametrize("content", [b"models = [", b"\xff\xfe", b""])
def test_a_file_that_is_no_plan(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plan.toml"
    path.write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.toml"):
        Plan.read(path)


def test_a_plan_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="No such file"):
        Plan.read(tmp_path / "plan.toml")


def test_threads_are_an_axis_and_one_number_is_one_value() -> None:
    one = Plan.parse({"models": ["x"], "threads": 2})
    assert one.threads == (2,)
    cells = expand(Plan.parse({"models": ["x"], "threads": [1, 2]}), MODELS)
    assert {c.threads for c in cells} == {1, 2}
    assert {c.cell_id for c in expand(one, MODELS)} < {c.cell_id for c in cells}
    assert len({(c.model, c.label) for c in cells}) == len(cells)


def test_plain_keras_is_the_baseline_and_something_stands_in_for_it() -> None:
    cells = expand(Plan.parse({"models": ["x"], "phases": ["inference"]}), {"a": "0" * 64})
    baseline = baseline_of(cells)
    assert baseline is not None
    assert baseline.label == "inference tensorflow/predict float32 cpu batch 32"
    without = baseline_of([c for c in cells if c.method == "jit" and c.batch == 1])
    assert without is not None
    assert without.label == "inference jax/jit float32 cpu batch 1"


@pytest.mark.parametrize("name", ["smoke", "cpu", "gpu", "tpu"])
def test_the_plans_of_the_benchmarks_folder_are_plans(name: str) -> None:
    plan = Plan.read(Path(__file__).parents[3] / "benchmarks" / f"{name}.toml")
    assert expand(plan, MODELS)


def test_paths_of_a_plan_are_relative_to_it_and_functions_are_not_paths(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('models = ["mine.keras", "package.module:make"]')
    assert Plan.read(tmp_path / "plan.toml").models == (str(tmp_path / "mine.keras"), "package.module:make")


def test_only_models_that_were_saved_under_another_policy_have_a_cell_as_saved() -> None:
    plan = Plan(models=("a", "b"), backends=("jax",), batches=(1,), methods=("jit",), phases=("inference",))
    cells = expand(plan, {"a": "0", "b": "1"}, None, {"b": "mixed_bfloat16"})
    assert [(c.model, c.dtype) for c in cells] == [
        ("a", "float32"),
        ("a", "bfloat16"),
        ("b", "float32"),
        ("b", "bfloat16"),
        ("b", "as saved: mixed_bfloat16"),
    ]


def test_a_plan_of_saved_policies_alone_needs_a_model_with_one() -> None:
    plan = Plan(models=("a",), precisions=("saved",))
    with pytest.raises(PlanError, match="saved under float32"):
        expand(plan, {"a": "0"})
