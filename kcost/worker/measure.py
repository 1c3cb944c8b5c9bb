"""The measuring worker: gets cells ready, then runs each for a moment whenever it is its turn.

What it is asked and answers is in `core/measuring.py`.
"""

from __future__ import annotations

import gc
import io
import os
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from kcost.backends import driver
from kcost.backends.base import Driver, LoadedPrecision, Subject
from kcost.core.answer import Answers, resolve
from kcost.core.answer_scores import not_finite, predictions_of
from kcost.core.conversion import Runtime
from kcost.core.entities import UNSEEN_LABELS
from kcost.core.errors import KcostError, UnavailableError, in_a_line
from kcost.core.garbage_collection import collector_paused
from kcost.core.measuring import (
    FailureAnswer,
    MeasureAnswer,
    MeasureOperation,
    PrepareAnswer,
    PrepareRequest,
    ProfileAnswer,
    ProfileRequest,
    ReleaseAnswer,
    ReleaseRequest,
    RoundAnswer,
    RoundRequest,
    ScenarioAnswer,
    ScenarioRequest,
    StartAnswer,
    StartRequest,
)
from kcost.core.plan import CellSpec, Device, Precision, Settings
from kcost.core.request import MeasureRequest
from kcost.core.result import Preparation
from kcost.core.scenario import Ask
from kcost.core.schema import write_bytes
from kcost.core.stats import has_settled
from kcost.worker import scenarios
from kcost.worker.idle import until_idle
from kcost.worker.inputs import (
    MADE_SAMPLES,
    MADE_SEED,
    PROBE_ROWS,
    Samples,
    make_samples,
    random_like,
    read_samples,
    signature_of,
)
from kcost.worker.memory import host_bytes, reset_peak_host_memory
from kcost.worker.profile import profile_cell

MIN_WARMUP_STEPS = 3
WARMUP_GROWTH = 1.25
"""A warm-up that has not settled goes on for as much longer before it is looked at again."""

_TRAINED_IN: dict[Precision, LoadedPrecision] = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
    "saved": "saved",
}
"""What a model is loaded in to be trained: weights that learn stay in float32."""

_ready: dict[str, Callable[[int], None]] = {}
"""By cell_id, a function that does the cell's i-th step to its end."""

_queries: dict[str, scenarios.Queries] = {}
"""By cell_id, for inference, what answers single samples."""

_subjects: dict[str, tuple[MeasureRequest, Subject]] = {}
"""By cell_id, what a profile looks into."""


class _Backend(NamedTuple):
    """The driver of this process, and what importing it took."""

    driver: Driver
    import_s: float
    host_bytes: int | None


def run(request: MeasureOperation) -> MeasureAnswer:
    """Answers one request, and leaves the cores to others before it does. A failure of the cell's own is an answer."""
    try:
        answer = _answer(request)
    except KcostError:
        raise
    except Exception as error:
        traceback.print_exc()  # into the log of this worker
        answer = FailureAnswer(status="oom" if _is_out_of_memory(error) else "crash", reason=in_a_line(error))
    until_idle()
    return answer


def _answer(request: MeasureOperation) -> MeasureAnswer:
    match request:
        case StartRequest():
            return StartAnswer(import_s=_backend(request.runtime).import_s)
        case PrepareRequest():
            return PrepareAnswer(preparation=_prepare(request.request, request.started_beside))
        case RoundRequest():
            return _round(_ready[request.cell_id], request.round_s)
        case ScenarioRequest():
            return _scenario(_queries[request.cell_id], request.ask)
        case ProfileRequest():
            return _profile(*_subjects[request.cell_id])
        case ReleaseRequest():
            _ready.clear()
            _queries.clear()
            _subjects.clear()
            _model.cache_clear()
            gc.collect()
            return ReleaseAnswer()


@lru_cache(maxsize=1)
def _backend(runtime: Runtime | None) -> _Backend:
    start = time.perf_counter()
    backend = _runtime_driver(runtime) if runtime else driver(os.environ["KERAS_BACKEND"].replace("numpy", "fake"))
    seconds = time.perf_counter() - start
    backend.set_threads(int(os.environ["OMP_NUM_THREADS"]))
    return _Backend(backend, seconds, host_bytes("VmRSS"))


