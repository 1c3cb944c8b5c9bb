"""Verbs that bring a model to where it is served."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from kcost.core.artifact import Model, open_model
from kcost.core.conversion import RUNTIMES, Runtime, RuntimePrecision
from kcost.core.errors import InputError
from kcost.core.keras_file import inspect_keras_file
from kcost.core.progress import OnProgress, silent

if TYPE_CHECKING:
    from kcost.core.serving import Batching
    from kcost.ship.export_report import ExportReport
    from kcost.ship.huggingface import CheckpointReport


def export(
    model: Path | str,
    out: Path | str,
    *,
    name: str,
    version: int = 1,
    portable: bool = False,
    warm_up_batches: Sequence[int] | None = None,
    labels: Sequence[str] = (),
    run: Path | str | None = None,
    queries_per_s: float | None = None,
    p99_ms: float | None = None,
    calibrated: bool = False,
    risk: Path | str | None = None,
    to: Sequence[str] = (),
    on_progress: OnProgress = silent,
) -> ExportReport:
    """Writes a TensorFlow Serving model base path and checks it with TensorFlow's own C++ loader.

    Args:
        portable: keep to public operations, for a server of another build or CPU; int8 blocks are slower then.
        warm_up_batches: batch sizes that a server warms up with before it serves the version; default: 1 and 8.
        labels: that name this version in models.config, such as `stable` or `canary`.
        run: a run folder with cells of `tensorflow/saved_model` of the model. With it, `queries_per_s` and `p99_ms`,
            how the server puts requests together is chosen, and its batch sizes are warmed up.
        queries_per_s: of the traffic.
        p99_ms: most that the p99 from arrival to answer may be.
        calibrated: put the probabilities at the temperature that `assess_risk` fitted for this model.
        risk: the folder of that report, where it was given another.
        to: runtimes that the model is converted to as well, as `RUNTIME` or `RUNTIME:PRECISION`: litert, onnx,
            openvino; float32 where it is not said. `kcost serve --backend RUNTIME` serves them.
        on_progress: told of each step as it begins: a file is written, and then checked.

    Raises:
        InputError: of run, queries_per_s and p99_ms one is there without the others, or the run says too little.
        InputError: `calibrated`, and there is no report of this very model, or no temperature does best.
        UnavailableError: tensorflow is not installed.
        GateError: the saved model does not answer as the artifact does. Nothing is left behind.
        StorageError: the version is there already, or the folder cannot be written to.

    Examples:
        >>> report = kcost.export("digits-cnn", "serving", name="digits")
        >>> report.version
        1
    """
    from kcost.serving.monitor.alerts import alert_rules, dashboard
    from kcost.ship.export import WARM_UP_BATCHES, export as export_model
    from kcost.ship.monitoring_files import DASHBOARD_FILE, RULES_FILE
    from kcost.ship.server_files import signed

    opened = open_model(model)
    temperature = None
    if calibrated:
        from kcost.api.risk_predictions import temperature_of

        temperature = temperature_of(opened, risk)
    inspect_keras_file(opened.keras_file)
    return export_model(
        opened,
        Path(out),
        name,
        version,
        portable=portable,
        warm_up_batches=WARM_UP_BATCHES if warm_up_batches is None else warm_up_batches,
        batching=batching_of(opened, run, queries_per_s, p99_ms),
        labels=labels,
        temperature=temperature,
        to=_runtimes(to),
        on_progress=on_progress,
        watching={
            RULES_FILE: signed(alert_rules(p99_ms)),
            DASHBOARD_FILE: json.dumps(dashboard(), indent=1) + "\n",
        },
    )


def _runtimes(texts: Sequence[str]) -> dict[Runtime, RuntimePrecision]:
    """Runtimes with their precisions; each is held against what the runtime has where it is converted."""
    named: dict[Runtime, RuntimePrecision] = {}
    for text in texts:
        name, _, precision = text.partition(":")
        runtime = next((r for r in RUNTIMES if r == name and r != "saved_model"), None)
        known = next((p for p in get_args(RuntimePrecision) if p == (precision or "float32")), None)
        if runtime is None or known is None or runtime in named:
            raise InputError(
                "A model is exported to a runtime once: litert, onnx or openvino, with :PRECISION behind it or not.",
                received=", ".join(texts),
                remedy=f"Such as --to litert --to onnx:int8; precisions are {', '.join(get_args(RuntimePrecision))}.",
            )
        named[runtime] = known
    return named


def batching_of(
    model: Model, run: Path | str | None, queries_per_s: float | None, p99_ms: float | None
) -> Batching | None:
    """How a server puts requests to a model together; None where nothing is given to choose it from.

    Raises:
        InputError: as of `export`.
    """
    if run is None and queries_per_s is None and p99_ms is None:
        return None
    if run is None or queries_per_s is None or p99_ms is None:
        missing = {"--run": run, "--qps": queries_per_s, "--p99-ms": p99_ms}
        raise InputError(
            "How a server puts requests together is chosen from a run, a rate and a p99.",
            received=f"no {', no '.join(name for name, value in missing.items() if value is None)}",
            remedy="Give all three, or none.",
        )
    from kcost.bench.store import RunStore
    from kcost.cost.server_batching import choose_batching

    return choose_batching(RunStore(run).load(), model.sha256, queries_per_s, p99_ms)


def export_huggingface(model: Path | str, out: Path | str) -> CheckpointReport:
    """Writes a trained bert as a Hugging Face folder that transformers loads.

    Raises:
        ArtifactError: the model is no bert that kcost trained.
        StorageError: `out` holds something already, or cannot be written to.
    """
    from kcost.ship.huggingface import export_checkpoint

    return export_checkpoint(open_model(model), Path(out))
