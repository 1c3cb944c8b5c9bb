import contextlib
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from kcost.bench.store import RunStore, open_run
from kcost.core.errors import InputError, SchemaError, StorageError
from testing.runs import environment, plan, simulated_run, write_run


def by_id(run):
    return {c.spec.cell_id: c for c in run.cells}


def test_a_run_comes_back_as_it_was_written(tmp_path: Path) -> None:
    run, outputs = simulated_run(plan())
    store = write_run(tmp_path / "run", run, outputs)
    stored = open_run(tmp_path / "run")
    assert stored.index == run.index
    assert stored.environments == run.environments
    assert by_id(stored) == by_id(run)
    some = next(c for c in stored.cells if c.outputs_file)
    arrays = store.read_outputs(some)
    assert arrays is not None
    assert arrays.keys() == {"outputs", "predictions", "labels"}
    assert np.array_equal(arrays["outputs"], outputs[some.spec.cell_id]["outputs"])
    training = next(c for c in stored.cells if c.spec.phase == "training")
    assert store.read_outputs(training) is None
    assert store.read_cell(some.spec.cell_id) == some
    assert store.read_cell("no-such-cell") is None
    assert store.logs.is_dir()


def test_a_cell_is_replaced_when_it_is_written_again(tmp_path: Path) -> None:
    run, _ = simulated_run(plan())
    store = write_run(tmp_path / "run", run)
    cell = run.cells[0].model_copy(update={"status": "crash", "reason": "killed by SIGKILL"})
    store.write_cell(cell)
    assert by_id(store.load())[cell.spec.cell_id].reason == "killed by SIGKILL"
    assert len(store.load().cells) == len(run.cells)


@pytest.mark.parametrize("make", ["nothing", "empty", "file"])
def test_what_is_no_run_is_refused(tmp_path: Path, make: str) -> None:
    path = tmp_path / "run"
    if make == "empty":
        path.mkdir()
    elif make == "file":
        path.write_text("hello")
    with pytest.raises(InputError, match=r"run\.json"):
        open_run(path)


def test_create_overwrites_nothing(tmp_path: Path) -> None:
    run, _ = simulated_run(plan())
    store = write_run(tmp_path / "run", run)
    with pytest.raises(StorageError, match="overwrites"):
        store.create(run.index)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError):
        RunStore(tmp_path / "file" / "run").create(run.index)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_new_run_may_hold_models_that_were_built_for_it_and_nothing_else(tmp_path: Path) -> None:
    run, _ = simulated_run(plan())
    (tmp_path / "run" / "built" / "abc").mkdir(parents=True)
    RunStore(tmp_path / "run").create(run.index)
    assert open_run(tmp_path / "run").index == run.index
    (tmp_path / "other" / "built").mkdir(parents=True)
    (tmp_path / "other" / "letter.txt").write_text("mine")
    with pytest.raises(StorageError, match="overwrites"):
        RunStore(tmp_path / "other").create(run.index)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"schema": 1}', b"\xff\xfe", b'{"schema": "1"}'])
def test_a_damaged_cell_names_its_file(tmp_path: Path, content: bytes) -> None:
    run, _ = simulated_run(plan())
    write_run(tmp_path / "run", run)
    broken = tmp_path / "run" / "cells" / f"{run.cells[3].spec.cell_id}.json"
    broken.write_bytes(content)
    with pytest.raises(SchemaError, match=broken.name):
        open_run(tmp_path / "run")


@pytest.mark.parametrize("folder", ["", "cells", "environments"])
def test_a_newer_file_is_refused_by_name(tmp_path: Path, folder: str) -> None:
    run, _ = simulated_run(plan())
    write_run(tmp_path / "run", run)
    newer = min((tmp_path / "run" / folder).glob("*.json"))
    newer.write_text(json.dumps({**json.loads(newer.read_text()), "schema": 99}))
    with pytest.raises(SchemaError, match=f"(?s){newer.name}.*newer kcost"):
        open_run(tmp_path / "run")


def test_a_cell_without_its_environment_is_refused(tmp_path: Path) -> None:
    run, _ = simulated_run(plan())
    write_run(tmp_path / "run", run)
    (tmp_path / "run" / "environments" / f"{environment().environment_id}.json").unlink()
    with pytest.raises(SchemaError, match=environment().environment_id):
        open_run(tmp_path / "run")


def test_missing_outputs_are_named(tmp_path: Path) -> None:
    run, _ = simulated_run(plan())
    store = write_run(tmp_path / "run", run)
    cell = next(c for c in run.cells if c.outputs_file)
    with pytest.raises(SchemaError, match=cell.outputs_file):
        store.read_outputs(cell)