def _runtime_driver(runtime: Runtime) -> Driver:
    from kcost.forward.runtime_driver import runtime_driver  # it loads the runtimes, which a backend has no need of

    return runtime_driver(runtime)


@lru_cache(maxsize=4)
def _model(keras_file: Path, precision: LoadedPrecision, runtime: Runtime | None) -> tuple[Any, float]:
    start = time.perf_counter()
    model = _backend(runtime).driver.load(keras_file, precision)
    return model, time.perf_counter() - start


def _round(step: Callable[[int], None], round_s: float) -> RoundAnswer:
    """One turn of a cell, with what it took of CPU time (all threads) and the most memory that it held."""
    reset_peak_host_memory()
    before = time.process_time()
    step_ns = _timed(step, round_s, 1)
    cpu_s = time.process_time() - before
    return RoundAnswer(step_ns=tuple(step_ns), cpu_s=cpu_s, peak_host_bytes=host_bytes("VmHWM"))


def _scenario(queries: scenarios.Queries, ask: Ask) -> ScenarioAnswer:
    """One scenario of a cell, or one rate of it, with the CPU time that it took (all threads)."""
    before = time.process_time()
    durations = scenarios.run(ask, queries, scenarios.SystemClock())
    return ScenarioAnswer(durations_ns=tuple(durations), cpu_s=time.process_time() - before)


def _profile(request: MeasureRequest, subject: Subject) -> ProfileAnswer:
    """Where the time of a cell goes."""
    backend = _backend(request.spec.runtime).driver
    return ProfileAnswer(profile=profile_cell(backend, subject, request.spec))


def _prepare(request: MeasureRequest, started_beside: int) -> Preparation:
    spec = request.spec
    backend, import_s, imported_host_bytes = _backend(spec.runtime)
    _check_device(backend, spec)
    _take_device(spec.device, spec.runtime)
    reset_peak_host_memory()
    if spec.phase == "training":
        # A training step changes weights: it gets a model of its own, in float32 with bfloat16 arithmetic.
        precision = _TRAINED_IN[spec.precision]
        start = time.perf_counter()
        model = backend.load(request.keras_file, precision)
        load_s = time.perf_counter() - start
    else:
        model, load_s = _model(request.keras_file, cast(LoadedPrecision, spec.precision), spec.runtime)
    samples = _samples(request, model)
    batches = samples.batches(spec.batch)
    step: Callable[[int], None]
    if spec.phase == "training":
        if spec.device != "cpu":
            _check_placement(backend, [v.value for v in model.trainable_variables], spec)
        answers, trained_labels = _learnt(request, backend, model, samples)
        samples = replace(samples, labels=trained_labels)
        batches = samples.batches(spec.batch)
        train = backend.train_step(model, None if answers is None else _loss(answers))

        def step(i: int) -> None:
            batch = batches[i % len(batches)]
            backend.to_host(train(batch.inputs, batch.labels))  # type: ignore[arg-type]  # one array by now
    else:
        forward = backend.forward(model, spec.method, spec.batch)
        if spec.device != "cpu":
            _check_placement(backend, forward(batches[0].inputs), spec)

        def step(i: int) -> None:
            backend.to_host(forward(batches[i % len(batches)].inputs))

    first_call_s = _seconds(step)
    done: list[int] = []
    bad_numbers, not_scored = None, None
    if spec.phase == "inference":
        scored = samples.rows(0, min(len(samples), request.settings.scored_examples))
        # `predict` cuts its own batches: one call for all rows, as its user would make.
        rows = len(scored) if spec.method == "predict" else spec.batch
        recorded, calls = _recorded(lambda x: backend.to_host(forward(x)))
        answers = None
        try:
            answered = _in_batches(recorded, scored, rows)
            answers, scored_labels = resolve(request.outputs, [y.shape for y in answered], scored.labels)
            bad_numbers = not_finite([a.output for a in answers.outputs], answered) or backend.not_numbers(model)
            probed = _probe(recorded, samples, rows, request.settings.seed)
            labelled = replace(scored, labels=scored_labels)
            _write_outputs(request, answers, probed, answered, labelled)
        except (KcostError, MemoryError):
            raise
        except Exception as error:
            # How long a step takes is known without: a step that fails itself fails again in the warm-up.
            traceback.print_exc()
            not_scored = in_a_line(error)
        # Scoring runs the very steps that are measured: a large model need not warm up for as long again.
        done = calls if rows == spec.batch else []
        _queries[spec.cell_id] = scenarios.Queries(lambda x: backend.to_host(forward(x)), samples, spec.batch)
    warmup = _warm_up(step, request.settings, done)
    _ready[spec.cell_id] = step
    labels = cast(np.ndarray, batches[0].labels) if spec.phase == "training" else None
    _subjects[spec.cell_id] = (request, Subject(model, step, [b.inputs for b in batches], labels))
    return Preparation(
        import_s=import_s,
        load_s=load_s,
        first_call_s=first_call_s,
        warmup_ns=tuple(warmup),
        settled=has_settled(warmup),
        started_beside=started_beside,
        backend_version=backend.version(),
        device_name=backend.devices()[spec.device][0],
        threads=len(os.sched_getaffinity(0)),
        jit=backend.is_jit(model, spec.method),
        tf32=backend.tf32(),
        inputs_on="host",
        computed_dtype=backend.computed_dtype(model),
        not_scored=not_scored,
        parameters=model.count_params(),
        peak_host_bytes=host_bytes("VmHWM"),
        imported_host_bytes=imported_host_bytes,
        peak_device_bytes=backend.peak_device_bytes(),
        simulated=backend.simulated,
        answers=answers,
        not_finite=bad_numbers,
    )


