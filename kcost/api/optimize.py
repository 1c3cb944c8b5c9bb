"""Makes a model cheaper and measures what that brought: what `kcost optimize` runs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from kcost.api.inventory import prices
from kcost.api.refusals import refuse_before_scoring
from kcost.bench.runner import measure
from kcost.core import environment
from kcost.core.artifact import Model, open_model, refuse_existing
from kcost.core.jobs import OPTIMIZE
from kcost.core.plan import INFERENCE_METHODS, Backend, Plan
from kcost.core.process import chosen_backend, require, run_job
from kcost.core.progress import OnProgress, silent
from kcost.core.request import OptimizeRequest, checked
from kcost.core.result import Run
from kcost.cost.machine_match import Match
from kcost.cost.payoff import Payoff, Size, decide, speeds_of
from kcost.report.derived_results import ShownPayoff
from kcost.report.notebook import shown

REFUSED_SUFFIX = "-refused"
RUN_FOLDER = "bench"
"""Where the measurements lie in the folder of the optimized model."""


def run_optimize(
    model: Path | str,
    out: Path | str,
    *,
    max_drop: float = 0.01,
    backend: Backend | None = None,
    name: str | None = None,
    batches: Sequence[int] = (1, 32),
    threads: int = 0,
    rounds: int = 10,
    output: str | None = None,
    task: str | None = None,
    threshold: float | None = None,
    on_progress: OnProgress = silent,
    **settings: Any,
) -> ShownPayoff:
    """Prunes and quantizes a model, measures it before and after on one backend, and says whether it paid.

    Args:
        model: an artifact folder or a .keras file.
        out: the artifact folder to make; `<out>-refused` where the score may have dropped by more than `max_drop`.
        max_drop: held against the one-sided 95% bound of the drop, as a fraction of 1.
        name: of the new model; made of the old one's and what was done where it is None.
        batches, threads, rounds: how both are measured.
        output, task, threshold: as of `evaluate`.
        settings: further fields of `kcost.core.request.OptimizeRequest`: prune, quantize, data, skip, epochs, ...

    Raises:
        InputError: a setting outside its range, nothing to do, or data that do not fit the model.
        UnavailableError: the backend is not installed.
        StorageError: `out` is there already, or cannot be written to.

    Examples:
        >>> measured = {"backend": "torch", "batches": [8], "rounds": 2}
        >>> payoff = kcost.run_optimize("digits-cnn", "digits-int8", quantize="weight-only", max_drop=0.5, **measured)
        >>> payoff.after.file_bytes < payoff.before.file_bytes
        True
    """
    chosen = require(backend) if backend else chosen_backend()
    opened = open_model(model)
    match = prices().closest(environment.collect())
    kept = {key: value for key, value in settings.items() if value is not None}
    values = {
        "model": Path(model).absolute(),
        "out": Path(out).absolute(),
        "name": name or "-".join(filter(None, (opened.name, *_done(kept)))),
        "usd_per_hour": match.usd_per_hour,
        "usd_basis": match.why,
        "answer": {"output": output, "kind": task, "threshold": threshold},
        **kept,
    }
    plan = {"batches": list(batches), "threads": threads, "settings": {"rounds": rounds}}
    request = checked(OptimizeRequest, values)
    refuse_before_scoring(opened, request.data, chosen)
    for folder in (request.out, _refused_folder(request.out)):
        refuse_existing(folder)
    return shown(ShownPayoff, _optimized(request, chosen, match, max_drop, plan, on_progress))


def _done(settings: dict[str, Any]) -> list[str]:
    """What is done to a model, for its name."""
    mode = settings.get("quantize")
    return ["pruned"] * ("prune" in settings) + ([mode if mode == "bfloat16" else "int8"] if mode else [])


def _refused_folder(out: Path) -> Path:
    """Where the model goes that may have lost too much."""
    return out.with_name(out.name + REFUSED_SUFFIX)


def _optimized(
    request: OptimizeRequest,
    backend: Backend,
    match: Match,
    max_drop: float,
    settings: dict[str, Any],
    on_progress: OnProgress,
) -> Payoff:
    """Optimizes in a worker, then measures both models in turns.

    A model that may have lost too much is kept apart: in `<out>-refused`.

    Args:
        match: the price that time is turned into dollars with.
        max_drop: largest drop of the score, as a fraction of 1.
        settings: `batches`, `threads` and `settings` of the plan that both are measured by.
    """
    on_progress(0, 1, f"optimizing {request.model}")
    answer = run_job(OPTIMIZE, backend, request, quiet=on_progress is silent)
    out = request.out
    if answer.drop.bound > max_drop:
        out = out.replace(_refused_folder(out))
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
    preparation = largest.preparation if largest is not None else None
    return Size(
        file_bytes=model.keras_file.stat().st_size,
        parameters=preparation.parameters if preparation else None,
        peak_host_bytes=preparation.peak_host_bytes if preparation else None,
    )
