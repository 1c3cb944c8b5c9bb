"""The three things that people do, a call each: find the cheapest way to run a model, make it cheaper, ship it.

Each calls the verbs that the command line calls, with defaults for what is mostly wanted.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kcost.core.plan import Backend
from kcost.core.progress import OnProgress, silent

if TYPE_CHECKING:
    from kcost.core.request import QuantizeMode
    from kcost.report.derived_results import ShownExport, ShownPayoff
    from kcost.report.measured_results import ShownVerdict


def find_cheapest(
    model: Path | str,
    out: Path | str | None = None,
    *,
    backends: Sequence[Backend] | None = None,
    batches: Sequence[int] | None = None,
    data: str | None = None,
    settings: dict[str, Any] | None = None,
    p99_ms: float | None = None,
    max_drop: float | None = None,
    provider: str | None = None,
    region: str | None = None,
    instance: str | None = None,
    on_progress: OnProgress = silent,
    **axes: Any,
) -> ShownVerdict:
    """Measures the ways to run a model on this machine, and ranks them in dollars: `kcost bench` in Python.

    It is `run_bench` on `make_plan` with `estimate_cost` after it. A run that was stopped goes on.

    Args:
        model: an artifact folder, a .keras file, or another model that `run_bench` takes.
        out: the run folder; None makes `NAME-run` in the working folder.
        backends: None takes all that are installed.
        batches: batch sizes; None takes 1 and 32.
        data: npz with inputs, and `labels` if known; None takes the artifact's own samples, or makes inputs up.
        settings: how cells are measured, such as `{"rounds": 5}` or `{"minutes": 10}`: fields of `kcost.Settings`.
        p99_ms, max_drop, provider, region, instance: as of `estimate_cost`.
        axes: further axes of the plan: precisions, methods, threads, devices, phases (inference alone by default).

    Raises:
        InputError: the model, the data or an axis cannot be used.
        UnavailableError: no backend, or one that was named, is not installed.
        PriceError: the price book has no price for what was asked.

    Examples:
        >>> quick = {"rounds": 3, "round_s": 0.05, "warmup_s": 0.1}
        >>> verdict = kcost.find_cheapest("digits-cnn", backends=["torch"], batches=[32], settings=quick)
        >>> [conclusion.model for conclusion in verdict.conclusions]
        ['digits-cnn']
        >>> sorted({row["backend"] for row in verdict.records()})
        ['torch']
    """
    from kcost.api.measuring import estimate_cost, make_plan, run_bench

    folder = Path(f"{_stem(model)}-run") if out is None else Path(out)
    chosen = {"phases": ["inference"], "backends": backends, "batches": batches, "data": data, **axes}
    run_bench(make_plan([str(model)], settings=settings, **chosen), folder, on_progress=on_progress)
    return estimate_cost(folder, provider=provider, region=region, instance=instance, p99_ms=p99_ms, max_drop=max_drop)


def make_cheaper(
    model: Path | str,
    out: Path | str | None = None,
    *,
    quantize: QuantizeMode | None = "dynamic",
    max_drop: float = 0.01,
    data: str | None = None,
    backend: Backend | None = None,
    on_progress: OnProgress = silent,
    **settings: Any,
) -> ShownPayoff:
    """Makes a model cheaper, measures it before and after, and says whether it paid: `kcost optimize` in Python.

    It is `run_optimize`, with int8 as what is done where nothing else is asked for.

    Args:
        model: an artifact folder or a .keras file.
        out: the artifact folder to make; None makes `NAME-cheaper` in the working folder.
        quantize: `dynamic`, `static` or `weight-only` int8, or `bfloat16`; None only prunes, by `prune`.
        max_drop: held against the one-sided 95% bound of the drop of the score, as a fraction of 1.
        data: name or path of a data set; None takes the one that the artifact names.
        backend: None takes KERAS_BACKEND, else the first that is installed.
        settings: what else `run_optimize` takes: prune, skip, epochs, batches, rounds, ...

    Raises:
        InputError: a setting outside its range, or data that do not fit the model.
        UnavailableError: the backend is not installed.
        StorageError: `out` is there already, or cannot be written to.

    Examples:
        >>> quick = {"batches": [8], "rounds": 2, "max_drop": 0.5, "backend": "torch"}
        >>> payoff = kcost.make_cheaper("digits-cnn", quantize="weight-only", **quick)
        >>> payoff.out.endswith("digits-cnn-cheaper")
        True
    """
    from kcost.api.optimize import run_optimize

    folder = Path(f"{_stem(model)}-cheaper") if out is None else Path(out)
    return run_optimize(
        model,
        folder,
        max_drop=max_drop,
        backend=backend,
        on_progress=on_progress,
        **{"data": data, "quantize": quantize, **settings},
    )


def make_servable(
    model: Path | str,
    out: Path | str = "serving",
    *,
    name: str | None = None,
    version: int = 1,
    portable: bool = False,
    on_progress: OnProgress = silent,
) -> ShownExport:
    """Writes a folder that TensorFlow Serving and `kcost serve` serve, and checks it: `kcost export` in Python.

    Args:
        model: an artifact folder or a .keras file.
        out: the folder of all models that are served.
        name: what requests call the model; None takes the model's own name.
        version, portable, on_progress: as of `export`.

    Raises:
        UnavailableError: tensorflow is not installed.
        GateError: the saved model does not answer as the model does. Nothing is left behind.
        StorageError: the version is there already, or the folder cannot be written to.

    Examples:
        >>> report = kcost.make_servable("digits-cnn", "served")
        >>> report.name, report.version
        ('digits-cnn', 1)
    """
    from kcost.api.shipping import export
    from kcost.report.derived_results import ShownExport
    from kcost.report.notebook import shown

    called = name or re.sub(r"[^A-Za-z0-9_-]+", "-", _stem(model)).strip("-") or "model"
    report = export(model, out, name=called, version=version, portable=portable, on_progress=on_progress)
    return shown(ShownExport, report)


def _stem(model: Path | str) -> str:
    """What a model is called by its path, or by the function that makes it."""
    text = str(model)
    return text.rpartition(":")[2] if ":" in text else Path(text).absolute().stem
