"""Data of one's own for any model: what fits is taken, what does not is refused with what the model wants."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kcost.bench.compare import compare
from kcost.bench.runner import measure
from kcost.bench.store import RunStore, open_run
from kcost.core.errors import InputError
from kcost.core.plan import Plan
from kcost.core.signature import InputSpec, Signature
from kcost.cost.pricebook import PriceBook
from kcost.cost.verdict import conclude, prices_for
from kcost.worker.inputs import read_samples
from tests.unit.bench.plans import fake_plan

IMAGE: Signature = {"images": InputSpec((None, 4, 4, 1), "float32")}
TEXT: Signature = {name: InputSpec((None, None), "int32") for name in ("token_ids", "padding_mask")}


def saved(folder: Path, **arrays: Any) -> Path:
    np.savez(folder / "mine.npz", **arrays)
    return folder / "mine.npz"


def test_an_only_array_is_taken_for_an_only_input_and_cast(tmp_path: Path) -> None:
    pixels = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    samples = read_samples(saved(tmp_path, x=pixels, labels=[1, 0]), IMAGE)
    assert samples.inputs.keys() == {"images"}
    assert samples.inputs["images"].dtype == np.float32
    assert np.array_equal(samples.inputs["images"], pixels)
    assert samples.labels is not None
    assert samples.labels.tolist() == [1, 0]


def test_free_axes_take_any_size_and_arrays_that_the_model_does_not_want_are_left(tmp_path: Path) -> None:
    ids = np.ones((3, 7), np.int64)
    samples = read_samples(saved(tmp_path, token_ids=ids, padding_mask=ids, segment_ids=ids), TEXT)
    assert {n: (a.shape, a.dtype.name) for n, a in samples.inputs.items()} == {
        "token_ids": ((3, 7), "int32"),
        "padding_mask": ((3, 7), "int32"),
    }
    assert samples.labels is None


@pytest.mark.parametrize(
    ("arrays", "signature", "message"),
    [
        ({"token_ids": np.ones((3, 7), int)}, TEXT, r"without padding_mask int32 \(any, any\)"),
        ({"x": np.ones((3, 4, 4))}, IMAGE, r"x for images float64 \(3, 4, 4\), .* wants images float32 \(any, 4, 4"),
        ({"x": np.ones((3, 4, 5, 1))}, IMAGE, r"\(3, 4, 5, 1\)"),
        ({"token_ids": np.ones((3, 7)), "padding_mask": np.ones((3, 7), int)}, TEXT, "token_ids float64"),
        ({"x": np.ones((3, 4, 4, 1)), "labels": [1, 2]}, IMAGE, r"as many rows .*labels \(2,\)"),
        ({"x": np.ones((0, 4, 4, 1))}, IMAGE, "one at least"),
        ({"x": np.ones((2, 4, 4, 1)), "labels": ["a", "b"]}, IMAGE, "labels of dtype <U1"),
        ({"x": np.ones((2, 4, 4, 1)), "unseen_labels": [1, 2]}, IMAGE, r"unseen_labels of dtype int64 .*\(2,\)"),
        ({"x": np.ones((2, 4, 4, 1)), "unseen_labels": np.ones((2, 3))}, IMAGE, "unseen_labels of dtype float64"),
        ({"x": np.ones((2, 4, 4, 1)), "unseen_labels": np.ones((3, 2), int)}, IMAGE, "as many rows"),
        ({"x": np.array([{}], dtype=object)}, IMAGE, "without objects"),
        ({}, IMAGE, "with none, and without images"),
    ],
)
def test_what_does_not_fit_is_told(
    tmp_path: Path, arrays: dict[str, np.ndarray], signature: Signature, message: str
) -> None:
    with pytest.raises(InputError, match=f"(?s){message}"):
        read_samples(saved(tmp_path, **arrays), signature)


def data_plan(folder: Path, **changes: Any) -> Plan:
    return fake_plan(folder, {}, methods=["eager"], batches=[1], precisions=["float32"], **changes)


def test_a_bench_on_data_scores_by_its_labels_and_other_data_are_other_cells(tmp_path: Path) -> None:
    out = tmp_path / "run"
    made_up = measure(data_plan(tmp_path), out)
    right = saved(tmp_path, x=np.zeros((40, 2), np.float32), labels=[0] * 30 + [1] * 10)  # the model always answers 0
    on_data = measure(data_plan(tmp_path, data=str(right)), out)
    assert len(on_data.cells) == 2, "what was measured on made-up inputs stays in the folder"
    (cell,) = on_data.measured()
    assert cell.spec.data_sha256 is not None
    assert cell.spec.cell_id != made_up.cells[0].spec.cell_id
    with np.load(out / "cells" / str(cell.outputs_file)) as outputs:
        assert outputs["labels"].tolist() == [0] * 30 + [1] * 10
    verdict = conclude(on_data, prices_for(on_data, PriceBook.read()), RunStore(out).read_outputs)
    (ranking,) = verdict.rankings
    (ranked,) = ranking.cells
    assert [(s.name, s.value, s.count) for s in ranked.quality.scores] == [("accuracy", 0.75, 40)]
    assert "synthetic-data" not in {n.code for n in verdict.notices}
    again = measure(data_plan(tmp_path, data=str(right)), out)
    assert again == on_data, "nothing is measured twice"


def test_cells_of_every_batch_size_are_scored_on_the_same_examples(tmp_path: Path) -> None:
    labels = np.random.default_rng(0).integers(0, 2, 300)
    data = saved(tmp_path, x=np.zeros((300, 2), np.float32), labels=labels)
    plan = fake_plan(
        tmp_path, {}, methods=["predict", "eager"], batches=[1, 32, 512], precisions=["float32"], data=str(data)
    )
    out = tmp_path / "run"
    run = measure(plan, out)
    stored = [RunStore(out).read_outputs(cell) for cell in run.measured()]
    assert len(stored) == 6
    for arrays in stored:
        assert arrays is not None
        assert arrays["predictions"].shape == (256,)
        assert arrays["labels"].tolist() == labels[:256].tolist()
    verdict = conclude(run, prices_for(run, PriceBook.read()), RunStore(out).read_outputs)
    scores = {c.quality.scores[0] for r in verdict.rankings for c in r.cells}
    assert [(s.name, s.count) for s in scores] == [("accuracy", 256)]


def test_labels_of_words_that_a_model_does_not_see_go_with_their_rows(tmp_path: Path) -> None:
    ids, unseen = np.ones((3, 7), np.int32), np.array([[-1, 2], [-1, -1], [0, 1]])
    arrays = {"token_ids": ids, "padding_mask": ids, "labels": ids}
    samples = read_samples(saved(tmp_path, **arrays, unseen_labels=unseen), TEXT)
    assert samples.inputs.keys() == TEXT.keys()
    rows = samples.rows(2, 2).unseen_labels
    assert rows is not None
    assert rows.tolist() == [[0, 1], [-1, 2]]
    assert read_samples(saved(tmp_path, **arrays), TEXT).unseen_labels is None


def test_cells_of_an_earlier_file_of_a_model_stay_in_the_folder_and_out_of_what_is_told(tmp_path: Path) -> None:
    out, plan = tmp_path / "run", data_plan(tmp_path)
    before = measure(plan, out)
    Path(plan.models[0]).write_text('{"step_s": 0.02}')
    after = measure(plan, out)
    assert len(after.cells) == 2
    (cell,) = after.measured()
    assert cell.spec.model_sha256 not in {c.spec.model_sha256 for c in before.cells}
    verdict = conclude(after, prices_for(after, PriceBook.read()), RunStore(out).read_outputs)
    assert [c.cell_id for r in verdict.rankings for c in r.cells] == [cell.spec.cell_id]
    (change,) = compare(before, after).changes
    assert change.median_ms.ratio > 1.2, "the present file's step is 40 times as long"


def test_runs_on_different_data_are_not_compared(tmp_path: Path) -> None:
    a = measure(data_plan(tmp_path), tmp_path / "a")
    data = saved(tmp_path, x=np.zeros((4, 2), np.float32))
    b = measure(data_plan(tmp_path, data=str(data)), tmp_path / "b")
    with pytest.raises(InputError, match="none in common"):
        compare(a, b)


def test_data_that_are_not_there_end_the_bench_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"(?s)npz file.*not there"):
        measure(data_plan(tmp_path, data=str(tmp_path / "none.npz")), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_cell_without_data_keeps_the_id_that_it_had(tmp_path: Path) -> None:
    measure(data_plan(tmp_path), tmp_path / "run")
    (path,) = (tmp_path / "run" / "cells").glob("*.json")
    document = json.loads(path.read_text())
    del document["spec"]["data_sha256"]
    path.write_text(json.dumps(document))
    assert open_run(tmp_path / "run").cells[0].spec.cell_id == path.stem


def test_data_of_a_plan_file_are_beside_it(tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_text('models = ["m.keras"]\ndata = "mine.npz"\n')
    assert Plan.read(tmp_path / "plan.toml").data == str(tmp_path / "mine.npz")


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.npz").touch()
    with pytest.raises(InputError, match="npz file"):
        read_samples(tmp_path / "empty.npz", IMAGE)
