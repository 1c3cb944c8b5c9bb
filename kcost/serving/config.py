"""What a folder says should be served: models.config and monitoring.config, or every model base path below it."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any, Literal

from google.protobuf import text_format
from pydantic import Field

from kcost.core.conversion import Runtime
from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.serving.messages import message_class
from kcost.serving.version_files import how_to_make, layout, version_files

MODELS_CONFIG = "models.config"
MONITORING_CONFIG = "monitoring.config"
METRICS_PATH = "/monitoring/prometheus/metrics"
CONTAINER_ROOT = PurePosixPath("/models")
"""Where the compose file of `kcost export` mounts the folder: its models.config names paths there."""

_LARGEST_VERSION = (1 << 63) - 1


class ModelEntry(Record):
    """One model that is to be served.

    Examples:
        >>> ModelEntry(name="digits", base_path=Path("serving/digits")).wanted((1, 2, 10))
        (10,)
    """

    name: str
    base_path: Path
    policy: Literal["latest", "all", "specific"] = "latest"
    count: int = 1
    versions: tuple[int, ...] = ()
    labels: dict[str, int] = Field(default_factory=dict)

    def wanted(self, there: tuple[int, ...]) -> tuple[int, ...]:
        """Which of the versions on disk are to be served, ascending."""
        if self.policy == "all":
            return tuple(sorted(there))
        if self.policy == "specific":
            return tuple(sorted(set(there) & set(self.versions)))
        return tuple(sorted(there)[-self.count :])


def versions_in(base_path: Path, runtime: Runtime = "saved_model") -> tuple[int, ...]:
    """The versions below a model base path: folders named by a number with what a runtime serves, ascending."""
    if not base_path.is_dir():
        return ()
    named = (p for p in base_path.iterdir() if p.name.isascii() and p.name.isdecimal())
    return tuple(
        sorted(
            {int(p.name) for p in named if int(p.name) <= _LARGEST_VERSION and version_files(p, runtime) is not None}
        )
    )


def version_folder(base_path: Path, version: int) -> Path:
    """The folder of a version; leading zeros are allowed, as TensorFlow Serving allows them."""
    named = base_path / str(version)
    if named.is_dir():
        return named
    for path in base_path.iterdir():
        if path.name.isdecimal() and int(path.name) == version:
            return path
    raise FileNotFoundError(f"{named} went away")


def read_models(folder: Path, runtime: Runtime = "saved_model") -> tuple[ModelEntry, ...]:
    """What models.config names, else each model base path below the folder; the folder itself may be one.

    Raises:
        InputError: the folder is not there, holds no model, or its models.config says something impossible.
    """
    config = folder / MODELS_CONFIG
    if config.is_file():
        return _listed(config)
    if not folder.is_dir():
        raise InputError(
            "kcost serves a folder with exported models.",
            received=f"{folder}, which is not there",
            remedy=f"Export a model first: {how_to_make(runtime)}",
        )
    if versions_in(folder, runtime):
        return (ModelEntry(name=folder.resolve().name, base_path=folder),)
    below = sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".") and versions_in(p, runtime))
    if not below:
        raise InputError(
            f"kcost serves a folder with exported models: {layout(runtime)}.",
            received=f"{folder}, which holds none",
            remedy=f"Export a model first: {how_to_make(runtime)}",
        )
    return tuple(ModelEntry(name=p.name, base_path=p) for p in below)


def read_metrics_path(folder: Path) -> str | None:
    """The path of the Prometheus metrics: that of monitoring.config, else TensorFlow Serving's; None where it is off.

    Raises:
        InputError: monitoring.config is no MonitoringConfig.
    """
    path = folder / MONITORING_CONFIG
    if not path.is_file():
        return METRICS_PATH
    prometheus = _parsed(path, "MonitoringConfig").prometheus_config
    if not prometheus.enable:
        return None
    named: str = prometheus.path or METRICS_PATH
    if not named.startswith("/"):
        raise InputError("The path of the metrics begins with a slash.", received=f"{path} with {named!r}")
    return named


def _parsed(path: Path, message: str) -> Any:
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message_class(message)())
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path.name} is a {message} in the text format of protocol buffers.",
            received=f"{path}: {error}",
            remedy="The place is line:column. The fields are those of TensorFlow Serving's configuration guide.",
        ) from error


def _listed(path: Path) -> tuple[ModelEntry, ...]:
    entries = [_entry(path, model) for model in _parsed(path, "ModelServerConfig").model_config_list.config]
    names = [entry.name for entry in entries]
    doubled = sorted({name for name in names if names.count(name) > 1})
    if doubled:
        raise InputError("Each model is listed once.", received=f"{path} with {', '.join(doubled)} more than once")
    if not entries:
        raise InputError(
            f"{MODELS_CONFIG} lists at least one model: model_config_list {{ config {{ ... }} }}",
            received=f"{path}, which lists none",
        )
    return tuple(entries)


def _entry(path: Path, model: Any) -> ModelEntry:
    if not model.name or not model.base_path:
        raise InputError("A model has a name and a base_path.", received=f"{path} with one that lacks them")
    if model.model_platform not in ("", "tensorflow"):
        raise InputError(
            "kcost serves models of the platform tensorflow.", received=f"{path}, {model.name}: {model.model_platform}"
        )
    policy = model.model_version_policy
    chosen = [kind for kind in ("latest", "all", "specific") if policy.HasField(kind)] or ["latest"]
    if len(chosen) > 1:
        raise InputError("A version policy is one of latest, all, specific.", received=f"{path}, {model.name}")
    versions = tuple(sorted(set(policy.specific.versions)))
    if chosen == ["specific"] and not versions:
        raise InputError("A specific policy names versions.", received=f"{path}, {model.name}")
    return ModelEntry(
        name=model.name,
        base_path=_base_path(path.parent, model.base_path),
        policy=chosen[0],
        count=policy.latest.num_versions or 1,
        versions=versions,
        labels={label.key: label.value for label in model.version_labels},
    )


def _base_path(folder: Path, named: str) -> Path:
    """Where a base path lies: as it is, else below the folder where it is relative or begins with /models."""
    path = Path(named)
    if path.is_absolute() and not path.exists() and path.is_relative_to(CONTAINER_ROOT):
        return folder / path.relative_to(CONTAINER_ROOT)
    return path if path.is_absolute() else folder / path
