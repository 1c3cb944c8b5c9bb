"""Makes a model cheaper and measures what that brought: what `kcost optimize` runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from kcost.bench.runner import measure
from kcost.core.artifact import Model, open_model
from kcost.core.plan import INFERENCE_METHODS, Backend, Plan
from kcost.core.process import run_job
from kcost.core.request import OptimizeAnswer, OptimizeRequest
from kcost.core.result import Run
from kcost.cost.machine_match import Match
from kcost.cost.payoff import Payoff, Size, decide, speeds_of

REFUSED_SUFFIX = "-refused"
RUN_FOLDER = "bench"
"""Where the measurements lie in the folder of the optimized model."""


def refused_folder(out: Path) -> Path:
    """Where the model goes that may have lost too much."""
    return out.with_name(out.name + REFUSED_SUFFIX)


def optimize(
    request: OptimizeRequest,
    backend: Backend,
    match: Match,
    max_drop: float,
    settings: dict[str, Any],
    on_progress: Callable[[int, int, str], None],
) -> Payoff:
    """Optimizes in a worker, then measures both models in turns.

    A model that may have lost too much is kept apart: in `<out>-refused`.

    Args:
        match: the price that time is turned into dollars with.
        max_drop: largest drop of the score, as a fraction of 1.
        settings: `batches`, `threads` and `settings` of the plan that both are measured by.
    """
    on_progress(0, 1, f"optimizing {request.model}")
    answer = OptimizeAnswer.model_validate(run_job("optimize", backend, request.model_dump(mode="json")))
    out = request.out
    if answer.drop.bound > max_drop:
        out = out.replace(refused_folder(out))
    before, after = open_model(request.model), open_model(out)
    document = {
        "models": [str(request.model), str(out)],
        "backends": [backend],
        "precisions": ["float32"],
        "phases": ["inference"],
        "methods": [INFERENCE_METHODS[backend][0]],
        "together": True,
        **settings,
    }
    pixels = answer.artifact.pixels
    run = measure(Plan.parse(document, "optimize"), out / RUN_FOLDER, on_progress)
    speeds = speeds_of(run, before.name, after.name, match)
    sizes = [_size(model, run) for model in (before, after)]
    word, sentence = decide(answer.drop, max_drop, speeds, *sizes)
    done = 0 if before.artifact is None else len(before.artifact.steps)
    return Payoff(
        word=word,
        sentence=sentence,
        model=before.name,
        out=str(out),
        backend=backend,
        drop=answer.drop,
        max_drop=max_drop,
        speeds=speeds,
        before=sizes[0],
        after=sizes[1],
        steps=answer.artifact.steps[done:],
        assumptions=(match.why, *(() if pixels is None else (str(pixels),))),
    )


def _size(model: Model, run: Run) -> Size:
    cells = [c for c in run.cells if c.spec.model == model.name and c.preparation is not None]
    largest = max(cells, key=lambda c: c.spec.batch, default=None)
    told = largest.preparation if largest is not None else None
    return Size(
        file_bytes=model.keras_file.stat().st_size,
        parameters=told.parameters if told else None,
        peak_host_bytes=told.peak_host_bytes if told else None,
    )
