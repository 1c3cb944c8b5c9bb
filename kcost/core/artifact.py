"""A trained model on disk: a folder with `model.keras`, `artifact.json` and some real held-out samples.

Anybody's own `.keras` file is taken as an artifact too; what the folder would say of it is then unknown.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from kcost.core import schema
from kcost.core.answer import Answers, Kind, OutputFacts, plain_answers
from kcost.core.errors import ArtifactError, StorageError, storage
from kcost.core.keras_file import read_members
from kcost.core.output_facts import output_facts
from kcost.core.pixels import Pixels
from kcost.core.schema import VERSIONS, Record

MODEL_FILE = "model.keras"
SAMPLES_FILE = "samples.npz"
INDEX_FILE = "artifact.json"

SAMPLES = 256
"""Held-out examples that an artifact carries, and the most that a cell of a bench is scored on: the same ones at every
batch size, as scores of cells are held against each other. At batch 1 that is as many steps."""

Task = Literal["image-classification", "token-classification", "sequence-classification", "arrays", "unknown"]
"""arrays: whatever a model answers on arrays of numbers, of which `answers` tells the kind."""

_TASK_ANSWERS: dict[str, tuple[Kind, bool]] = {
    "image-classification": ("multiclass", False),
    "token-classification": ("tags", True),
    "sequence-classification": ("multiclass", True),
}
"""Task -> what kcost's own models of it answer, and whether as logits."""


class TensorSpec(Record):
    """Name, shape (None where free, the batch axis included) and dtype of one input or output."""

    name: str
    shape: tuple[int | None, ...]
    dtype: str


class Score(Record):
    """One quality figure of a model, with what it was taken on."""

    name: str
    split: str
    value: float
    low: float = Field(description="lower end of the 95% interval")
    high: float = Field(description="upper end of the 95% interval")
    count: int = Field(ge=0, description="examples, tokens or entities that the figure rests on")
    unit: str = Field(description="what `count` counts")
    output: str | None = Field(default=None, description="of the model's outputs; None where it has only one")


