"""What the workers that export a model are asked, and what they answer."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from kcost.core.artifact import TensorSpec
from kcost.core.schema import Record


class ExportRequest(Record):
    """Writing a `.keras` file as a SavedModel."""

    keras_file: Path
    folder: Path = Field(description="of the SavedModel; exists and is empty")
    samples: Path | None = Field(description="npz with real inputs by name; None: inputs are made up")
    batches: tuple[int, ...] = Field(description="batch sizes of the probes")
    probes: Path = Field(description="an existing folder for the probes, an npz each")
    portable: bool = Field(default=False, description="public operations of TensorFlow only")


class ExportProbe(Record):
    """Inputs and what the model gave for them: arrays `input/NAME`, `output/NAME`, of a model that rounds
    `change/NAME` too."""

    file: Path
    batch: int
    free_axes: tuple[int, ...] = Field(description="lengths of the free axes other than the batch")
    source: Literal["samples", "random"] = Field(description="real inputs of the artifact, or drawn ones")


class ExportAnswer(Record):
    """A SavedModel that was written."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    probes: tuple[ExportProbe, ...]
    keras_version: str
    tensorflow_version: str
    weights_bytes: int
    internal_operations: tuple[str, ...] = Field(description="operations of the graph that are no public ones")
    plain_blocks: tuple[tuple[str, str], ...] = Field(
        description="layer and reason, of fused layers that could not be written in their fast form"
    )


class SavedModelCheckRequest(Record):
    """Holding a SavedModel against the model that it was made from."""

    folder: Path
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    probes: tuple[ExportProbe, ...]


class Check(Record):
    """One comparison of the SavedModel with the model."""

    batch: int
    free_axes: tuple[int, ...] = Field(description="lengths of the free axes other than the batch")
    source: str = Field(description="`samples`: real inputs of the artifact; `random`: drawn ones")
    max_abs_difference: float


class SavedModelCheckAnswer(Record):
    """A SavedModel that gives the model's outputs."""

    checks: tuple[Check, ...]
    library_version: str = Field(description="of the TensorFlow library that ran it")


class CheckpointRequest(Record):
    """Writing a trained BERT as a Hugging Face folder."""

    model: Path = Field(description="an artifact folder")
    folder: Path = Field(description="exists and is empty")


class CheckpointAnswer(Record):
    """A Hugging Face folder that was written."""

    tensors: int
    parameters: int
