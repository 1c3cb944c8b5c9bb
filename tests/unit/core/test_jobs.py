"""The table of jobs, the modules that do them, and the lines that cross between the two processes."""

from __future__ import annotations

import ast
import importlib
import json
from pathlib import Path
from typing import Any

import pytest

import kcost
from kcost.core.errors import DataError, InputError
from kcost.core.jobs import DEVICES, EVALUATE, JOBS, MEASURE, TRAIN, Job, error_line
from kcost.core.measuring import FailureAnswer, RoundAnswer, RoundRequest
from kcost.core.process import Worker
from kcost.core.request import DevicesAnswer, EvaluateRequest
from kcost.worker.__main__ import answer_to


def signature_in_source(module: str) -> tuple[Any, Any]:
    """What the `run` of a module takes and gives, read from its source: most modules import a framework."""
    path = Path(kcost.__file__).parent.parent / f"{module.replace('.', '/')}.py"
    tree = ast.parse(path.read_text())
    origins = {
        alias.asname or alias.name: (node.module, alias.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.module is not None
        for alias in node.names
    }
    (run,) = (node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "run")
    (argument,) = run.args.args
    assert isinstance(argument.annotation, ast.Name)
    assert isinstance(run.returns, ast.Name)
    origin = [origins[annotation.id] for annotation in (argument.annotation, run.returns)]
    request, answer = (getattr(importlib.import_module(where), name) for where, name in origin)
    return request, answer


@pytest.mark.parametrize("name", JOBS)
def test_a_module_does_what_the_table_says(name: str) -> None:
    job = JOBS[name]
    assert job.name == name
    assert signature_in_source(job.module) == (job.request, job.answer)


def test_every_module_with_a_job_is_in_the_table() -> None:
    root = Path(kcost.__file__).parent
    names = {".".join(path.relative_to(root.parent).with_suffix("").parts) for path in root.glob("worker/**/*.py")}
    no_jobs = {"kcost.worker.scenarios"}  # its `run` is a part of measuring
    assert {job.module for job in JOBS.values()} == {name for name in names - no_jobs if has_run(name)}


def has_run(module: str) -> bool:
    tree = ast.parse((Path(kcost.__file__).parent.parent / f"{module.replace('.', '/')}.py").read_text())
    return any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body)


GOOD = {"family": "cnn", "data": "digits", "out": "/out", "name": "m", "usd_per_hour": 1.0, "usd_basis": "a test"}


@pytest.mark.parametrize(
    ("job", "document", "message"),
    [
        (TRAIN, {**GOOD, "epoch": 3}, "epoch: Extra inputs are not permitted"),
        (TRAIN, {**GOOD, "epochs": 0}, "epochs: Input should be greater than or equal to 1"),
        (TRAIN, {"family": "cnn"}, "data: Field required"),
        (MEASURE, {"op": "round", "cell_id": "x"}, "round.round_s: Field required"),
        (MEASURE, {}, "Unable to extract tag using discriminator 'op'"),
        (MEASURE, {"op": "rounds"}, "does not match any of the expected tags"),
    ],
)
def test_a_worker_refuses_a_request_of_other_fields_and_names_them(
    job: Job[Any, Any], document: dict[str, Any], message: str
) -> None:
    line = answer_to(job, json.dumps(document).encode())
    with pytest.raises(InputError, match=job.name) as raised:
        job.read_answer(line)
    assert message in str(raised.value.received)


def test_a_raw_dict_is_refused_before_it_is_sent_and_by_a_worker_that_gets_it() -> None:
    with Worker(TRAIN, "fake") as worker:
        with pytest.raises(ValueError, match="Expected `TrainRequest`"):
            worker.ask({**GOOD, "epoch": 3})  # type: ignore[arg-type]
        assert worker._process.stdin is not None
        worker._process.stdin.write(json.dumps({**GOOD, "epoch": 3}).encode() + b"\n")
        worker._process.stdin.flush()
        with pytest.raises(InputError, match="epoch: Extra inputs are not permitted"):
            worker.receive()


def test_requests_and_answers_are_the_same_on_the_other_side() -> None:
    request = EvaluateRequest(model=Path("/model"), limit=20)
    assert EVALUATE.read_request(EVALUATE.request_line(request)) == request
    turn = RoundRequest(cell_id="x", round_s=0.1)
    assert MEASURE.read_request(MEASURE.request_line(turn)) == turn
    for answer in (
        RoundAnswer(step_ns=(1, 2), cpu_s=0.1, peak_host_bytes=None),
        FailureAnswer(status="oom", reason=""),
    ):
        assert MEASURE.read_answer(MEASURE.answer_line(answer)) == answer


def test_numbers_that_are_not_finite_stay_so() -> None:
    line = MEASURE.answer_line(RoundAnswer(step_ns=(1,), cpu_s=float("inf"), peak_host_bytes=None))
    answer = MEASURE.read_answer(line)
    assert isinstance(answer, RoundAnswer)
    assert answer.cpu_s == float("inf")


@pytest.mark.parametrize("line", [b"\x00 not json", b"[]", b"{}", b'{"answer": {"version": 1}}', b'{"answer": null}'])
def test_a_line_that_is_no_answer_is_garbage(line: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 -- json's or pydantic's words
        DEVICES.read_answer(line)


def test_an_error_in_the_place_of_an_answer_is_raised_as_the_same_class() -> None:
    with pytest.raises(DataError, match="Received: 1"):
        DEVICES.read_answer(error_line(DataError("x", 1)))
    answer = DevicesAnswer(version="1", devices={"cpu": ("one",)})
    assert DEVICES.read_answer(DEVICES.answer_line(answer)) == answer
