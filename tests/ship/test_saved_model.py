"""The C library through ctypes, against what TensorFlow says of the same file."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from importlib.machinery import PathFinder
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from kcost.core.errors import ArtifactError, InputError, UnavailableError
from kcost.runtimes import meta_graph, saved_model, tensorflow_library
from kcost.runtimes.denormals import DenormalsAreZero
from kcost.runtimes.saved_model import SavedModelSession
from kcost.runtimes.tensorflow_library import library_version

INPUTS = {
    "a": np.arange(6, dtype=np.float32).reshape(2, 3),
    "b": np.array(5),
    "c": np.array([[True], [False]]),
    "d": np.array([[1.5], [2.0]], dtype=ml_dtypes.bfloat16),
}


@pytest.fixture(scope="module")
def plain(models: Path) -> Path:
    return models / "tensorflow" / "plain"


def test_signatures_are_read_as_tensorflow_reads_them(plain: Path) -> None:
    parsed = meta_graph.parse((plain / "meta_graph.pb").read_bytes())
    expected = json.loads(plain.with_suffix(".json").read_text())
    assert set(expected) == {"serving_default", "text"}
    for key, sides in expected.items():
        for side, tensors in sides.items():
            tensors_read = {
                name: [
                    f"{t.operation}:{t.output}",
                    t.dtype,
                    None if t.shape is None else [-1 if size is None else size for size in t.shape],
                ]
                for name, t in getattr(parsed.signatures[key], side).items()
            }
            assert tensors_read == tensors
    assert parsed.xla == ()


@pytest.mark.parametrize(("threads", "caller_thread", "times"), [(1, True, 2), (1, False, 0), (2, True, 0)])
def test_a_thread_that_computes_itself_takes_denormals_for_zero(
    plain: Path, threads: int, caller_thread: bool, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorFlow's own threads do so by themselves."""
    entered = []
    enter = DenormalsAreZero.__enter__
    monkeypatch.setattr(DenormalsAreZero, "__enter__", lambda self: entered.append(enter(self)))
    with SavedModelSession(plain, threads=threads, caller_thread=caller_thread) as session:
        inputs = {
            name: np.ones([size or 2 for size in tensor.shape or ()], tensor.dtype)
            for name, tensor in session.signature.inputs.items()
        }
        for _ in range(2):
            session.run(inputs)
    assert len(entered) == times


@pytest.mark.parametrize("caller_thread", [False, True])
def test_it_runs_every_kind_of_number(plain: Path, caller_thread: bool) -> None:
    with SavedModelSession(plain, threads=1, caller_thread=caller_thread) as session:
        outputs = session.run(INPUTS)
    np.testing.assert_array_equal(outputs["a"], INPUTS["a"] * 5)
    assert outputs["b"] == 6
    assert outputs["b"].shape == ()
    np.testing.assert_array_equal(outputs["c"], ~INPUTS["c"])
    np.testing.assert_array_equal(outputs["d"].astype(np.float32), [[3.0], [4.0]])
    assert {name: str(array.dtype) for name, array in outputs.items()} == {
        **{"a": "float32", "b": "int64", "c": "bool", "d": "bfloat16"}
    }


def test_an_empty_batch_and_non_contiguous_inputs(plain: Path) -> None:
    with SavedModelSession(plain) as session:
        assert session.run({**INPUTS, "a": np.zeros((0, 3))})["a"].shape == (0, 3)
        transposed = np.arange(6.0).reshape(3, 2).T
        np.testing.assert_array_equal(session.run({**INPUTS, "a": transposed})["a"], transposed * 5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("a", np.zeros(3), "has the shape"),
        ("a", np.zeros((2, 4)), r"\(any, 3\)"),
        ("b", np.array(1.5), "is of dtype int64"),
        ("c", np.zeros(2), "is of dtype bool"),
    ],
)
def test_inputs_that_do_not_fit(plain: Path, name: str, value: np.ndarray, message: str) -> None:
    with SavedModelSession(plain) as session, pytest.raises(InputError, match=message):
        session.run({**INPUTS, name: value})


def test_missing_and_unknown_inputs(plain: Path) -> None:
    with SavedModelSession(plain) as session:
        with pytest.raises(InputError, match="takes the inputs"):
            session.run({k: v for k, v in INPUTS.items() if k != "c"})
        with pytest.raises(InputError, match="takes the inputs"):
            session.run({**INPUTS, "e": np.zeros(1)})


def test_an_error_of_the_library_is_told(models: Path, exported: dict) -> None:
    tokens = {name: np.full((1, 4), 10_000) for name in ("token_ids", "segment_ids", "padding_mask")}
    with SavedModelSession(exported["jax", "bert"].version) as session, pytest.raises(InputError, match="10000"):
        session.run(tokens)