def _loss(answers: Answers) -> Any:
    from kcost.training.losses import loss_of  # it imports keras, which the fake backend has no need of

    return loss_of(answers.main)


def _learnt(
    request: MeasureRequest, backend: Driver, model: Any, samples: Samples
) -> tuple[Answers | None, np.ndarray]:
    """What a training step learns, and the labels of all samples in the form that its loss wants."""
    if samples.labels is None:
        raise UnavailableError("A training step needs labels.", received="samples without labels")
    if backend.simulated:
        assert isinstance(samples.labels, np.ndarray)
        return None, samples.labels
    shapes = [tuple(t.shape) for t in model.outputs]
    answers, labels = resolve(request.outputs, shapes, samples.labels)
    if labels is None or len(shapes) > 1:
        raise UnavailableError(
            "A training step needs a model with one output, which the labels are of.",
            received=answers.unscored_because or f"{len(shapes)} outputs",
            remedy="Measure inference only (--phases inference).",
        )
    return answers, labels


def _samples(request: MeasureRequest, model: Any) -> Samples:
    if request.samples_file is not None:
        return read_samples(request.samples_file, signature_of(model))
    if request.spec.backend == "fake":
        return Samples({"x": np.zeros((MADE_SAMPLES, 2), np.float32)}, np.zeros(MADE_SAMPLES, np.int32))
    return make_samples(model, MADE_SAMPLES, MADE_SEED)


def _check_device(backend: Driver, spec: CellSpec) -> None:
    devices = backend.devices()
    if not devices.get(spec.device):
        seen = ", ".join(f"{kind}: {len(names)}" for kind, names in devices.items())
        raise UnavailableError(
            f"A cell on {spec.device} runs on a {spec.device} that {spec.backend} sees.",
            received=seen,
            remedy="Name another device, or install the framework's build for it.",
        )


@lru_cache(maxsize=1)
def _take_device(device: Device, runtime: Runtime | None) -> None:
    _backend(runtime).driver.take_device(device)


def _check_placement(backend: Driver, tensors: Any, spec: CellSpec) -> None:
    """Raises UnavailableError where tensors of a cell lie elsewhere than it asked for: a figure of another device."""
    if (device := backend.device_kind(tensors)) != spec.device:
        raise UnavailableError(
            f"A cell that asked for a {spec.device} runs on one.",
            received=f"tensors on the {device}, although {spec.backend} lists a {spec.device}",
            remedy=f"Look into the worker's log for why the framework left its {spec.device} alone.",
        )


def _seconds(step: Callable[[int], None]) -> float:
    start = time.perf_counter()
    step(0)
    return time.perf_counter() - start


