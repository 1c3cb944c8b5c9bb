"""What a search is asked to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from kcost.core.plan import Backend, Device
from kcost.core.request import Family, Seed
from kcost.core.schema import Record

SCHEMA = 1
"""Of what kcost writes into a study's database. A study of another schema is refused."""

Objective = Literal["inference", "training"]
"""What is to be cheap besides a high score: predictions of the trained model, or a training run."""


class SearchRequest(Record):
    """A search. Processes that name the same storage and study work on it together."""

    family: Family
    data: str = Field(description="name of a data set, or a path")
    out: Path = Field(description="folder for the models of this process's trials, and for the default database")
    backend: Backend
    objective: Objective = "inference"
    trials: int = Field(default=20, ge=1, description="trials in the study when it is done, earlier ones included")
    minutes: float | None = Field(default=None, gt=0, description="no trial starts after so many minutes")
    storage: str | None = Field(default=None, description="URL of a database; None: a SQLite file in `out`")
    study: str | None = Field(default=None, min_length=1, description="name in the database; None: of data and family")
    device: Device = Field(default="cpu", description="device that costs are measured on")
    settings: dict[str, Any] = Field(default={}, description="fields of TrainRequest that are fixed, not searched")
    seed: Seed = 0
    provider: str | None = None
    region: str | None = None
    instance: str | None = None
    prices_file: Path | None = None

    @property
    def study_name(self) -> str:
        """The study's name in the database."""
        return self.study or f"{Path(self.data).name}-{self.family}"

    def identity(self) -> dict[str, Any]:
        """What all trials of a study have in common, as plain data: only searches that agree on it may share one."""
        names = {"family", "data", "backend", "objective", "device", "settings", "seed"}
        prices = {"provider", "region", "instance", "prices_file"}
        chosen = self.model_dump(mode="json", include=names | prices)
        return {"schema": SCHEMA, **json.loads(json.dumps(chosen, sort_keys=True, default=str))}
