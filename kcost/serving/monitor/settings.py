"""What the user says of watching: `monitor.toml`."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, ValidationError, field_validator, model_validator

from kcost.core.errors import InputError
from kcost.core.schema import Record, describe_validation
from kcost.risk.rollout import RolloutLimits

Kind = Literal["shadow", "canary"]
"""Of a new version beside an old one."""


class SampleSettings(Record):
    """Which requests are stored, and what of them. Inputs are left out, and texts hashed, unless asked for."""

    folder: Path
    share: float = Field(default=0.01, ge=0, le=1, description="of requests; labels are always stored")
    max_mib: float = Field(default=100.0, gt=0, description="the oldest go when there is more")
    max_days: float = Field(default=7.0, gt=0, description="older ones go")
    inputs: bool = Field(default=False, description="store what was asked, not only features and answers")
    text: bool = Field(default=False, description="store strings and token ids as they are, not their hashes")
    drop: tuple[str, ...] = Field(default=(), description="names of fields that are left out, wherever they stand")
    hash: tuple[str, ...] = Field(default=(), description="names of fields that are hashed, whatever they hold")


class EventSettings(Record):
    """Who is told when drift begins and ends."""

    file: Path | None = Field(default=None, description="JSON lines")
    webhooks: tuple[str, ...] = Field(default=(), description="URLs that events are posted to as JSON")

    @field_validator("webhooks")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            parts = urlsplit(url)
            if parts.scheme not in ("http", "https") or not parts.hostname:
                raise ValueError(f"a webhook is an http or https URL, not {url!r}")
        return urls


class ShadowSettings(RolloutLimits):
    """Another version of a model that is asked the same, after the client has its answer."""

    version: int = Field(ge=0)
    share: float = Field(default=0.1, gt=0, le=1, description="of requests")
    stable: int | None = Field(
        default=None,
        ge=0,
        description="what answers requests that name no version; None leaves them to the server: its largest one",
    )
    label: str | None = Field(
        default=None, min_length=1, description="requests for it, too, are shared out and go to `stable`"
    )

    @model_validator(mode="after")
    def _has_two_versions(self) -> Self:
        if self.stable == self.version:
            raise ValueError(f"`stable` is another version than `version`, which is {self.version}")
        if self.label is not None and self.stable is None:
            raise ValueError("`label` is of requests that go to `stable`: name that version, too")
        return self


class CanarySettings(ShadowSettings):
    """Another version of a model that answers a share of the requests."""

    stable: int = Field(ge=0, description="the version that answers the others, and what the canary fails at")
    sticky_header: str | None = Field(
        default=None,
        pattern=r"^[A-Za-z0-9-]+$",
        description="requests with the same value of it go to the same version; None draws for each",
    )


class RolloutSettings(Record):
    """Where the counts of shadows and canaries are stored."""

    file: Path | None = Field(default=None, description="JSON; None: they are in memory, and begin anew with the proxy")


class MonitorSettings(Record):
    """How a proxy watches."""

    references: dict[str, Path] = Field(default={}, description="name of a served model -> its reference file")
    window_rows: int = Field(default=200, ge=20, le=100_000)
    false_alarms: float = Field(default=0.01, gt=0, lt=1, description="for ever, of a model, over all its features")
    usd_per_error: float = Field(default=0.0, ge=0, allow_inf_nan=False)
    p99_ms: float | None = Field(default=None, gt=0, description="a limit; the conclusion and the alert rules hold it")
    shadow: dict[str, ShadowSettings] = Field(default={}, description="name of a served model -> its shadow")
    canary: dict[str, CanarySettings] = Field(default={}, description="name of a served model -> its canary")
    rollouts: RolloutSettings = RolloutSettings()
    samples: SampleSettings | None = None
    events: EventSettings = EventSettings()
    seed: int = 0

    @model_validator(mode="after")
    def _has_one_rollout_a_model(self) -> Self:
        both = sorted(self.shadow.keys() & self.canary.keys())
        if both:
            raise ValueError(f"a model has a shadow or a canary: {', '.join(both)} has both")
        return self


def read_settings(path: Path) -> MonitorSettings:
    """Reads `monitor.toml`; paths in it are relative to its folder.

    Raises:
        InputError: it is no TOML, or a field is unknown or wrong.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        settings = MonitorSettings.model_validate(document)
    except ValidationError as error:
        raise InputError(
            "monitor.toml has the fields in docs/monitoring.md.", received=f"{path}: {describe_validation(error)}"
        ) from error
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InputError("--monitor names a TOML file.", received=f"{path}: {error}") from error
    here = path.absolute().parent
    samples, events, rollouts = settings.samples, settings.events, settings.rollouts
    if samples is not None:
        samples = samples.model_copy(update={"folder": here / samples.folder})
    if events.file is not None:
        events = events.model_copy(update={"file": here / events.file})
    if rollouts.file is not None:
        rollouts = rollouts.model_copy(update={"file": here / rollouts.file})
    references = {name: here / file for name, file in settings.references.items()}
    return settings.model_copy(
        update={"references": references, "samples": samples, "events": events, "rollouts": rollouts}
    )


def named_references(texts: list[str]) -> dict[str, Path]:
    """`NAME=FILE` as a name and a file; FILE alone has the empty name: its own model's.

    Examples:
        >>> sorted(named_references(["digits=a/reference.json"]))
        ['digits']
    """
    named: dict[str, Path] = {}
    for text in texts:
        match = re.fullmatch(r"([^=/]+)=(.+)", text)
        name, file = (match[1], match[2]) if match else ("", text)
        if name in named:
            raise InputError("Each model has one reference.", received=text, remedy="Say --reference NAME=FILE.")
        named[name] = Path(file)
    return named