def _recorded(
    forward: Callable[[dict[str, np.ndarray]], list[np.ndarray]],
) -> tuple[Callable[[dict[str, np.ndarray]], list[np.ndarray]], list[int]]:
    """The same function, and the list that it writes the duration of each call to, in nanoseconds."""
    durations: list[int] = []

    def timed(inputs: dict[str, np.ndarray]) -> list[np.ndarray]:
        start = time.perf_counter_ns()
        outputs = forward(inputs)
        durations.append(time.perf_counter_ns() - start)
        return outputs

    return timed, durations


def _warm_up(step: Callable[[int], None], settings: Settings, before: Sequence[int] = ()) -> list[int]:
    """Durations of steps, `before` among them, until they have settled, or have taken `warmup_max_s`."""
    done = [*before]
    done += _timed(step, settings.warmup_s - sum(done) / 1e9, MIN_WARMUP_STEPS - len(done))
    while not has_settled(done) and (spent_s := sum(done) / 1e9) < settings.warmup_max_s:
        more_s = min(spent_s * (WARMUP_GROWTH - 1), settings.warmup_max_s - spent_s)
        done += _timed(step, more_s, 1)
    return done


def _timed(step: Callable[[int], None], least_s: float, least_steps: int) -> list[int]:
    """Durations in nanoseconds of single steps, for at least `least_s` and `least_steps`."""
    durations: list[int] = []
    clock = time.perf_counter_ns
    with collector_paused():
        end = clock() + int(least_s * 1e9)
        before = clock()
        while before < end or len(durations) < least_steps:
            step(len(durations))
            after = clock()
            durations.append(after - before)
            before = after
    return durations


def _probe(
    forward: Callable[[dict[str, np.ndarray]], list[np.ndarray]], samples: Samples, batch: int, seed: int
) -> list[np.ndarray]:
    """The outputs over the parity probe, through the measured forward pass.

    The probe is made of all samples, so that its random rows are the same whatever the batch size.
    """
    half = PROBE_ROWS // 2
    real, made = samples.rows(0, half), random_like(samples, half, seed)
    rows = Samples({n: np.concatenate([real.inputs[n], made.inputs[n]]) for n in samples.inputs}, None)
    return _in_batches(forward, rows, batch)


def _in_batches(
    forward: Callable[[dict[str, np.ndarray]], list[np.ndarray]], samples: Samples, batch: int
) -> list[np.ndarray]:
    """The outputs over all samples.

    Raises:
        UnavailableError: an output has no row for each example.
        TypeError: an output is made of something else than real numbers.
    """
    answered = [forward(samples.rows(i, batch).inputs) for i in range(0, len(samples), batch)]
    for place, output in enumerate(answered[0]):
        if output.dtype.kind not in "fiub":
            raise TypeError(f"output {place} is of dtype {output.dtype}, which are no real numbers")
        if output.ndim == 0 or len(output) != batch:
            raise UnavailableError(
                "Each output of a model has a row for each example.",
                received=f"output {place} of shape {output.shape} for {batch} examples",
                remedy="Give the output the batch axis of the inputs, or leave it out of the model.",
            )
    return [np.concatenate(parts)[: len(samples)] for parts in zip(*answered, strict=True)]


def _write_outputs(
    request: MeasureRequest, answers: Answers, probed: list[np.ndarray], answered: list[np.ndarray], scored: Samples
) -> None:
    """The arrays that `CellResult.outputs_file` tells of.

    Args:
        scored: what was answered, with the labels of the scored output alone.
    """
    arrays: dict[str, np.ndarray] = {}
    for answer, outputs, examples in zip(answers.outputs, probed, answered, strict=True):
        mark = "" if answer == answers.main else f"/{answer.output}"
        arrays[f"outputs{mark}"] = outputs
        arrays[f"predictions{mark}"] = predictions_of(answer, examples)
        if request.settings.keep_outputs and answer == answers.main:
            arrays["scored_outputs"] = examples.astype(np.float32)
    if scored.labels is not None:
        assert isinstance(scored.labels, np.ndarray)
        arrays["labels"] = scored.labels
        if scored.unseen_labels is not None:
            arrays[UNSEEN_LABELS] = scored.unseen_labels
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)  # type: ignore[arg-type]  # numpy types its own flag into **kwds
    write_bytes(request.outputs_file, content.getvalue())


def _is_out_of_memory(error: Exception) -> bool:
    text = f"{type(error).__name__} {error}".lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "resource_exhausted" in text