def test_what_cannot_be_loaded(plain: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="not find SavedModel"):
        SavedModelSession(tmp_path)
    (tmp_path / "saved_model.pb").write_bytes(b"no message")
    with pytest.raises(ArtifactError, match=r"saved_model\.pb"):
        SavedModelSession(tmp_path)
    with pytest.raises(ArtifactError, match="serving_default, text"):
        SavedModelSession(plain, signature="predict")
    with pytest.raises(ArtifactError, match="'text' is string"):
        SavedModelSession(plain, signature="text")


def test_what_a_graph_gives_counts_and_not_what_its_signature_says(models: Path) -> None:
    x = {"x": np.zeros((3, 2), np.float32)}
    with SavedModelSession(models / "tensorflow" / "variable", signature=None) as session:
        for name, expected in {"serving_default": np.float32([1, 2]), "rows": np.int32([3, 2])}.items():
            session.bind(name)
            given = session.run_signature(name, x)["y"]
            np.testing.assert_array_equal(given, expected, strict=True)
        with pytest.raises(ArtifactError, match="TensorFlow type 11 for 'y'"):
            session.bind("quantized")
        with pytest.raises(ArtifactError, match="'y' is 'v:3', which is not"):
            session.bind("none")


def test_threads_share_a_session(plain: Path) -> None:
    def ask(number: int) -> bool:
        given = [session.run({**INPUTS, "b": np.array(number)}) for _ in range(50)]
        return all(outputs["b"] == number + 1 for outputs in given)

    with SavedModelSession(plain, threads=1) as session, ThreadPoolExecutor(4) as pool:
        assert all(pool.map(ask, range(8)))


def test_a_run_that_failed_leaves_the_next_as_it_was(exported: dict) -> None:
    tokens = {name: np.full((1, 4), 10_000) for name in ("token_ids", "segment_ids", "padding_mask")}
    with SavedModelSession(exported["jax", "bert"].version) as session:
        for _ in range(2):
            with pytest.raises(InputError, match="10000"):
                session.run(tokens)
            session.run({name: np.ones((1, 4), np.int32) for name in tokens})


def test_a_closed_session_does_not_run(plain: Path) -> None:
    session = SavedModelSession(plain)
    session.close()
    session.close()
    with pytest.raises(ValueError, match="closed"):
        session.run(INPUTS)


def test_xla_is_seen_and_off(models: Path) -> None:
    parsed = meta_graph.parse((models / "tensorflow" / "plain" / "meta_graph.pb").read_bytes())
    assert parsed.xla == ()
    with SavedModelSession(models / "tensorflow" / "xla") as session:
        assert any("jit_compile=True" in operation for operation in session.xla_operations)
    # ConfigProto {graph_options {optimizer_options {global_jit_level: OFF}}}, intra- and inter-op threads
    off = bytes.fromhex("520d 1a0b 28ffffffffffffffffff01".replace(" ", ""))
    assert saved_model._config(0, caller_thread=False) == off
    assert saved_model._config(3, caller_thread=False) == off + bytes.fromhex("10032803")
    # With one thread inter-op is -1 where the caller's own thread is to run it: protobuf has that as 10 bytes.
    in_caller = bytes.fromhex("1001 28ffffffffffffffffff01".replace(" ", ""))
    assert saved_model._config(1, caller_thread=True) == off + in_caller
    assert saved_model._config(3, caller_thread=True) == off + bytes.fromhex("10032803")


def test_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow_library.library.cache_clear()
    monkeypatch.setattr(PathFinder, "find_spec", lambda *_: None)
    try:
        with pytest.raises(UnavailableError, match="TensorFlow library"):
            library_version()
    finally:
        tensorflow_library.library.cache_clear()


def test_a_thousand_runs_keep_no_memory(plain: Path) -> None:
    """Each run takes 1.2 MB in and as much out: a leak of either shows as more than a gigabyte."""
    script = """
import sys
import numpy as np, psutil
from kcost.runtimes.saved_model import SavedModelSession
from tests.ship.test_saved_model import INPUTS
with SavedModelSession(sys.argv[1]) as session:
    inputs = {**INPUTS, "a": np.ones((100_000, 3), np.float32)}
    for i in range(1100):
        session.run(inputs)
        if i == 100:
            before = psutil.Process().memory_info().rss
    assert not {"tensorflow", "keras"} & set(sys.modules)
    print(psutil.Process().memory_info().rss - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, str(plain)], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 50e6