class Counts(Record):
    """Right and wrong answers for one class, or entities of one type.

    Precision, recall and F1 are 0 where their denominator is 0, as in seqeval and scikit-learn.
    """

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def support(self) -> int:
        """How many there are in truth."""
        return self.true_positives + self.false_negatives

    @property
    def precision(self) -> float:
        """Share of what was predicted that is right, 0 to 1."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of what is there in truth that was found, 0 to 1."""
        return _share(self.true_positives, self.support)

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall, 0 to 1."""
        return _share(2 * self.true_positives, 2 * self.true_positives + self.false_positives + self.false_negatives)


class QualityReport(Record):
    """The answers of a model on a split, by class or entity type."""

    split: str
    unit: str = Field(description="what the counts count")
    classes: dict[str, Counts]
    confusion: tuple[tuple[int, ...], ...] | None = Field(
        default=None, description="how often each class was taken for each: [label][prediction]; None for entities"
    )
    truncated: int = Field(
        default=0, description="words that the model did not see and that were scored as missed, or cut texts"
    )
    padding_saved: float | None = Field(
        default=None, description="share of positions that length buckets spare, against padding all to the longest"
    )


class Split(Record):
    """Size and content hash of one part of a data set."""

    count: int
    sha256: str


class Dataset(Record):
    """The data that a model was made on."""

    name: str
    synthetic: bool
    source: str
    licence: str
    splits: dict[str, Split]
    notes: tuple[str, ...] = ()


class RunCost(Record):
    """What making a model took."""

    wall_s: float
    energy_wh: float | None
    energy_basis: str = Field(description="counter, estimated or not measured, with the source")
    usd: float | None
    usd_basis: str = Field(description="the price and whether it is assumed")
    labelled_examples: int = Field(description="examples of the training and validation splits, all labelled")
    parts_s: dict[str, float] = Field(
        default_factory=dict,
        description="of a training, seconds by part: reading, starting, steps, evaluating, saving; empty where nobody "
        "measured them",
    )


class Step(Record):
    """One link of the chain that made a model: what was done, what it changed and skipped, what it took."""

    kind: Literal["train", "prune", "quantize", "import"]
    backend: str
    backend_version: str
    settings: dict[str, Any]
    changed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    cost: RunCost | None = None


class Artifact(Record):
    """`artifact.json`."""

    schema_: int = Field(default=VERSIONS["artifact"], alias="schema")
    name: str
    task: Task
    family: str = Field(description="cnn, bert, or unknown for anybody's own file")
    model_sha256: str
    parameters: int | None
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    answers: Answers | None = Field(default=None, description="what its outputs say; None in artifacts of before")
    label_names: tuple[str, ...] = ()
    dataset: Dataset | None = None
    pixels: Pixels | None = Field(default=None, description="how it takes images; None for texts, and where not known")
    scores: tuple[Score, ...] = ()
    report: QualityReport | None = Field(default=None, description="of the test split; None without classes")
    steps: tuple[Step, ...] = ()
    created_at: str

    @property
    def training(self) -> Step | None:
        """The last step that trained it; None for a model that came trained."""
        return next((step for step in reversed(self.steps) if step.kind == "train"), None)


class Model(Record):
    """A model to work on: its `.keras` file and, for an artifact folder, what the folder says."""

    name: str
    keras_file: Path
    sha256: str
    artifact: Artifact | None = Field(description="None for a bare .keras file")
    data_file: Path | None = Field(default=None, description="npz with inputs, and labels, in the place of its samples")

    @property
    def samples_file(self) -> Path | None:
        """Real inputs and labels: those it was given, else the held-out ones of an artifact folder, else None."""
        if self.data_file is not None:
            return self.data_file
        path = self.keras_file.parent / SAMPLES_FILE
        return path if self.artifact is not None and path.exists() else None

    @property
    def task(self) -> Task:
        """The task, or unknown for a bare file."""
        return "unknown" if self.artifact is None else self.artifact.task

    def output_facts(self) -> tuple[OutputFacts, ...]:
        """What is known of each output: as the artifact stores it, else as the `.keras` file says.

        Raises:
            ArtifactError: the file cannot be read.
        """
        about = self.artifact
        if about is not None and about.answers is not None:
            return tuple(OutputFacts(name=a.output, stated=a) for a in about.answers.outputs)
        if about is not None and about.family != "unknown" and about.task in _TASK_ANSWERS:
            return tuple(OutputFacts(name=a.output, stated=a) for a in answers_of_task(about.task).outputs)
        return _facts_in_file(self.keras_file, self.sha256)


@lru_cache(maxsize=64)
def _facts_in_file(keras_file: Path, sha256: str) -> tuple[OutputFacts, ...]:
    """Read once for all cells of a model; another file of the same path has another hash."""
    return output_facts(read_members(keras_file)[0])


def answers_of_task(task: str) -> Answers:
    """What kcost's own models of a task answer. Raises KeyError for a task that it trains no model for."""
    kind, logits = _TASK_ANSWERS[task]
    return plain_answers(kind, logits=logits, because=f"the task {task}")


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def open_model(path: Path | str) -> Model:
    """Opens an artifact folder or a `.keras` file, without any framework.

    Raises:
        ArtifactError: nothing is there, it is neither, or the model file differs from its index.
        SchemaError: `artifact.json` is damaged or of a newer schema.
    """
    path = Path(path)
    remedy = "Give a folder that `kcost train` made, or a .keras file."
    if path.is_file():
        if path.suffix != ".keras":
            raise ArtifactError("A model is an artifact folder or a .keras file.", received=path, remedy=remedy)
        return Model(name=path.stem, keras_file=path, sha256=sha256_of(path), artifact=None)
    if not path.is_dir():
        raise ArtifactError("A model is an artifact folder or a .keras file.", f"{path}, which is not there", remedy)
    keras_file = path / MODEL_FILE
    for needed in (path / INDEX_FILE, keras_file):
        if not needed.is_file():
            raise ArtifactError(
                f"An artifact folder holds {needed.name}.", received=f"{path} without it", remedy=remedy
            )
    artifact = schema.read("artifact", path / INDEX_FILE, Artifact)
    sha256 = sha256_of(keras_file)
    if sha256 != artifact.model_sha256:
        raise ArtifactError(
            f"{MODEL_FILE} is the file that {INDEX_FILE} was written for.",
            received=f"{keras_file} with SHA-256 {sha256[:12]}..., expected {artifact.model_sha256[:12]}...",
            remedy="The file was changed or cut short after training. Train again, or give the .keras file itself.",
        )
    return Model(name=artifact.name, keras_file=keras_file, sha256=sha256, artifact=artifact)


def refuse_existing(path: Path) -> None:
    """Raises StorageError where `path` is a file or a folder with content: kcost overwrites nothing."""
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    raise StorageError(
        "kcost never overwrites: the output folder is new or empty.",
        received=f"{path}, which is there already",
        remedy="Name another folder, or remove that one first.",
    )


def refuse_unwritable(path: Path) -> None:
    """Raises StorageError where no folder can be made at `path`. The folder above it is made where it is not there."""
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.").cleanup()


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at `path` whole when the block ends, or not at all when it fails.

    Raises:
        StorageError: `path` holds something already, or cannot be written to.
    """
    refuse_existing(path)
    with storage(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
        try:
            draft.chmod(0o755)
            yield draft
            if path.is_dir():
                path.rmdir()
            draft.replace(path)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