def test_outputs_are_read_from_inside_the_run_only(tmp_path: Path) -> None:
    run, _ = simulated_run(plan())
    store = write_run(tmp_path / "run", run)
    np.savez(tmp_path / "other.npz", outputs=np.zeros(3))
    cell = run.cells[0].model_copy(update={"outputs_file": "../../other.npz"})
    with pytest.raises(SchemaError, match=r"other\.npz"):
        store.read_outputs(cell)


def test_pickled_outputs_are_refused(tmp_path: Path) -> None:
    run, _ = simulated_run(plan())
    store = write_run(tmp_path / "run", run)
    cell = next(c for c in run.cells if c.outputs_file)
    np.savez(tmp_path / "run" / "cells" / cell.outputs_file, outputs=np.array([{}], dtype=object))
    with pytest.raises(SchemaError, match=cell.outputs_file):
        store.read_outputs(cell)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1), cut=st.booleans(), byte=st.integers(0, 255))
def test_damaged_outputs_raise_schema_error_or_nothing(tmp_path: Path, place: float, cut: bool, byte: int) -> None:
    run, outputs = simulated_run(plan(batches=(1,), backends=("tensorflow",), precisions=("float32",)))
    store = RunStore(tmp_path / "run")
    cell = next(c for c in run.cells if c.outputs_file)
    name = store.write_outputs(cell.spec.cell_id, **outputs[cell.spec.cell_id])
    path = tmp_path / "run" / "cells" / name
    content = bytearray(path.read_bytes())
    at = int(place * (len(content) - 1))
    path.write_bytes(content[:at] if cut else content[:at] + bytes([byte]) + content[at + 1 :])
    if cut:
        with pytest.raises(SchemaError, match=name):
            store.read_outputs(cell)
    else:  # a changed byte may be one that nobody reads
        with contextlib.suppress(SchemaError):
            store.read_outputs(cell)


def test_a_cell_from_before_turns_were_watched_still_opens(tmp_path: Path) -> None:
    run, _ = simulated_run(plan())
    write_run(tmp_path / "run", run)
    path = tmp_path / "run" / "cells" / f"{run.cells[0].spec.cell_id}.json"
    document = json.loads(path.read_text())
    for name in ("settled", "started_beside", "imported_host_bytes", "idle_watts", "energy_source"):
        del document["preparation"][name]
    for one in document["rounds"]:
        for name in ("watch", "peak_host_bytes", "energy_uj"):
            del one[name]
    path.write_text(json.dumps({**document, "schema": 1}))
    index = tmp_path / "run" / "run.json"
    document = json.loads(index.read_text())
    document["plan"]["threads"] = 0
    for name in ("precision", "max_rounds", "minutes", "warmup_max_s"):
        del document["plan"]["settings"][name]
    index.write_text(json.dumps({**document, "schema": 1}))
    stored = open_run(tmp_path / "run")
    assert stored.index.plan == run.index.plan
    assert by_id(stored) == by_id(run)


def test_arrays_of_every_layout_come_back(tmp_path: Path) -> None:
    run, _ = simulated_run(plan())
    store = write_run(tmp_path / "run", run)
    arrays = {
        "columns": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "scalar": np.float32(3.5),
        "empty": np.zeros((0, 4), np.int64),
        "named": np.array([(1, 2.0)], dtype=[("a", "i4"), ("é", "f8")]),  # a header of version 3.0
    }
    cell = run.cells[0].model_copy(update={"outputs_file": store.write_outputs(run.cells[0].spec.cell_id, **arrays)})
    read = store.read_outputs(cell)
    assert read is not None
    for name, array in arrays.items():
        assert np.array_equal(read[name], array)
        assert read[name].dtype == array.dtype
        assert not read[name].flags.writeable


@pytest.mark.parametrize("place", ["cell", "round", "watch"])
def test_an_unknown_key_is_refused_wherever_it_stands(tmp_path: Path, place: str) -> None:
    run, _ = simulated_run(plan(batches=(1,)), steps=None)
    write_run(tmp_path / "run", run)
    path = tmp_path / "run" / "cells" / f"{run.cells[0].spec.cell_id}.json"
    document = json.loads(path.read_text())
    one = document["rounds"][0]
    {"cell": document, "round": one, "watch": one["watch"]}[place]["colour"] = "red"
    path.write_text(json.dumps(document))
    with pytest.raises(SchemaError, match=f"(?s){path.name}.*colour"):
        open_run(tmp_path / "run")


def test_rounds_come_back_with_what_was_watched_and_cannot_be_changed(tmp_path: Path) -> None:
    run, outputs = simulated_run(plan(batches=(1,)), steps=None)
    write_run(tmp_path / "run", run, outputs)
    stored = open_run(tmp_path / "run")
    assert by_id(stored) == by_id(run)
    one = stored.cells[0].rounds[0]
    assert one.watch is not None
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.watch.wall_s = 0.0
