"""The files of a folder of exports, taken together: what is served, and what starts the server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from kcost.core import schema
from kcost.ship.export_report import REPORT_FILE, ExportReport
from kcost.ship.kubernetes import DOCKER, DOCKERFILE, KUBERNETES_FILE, ServedModel, manifests, memory_mib
from kcost.ship.monitoring_files import REFERENCE_FILE, monitoring_files
from kcost.ship.server_files import (
    BATCHING_CONFIG,
    COMPOSE,
    COMPOSE_FILE,
    MODELS_CONFIG,
    MONITORING,
    MONITORING_CONFIG,
    batching_config,
    is_own,
    with_models,
)
from kcost.ship.version_labels import served_versions, with_label


def write_server_files(
    out: Path, name: str, version: int, labels: Sequence[str], watching: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Lists every model of the folder in models.config; writes the other files, those of a person left as they are.

    Args:
        watching: path below `out` -> text, of alert rules and dashboards.

    Returns:
        What a person has to see to.
    """
    path = out / MODELS_CONFIG
    before = path.read_text(encoding="utf-8") if path.exists() else None
    names = {p.parent.parent.name for p in out.glob("*/*/saved_model.pb") if p.parent.name.isdecimal()}
    after = with_models(before, names)
    others = [int(p.name) for p in (out / name).iterdir() if p.name.isdecimal() and p.name != str(version)]
    for label in labels:
        after = with_label(after, name, label, version, beside=sorted(others)[-1:])
    models = _served_models(out, after, sorted(names))
    batched = sum(model.batching is not None for model in models)
    texts = {
        DOCKERFILE: DOCKER,
        MONITORING_CONFIG: MONITORING,
        COMPOSE_FILE: COMPOSE,
        BATCHING_CONFIG: batching_config(batched),
        KUBERNETES_FILE: manifests(models),
        **monitoring_files(_references(out, after, sorted(names))),
        **(watching or {}),
    }
    warnings = []
    for file, text in texts.items():
        there = (out / file).read_text(encoding="utf-8") if (out / file).exists() else None
        if there is None or is_own(there):
            schema.write_bytes(out / file, text.encode())
        elif file == KUBERNETES_FILE:
            warnings.append(
                f"{file} was changed by hand and stays. The models now take {memory_mib(models)} MiB a pod, "
                f"by what was measured when they were checked."
            )
    if after != before:
        schema.write_bytes(path, after.encode())
    served = served_versions(after, name) if labels or before is not None else None
    if served is not None and version not in served:
        warnings.append(
            f"{MODELS_CONFIG} lists the versions {', '.join(map(str, served))} of {name}, so that version {version} is "
            "not served. Export the next one with --label, or list this one there."
        )
    return tuple(warnings)


def _references(out: Path, config: str, names: Sequence[str]) -> dict[str, int]:
    """Of each model with one, the latest served version that has a reference."""
    references = {}
    for name in names:
        versions = {int(p.parent.name) for p in (out / name).glob(f"*/{REFERENCE_FILE}") if p.parent.name.isdecimal()}
        served = served_versions(config, name)
        usable = versions if served is None else versions & set(served)
        if usable:
            references[name] = max(usable)
    return references


def _served_models(out: Path, config: str, names: Sequence[str]) -> list[ServedModel]:
    """Each model of the folder with the memory of the versions that are served."""
    models = []
    for name in names:
        reports = {int(p.parent.name): p for p in (out / name).glob(f"*/{REPORT_FILE}") if p.parent.name.isdecimal()}
        served = served_versions(config, name) or (max(reports, default=0),)
        read = [schema.read("export", reports[v], ExportReport) for v in served if v in reports]
        peak = sum(report.peak_bytes or report.weights_bytes for report in read)
        models.append(ServedModel(name, peak, read[-1].batching if read else None))
    return models
