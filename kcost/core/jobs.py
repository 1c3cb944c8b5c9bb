"""The jobs of workers, in one table: what each is asked, what it answers, and the module that does it.

A request and an answer are a line of JSON each; this module is the only one that knows how they are written.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError

from kcost.core.conversion import (
    ConversionCheckAnswer,
    ConversionCheckRequest,
    ConvertAnswer,
    ConvertRequest,
)
from kcost.core.errors import InputError, KcostError
from kcost.core.measuring import MeasureAnswer, MeasureOperation
from kcost.core.probe import ProbeAnswer, ProbeRequest
from kcost.core.request import (
    AttackReport,
    AttackRequest,
    BuildAnswer,
    BuildRequest,
    CheckpointAnswer,
    CheckpointRequest,
    CorruptRequest,
    DevicesAnswer,
    DevicesRequest,
    EvaluateRequest,
    Evaluation,
    ExamplesAnswer,
    ExamplesRequest,
    OodAnswer,
    OodRequest,
    OptimizeAnswer,
    OptimizeRequest,
    PredictAnswer,
    PredictRequest,
    TrainAnswer,
    TrainRequest,
)
from kcost.core.schema import describe_validation
from kcost.core.serving import ServeAnswer, ServeRequest

Request = TypeVar("Request")
Answer = TypeVar("Answer")


@dataclass(frozen=True, eq=False)
class Job(Generic[Request, Answer]):
    """One thing that a worker does.

    Args:
        name: what a worker is started with: `python -m kcost.worker NAME`.
        module: holds `run`, which takes a request and gives an answer. Only a worker imports it.
        request: a Record, or a tagged union of Records.
        answer: the same.
        tells_progress: whether its standard output is kcost's own progress. That of others is of the libraries in it.
    """

    name: str
    module: str
    request: type[Request]
    answer: type[Answer]
    tells_progress: bool = False

    @cached_property
    def _requests(self) -> TypeAdapter[Request]:
        return TypeAdapter(self.request)

    @cached_property
    def _answers(self) -> TypeAdapter[Answer]:
        return TypeAdapter(self.answer)

    def request_line(self, request: Request) -> bytes:
        """A request as a worker reads it, with the end of the line."""
        return _line(self._requests.dump_python(request, mode="json", warnings="error"))

    def read_request(self, line: bytes) -> Request:
        """The request of a line.

        Raises:
            InputError: it is no request of this job; the fields that are wrong are named.
        """
        try:
            return self._requests.validate_json(line)
        except ValidationError as error:
            raise InputError(
                f"A request to the job {self.name!r} has the fields that `kcost.core.jobs` gives it.",
                received=describe_validation(error),
            ) from error

    def answer_line(self, answer: Answer) -> bytes:
        """An answer as the parent reads it, with the end of the line."""
        return _line({"answer": self._answers.dump_python(answer, mode="json", warnings="error")})

    def read_answer(self, line: bytes) -> Answer:
        """The answer of a line.

        Raises:
            KcostError: the line holds an error in the place of an answer; it is raised as the same class.
            ValueError: the line holds neither.
        """
        document = json.loads(line)
        if not isinstance(document, dict) or not document.keys() & {"answer", "error"}:
            raise ValueError("neither an answer nor an error")
        if "error" in document:
            raise KcostError.from_dict(document["error"])
        return self._answers.validate_python(document["answer"])


def error_line(error: KcostError) -> bytes:
    """An error in the place of an answer, with the end of the line."""
    return _line({"error": error.as_dict()})


def _line(document: Any) -> bytes:
    # Not pydantic's own JSON, which has null for numbers that are not finite.
    return json.dumps(document).encode() + b"\n"


TRAIN = Job("train", "kcost.worker.train", TrainRequest, TrainAnswer, tells_progress=True)
EVALUATE = Job("evaluate", "kcost.worker.evaluate", EvaluateRequest, Evaluation, tells_progress=True)
PREDICT = Job("predict", "kcost.worker.predict", PredictRequest, PredictAnswer, tells_progress=True)
EXAMPLES = Job("examples", "kcost.worker.examples", ExamplesRequest, ExamplesAnswer)
CORRUPT = Job("corrupt", "kcost.worker.corrupted", CorruptRequest, PredictAnswer, tells_progress=True)
OOD = Job("ood", "kcost.worker.out_of_distribution", OodRequest, OodAnswer, tells_progress=True)
OPTIMIZE = Job("optimize", "kcost.worker.optimize", OptimizeRequest, OptimizeAnswer, tells_progress=True)
ROBUSTNESS = Job("robustness", "kcost.worker.robustness", AttackRequest, AttackReport, tells_progress=True)
BUILD = Job("build", "kcost.worker.build", BuildRequest, BuildAnswer)
CONVERT = Job("convert", "kcost.worker.convert.job", ConvertRequest, ConvertAnswer)
CHECK_CONVERSION = Job("check-conversion", "kcost.worker.convert.check", ConversionCheckRequest, ConversionCheckAnswer)
EXPORT_CHECKPOINT = Job("export-checkpoint", "kcost.worker.export_checkpoint", CheckpointRequest, CheckpointAnswer)
SERVE = Job("serve", "kcost.worker.serve", ServeRequest, ServeAnswer)
PROBE = Job("probe", "kcost.worker.probe", ProbeRequest, ProbeAnswer)
DEVICES = Job("devices", "kcost.worker.devices", DevicesRequest, DevicesAnswer)
MEASURE: Job[MeasureOperation, MeasureAnswer] = Job(
    "measure",
    "kcost.worker.measure",
    MeasureOperation,  # type: ignore[arg-type]  # a union, which is no class
    MeasureAnswer,  # type: ignore[arg-type]
)

JOBS: dict[str, Job[Any, Any]] = {
    job.name: job
    for job in (
        *(TRAIN, EVALUATE, OPTIMIZE, ROBUSTNESS, BUILD, CONVERT, CHECK_CONVERSION),
        *(EXPORT_CHECKPOINT, PREDICT, EXAMPLES, CORRUPT, OOD, PROBE, SERVE, DEVICES, MEASURE),
    )
}
"""Every job by name."""
