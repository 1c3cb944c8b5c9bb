"""What the parent asks of a worker, checked on both sides of the process boundary."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from kcost.core.answer import AnswerChoice, Answers, OutputFacts
from kcost.core.artifact import Artifact, Dataset, QualityReport, Score
from kcost.core.errors import InputError
from kcost.core.pixels import PixelScale
from kcost.core.plan import CellSpec, Settings
from kcost.core.prune_spec import parse_prune_spec
from kcost.core.schema import Record, describe_validation
from kcost.core.score_drop import ScoreDrop

R = TypeVar("R", bound=Record)
Family = Literal["cnn", "bert"]
SIZES: dict[Family, tuple[str, ...]] = {"cnn": ("seed", "small"), "bert": ("tiny", "mini", "minilm", "base")}
"""The sizes of each family that `kcost.models` has."""

Freeze = Literal["none", "embeddings", "backbone"]
Schedule = Literal["constant", "linear", "cosine"]


Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""What numpy and each backend take as the seed of their random numbers."""


DISTILLED = 0.5
"""Share of the loss that goes by a teacher's answers where no other was asked for: both count alike."""


class TrainRequest(Record):
    """A training run. Every number here is a setting that a user may choose."""

    family: Family
    data: str = Field(description="name of a data set, or a path")
    out: Path
    name: str = Field(min_length=1)
    size: str | None = Field(default=None, description="None: `seed` for cnn, `tiny` for bert")
    init: Path | None = Field(default=None, description="bert: a Hugging Face BERT folder, or a Keras preset folder")
    epochs: int = Field(default=5, ge=1)
    batch_size: int = Field(default=32, ge=1)
    learning_rate: float | None = Field(
        default=None, gt=0, description="None: 1e-3 for cnn, 5e-4 for bert from scratch"
    )
    patience: int = Field(default=2, ge=0, description="epochs without a better validation loss before it stops")
    max_length: int = Field(default=128, ge=8, le=512, description="word pieces, [CLS] and [SEP] included")
    vocabulary_size: int = Field(default=8000, ge=100)
    limit: int | None = Field(default=None, ge=10, description="most examples of each split, for a quick look")
    labels: int | None = Field(
        default=None, ge=10, description="examples of the training and validation splits together; the test stays whole"
    )
    freeze: Freeze = Field(default="none", description="layers that keep their weights; `embeddings` counts as layer 0")
    freeze_layers: int = Field(default=0, ge=0, description="bert: this many encoder layers too, from the input on")
    lora_rank: int | None = Field(default=None, ge=1, description="train low-rank updates of attention only")
    layer_decay: float = Field(
        default=1.0, gt=0, le=1, description="factor of the learning rate, a layer towards the input"
    )
    schedule: Schedule = "constant"
    warmup_fraction: float = Field(default=0.0, ge=0, lt=1, description="share of all steps in which the rate rises")
    clip_norm: float | None = Field(default=None, gt=0, description="largest global norm of the gradient")
    weight_decay: float = Field(default=0.01, ge=0)
    dropout: float | None = Field(
        default=None, ge=0, lt=1, description="None: 0.1 for bert, 0.2 for a small cnn; a seed cnn has none"
    )
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    class_weights: Literal["none", "balanced"] = "none"
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    augment: bool = Field(default=False, description="images: rotation of 10 degrees, shifts of 10%")
    augment_strength: float = Field(default=1.0, gt=0, le=4, description="factor of these; few epochs want less")
    flip: bool = Field(default=False, description="images: mirror left and right as well")
    adversarial_epsilon: float = Field(default=0.0, ge=0, description="train on FGSM examples of this size too")
    tensorboard: Path | None = None
    distill: float = Field(
        default=0.0, ge=0, le=1, description="share of the loss that goes by another model's answers"
    )
    teacher: Path | None = Field(
        default=None, description="an artifact folder whose model's answers on the training split are learnt as well"
    )
    prune_above: dict[int, float] | None = Field(
        default=None, description="epoch, from 1 on -> validation loss above which the run ends there"
    )
    repair: bool = Field(default=True, description="mend bad tag sequences; False refuses them")
    seed: Seed = 0
    usd_per_hour: float = Field(gt=0, description="price of this machine, for the cost of the run")
    usd_basis: str

    @model_validator(mode="after")
    def _refuse_unknown_size(self) -> TrainRequest:
        if self.size is not None and self.size not in SIZES[self.family]:
            known = ", ".join(SIZES[self.family])
            raise InputError(f"A {self.family} has one of the sizes {known}.", received=repr(self.size))
        return self

    @model_validator(mode="after")
    def _refuse_idle_options(self) -> TrainRequest:
        """Raises InputError for an option that would change nothing: whoever gives it expects that it does."""
        idle = {"cnn": ("max_length", "vocabulary_size"), "bert": () if self.init is None else ("vocabulary_size",)}
        fields = type(self).model_fields
        given = [name for name in idle[self.family] if getattr(self, name) != fields[name].default]
        if given:
            options = " and ".join("--" + name.replace("_", "-") for name in given)
            raise InputError(
                "A cnn reads no text." if self.family == "cnn" else "A pretrained encoder has its own vocabulary.",
                received=options,
                remedy=f"Leave {options} out.",
            )
        return self


class TrainAnswer(Record):
    """A model that was trained."""

    artifact: Artifact
    history: tuple[dict[str, float], ...] = Field(description="an epoch each")
    validation_scores: tuple[Score, ...]
    pruned: bool = Field(description="it was ended early, as `prune_above` said")


QuantizeMode = Literal["dynamic", "static", "weight-only", "keras", "bfloat16"]


class OptimizeRequest(Record):
    """Making a model cheaper: pruned, fine-tuned, then its precision lowered."""

    model: Path
    out: Path
    name: str = Field(min_length=1)
    data: str | None = Field(default=None, description="None: the data set that the artifact names")
    pixels: PixelScale | None = Field(default=None, description="of images; None: as the artifact or the file says")
    prune: str | None = Field(default=None, description="as `kcost.core.prune_spec` reads it")
    quantize: QuantizeMode | None = None
    skip: tuple[str, ...] = Field(default=(), description="names or path patterns of layers to leave as they are")
    epochs: int = Field(default=3, ge=0, description="of fine-tuning after or while pruning; 0 prunes once")
    batch_size: int | None = Field(default=None, ge=1, description="None: as the model was trained, else 32")
    learning_rate: float | None = Field(
        default=None, gt=0, description="None: as the model was trained, else 1e-3 for images, 5e-5 for texts"
    )
    flip: bool | None = Field(default=None, description="images: mirror left and right; None: as the model was trained")
    distill: float = Field(
        default=0.5, ge=0, le=1, description="share of the loss that goes by the model's own answers"
    )
    calibration_examples: int = Field(default=256, ge=1, description="of the training split, for static int8")
    limit: int | None = Field(default=None, ge=10, description="most examples of each split, for a quick look")
    answer: AnswerChoice = AnswerChoice()
    seed: Seed = 0
    usd_per_hour: float = Field(gt=0, description="price of this machine, for the cost of the run")
    usd_basis: str

    @model_validator(mode="after")
    def _refuse_nothing_to_do(self) -> OptimizeRequest:
        """Raises InputError where nothing is asked for, or a spec of pruning that is none."""
        if self.prune is None and self.quantize is None:
            raise InputError(
                "Something is to be done to the model.",
                received="neither --prune nor --int8 nor --bfloat16",
                remedy="Give one of them, such as --int8 dynamic or --prune magnitude:0.5.",
            )
        if self.prune is not None:
            parse_prune_spec(self.prune)
        return self


class OptimizeAnswer(Record):
    """A model that was made cheaper, and what that cost in quality."""

    artifact: Artifact
    drop: ScoreDrop


class EvaluateRequest(Record):
    """Scoring a model on the test split of a data set."""

    model: Path
    data: str | None = Field(default=None, description="None: the data set that the artifact names")
    pixels: PixelScale | None = Field(default=None, description="of images; None: as the artifact or the file says")
    limit: int | None = Field(default=None, ge=10)
    batch_size: int = Field(default=256, ge=1)
    answer: AnswerChoice = AnswerChoice()
    auroc: bool = Field(default=False, description="the area under the ROC curve of a binary output as well")


class Evaluation(Record):
    """What a model answers on the test split of a data set."""

    scores: tuple[Score, ...]
    report: QualityReport | None = Field(description="None for answers without classes")
    dataset: Dataset
    answers: Answers = Field(description="what each output was taken as, and from what")


class PredictRequest(Record):
    """Storing what a model answers on every split, with labels and probabilities."""

    model: Path
    data: str | None = Field(default=None, description="None: the data set that the artifact names")
    pixels: PixelScale | None = Field(default=None, description="of images; None: as the artifact or the file says")
    limit: int | None = Field(default=None, ge=10)
    batch_size: int = Field(default=256, ge=1)
    train_examples: int = Field(default=10_000, ge=1, description="most training examples, in a seeded order")
    answer: AnswerChoice = AnswerChoice()
    file: Path = Field(description="npz to write, as `kcost.core.predictions` has it")


CLEAN = "clean"
"""Name of the test examples as they are, among the conditions of a CorruptRequest."""

ATTACKED: dict[str, tuple[Literal["fgsm", "pgd"], float]] = {
    "FGSM 2%": ("fgsm", 0.02),
    "FGSM 5%": ("fgsm", 0.05),
    "PGD 5%": ("pgd", 0.05),
}
"""Attacks among them: the method, and its size as a share of white, or of the mean length of a text as embedded."""


class CorruptRequest(Record):
    """Storing what a model answers on test examples under changes of stated strengths."""

    model: Path
    data: str | None = Field(default=None, description="None: the data set that the artifact names")
    pixels: PixelScale | None = Field(default=None, description="of images; None: as the artifact or the file says")
    limit: int | None = Field(default=None, ge=10)
    examples: int = Field(default=2000, ge=10, description="most test examples, a seeded sample")
    batch_size: int = Field(default=256, ge=1)
    answer: AnswerChoice = AnswerChoice()
    file: Path = Field(description="npz to write, as `kcost.core.predictions` has it: a split a condition")


class OodRequest(Record):
    """Storing how sure a model is of each test example, and of each example of other data."""

    model: Path
    data: str | None = Field(default=None, description="None: the data set that the artifact names")
    other: str = Field(description="name or path of data that the model was not made for")
    pixels: PixelScale | None = Field(default=None, description="of images; None: as the artifact or the file says")
    limit: int | None = Field(default=None, ge=10)
    batch_size: int = Field(default=256, ge=1)
    answer: AnswerChoice = AnswerChoice()
    file: Path = Field(description="npz to write, as `kcost.core.ood_scores` has it")


class OodAnswer(Record):
    """The figures are stored."""

    dataset: Dataset
    other: Dataset


class PredictAnswer(Record):
    """The predictions are stored."""

    dataset: Dataset
    answers: Answers = Field(description="what each output was taken as, and from what")


class ExamplesRequest(Record):
    """Writing test examples as the model takes them, in the form of a plan's `data`."""

    model: Path
    data: str | None = Field(default=None, description="None: the data set that the artifact names")
    count: int = Field(ge=1, description="most of them, as `core.chosen_rows` chooses")
    seed: int
    file: Path = Field(description="npz to write: an array for each input, `labels`, of a tagger `unseen_labels`")


class ExamplesAnswer(Record):
    """The examples are written."""

    dataset: Dataset
    unit: str = Field(description="what one example is")
    total: int = Field(description="test examples that there are")
    written: int
    pixels: str | None = Field(default=None, description="the scale that images are fed in; None for other data")


class AttackRequest(Record):
    """Scoring a model under attack."""

    model: Path
    data: str | None = Field(default=None, description="None: the data set that the artifact names")
    pixels: PixelScale | None = Field(default=None, description="of images; None: as the artifact or the file says")
    limit: int | None = Field(default=None, ge=10)
    epsilons: tuple[Annotated[float, Field(ge=0)], ...] = Field(
        min_length=1, description="sizes of the change; 0 is always scored as well"
    )
    attack: Literal["fgsm", "pgd"] = "fgsm"
    steps: int = Field(default=10, ge=1, description="of PGD")
    batch_size: int = Field(default=128, ge=1)
    seed: Seed = Field(default=0, description="of the random start of PGD")


class AttackedScores(Record):
    """The scores at one size of the attacker's change."""

    epsilon: float
    scores: tuple[Score, ...]


class AttackReport(Record):
    """Scores of a model under attack."""

    attack: Literal["fgsm", "pgd"]
    norm: Literal["linf", "l2"] = Field(description="of the change: largest value, or Euclidean length")
    mean_length: float | None = Field(
        description="l2: mean Euclidean length of what is changed, to set epsilon against"
    )
    results: tuple[AttackedScores, ...]
    dataset: Dataset


class BuildRequest(Record):
    """Writing the model of a function, or of a BERT folder, as a `.keras` file."""

    source: str = Field(description="module:function, or the path of a folder")
    file: Path


class BuildAnswer(Record):
    """The file is written."""


class DevicesRequest(Record):
    """Listing what a backend sees."""


class DevicesAnswer(Record):
    """What a backend sees."""

    version: str = Field(description="of the backend")
    devices: dict[str, tuple[str, ...]] = Field(description="names by kind: cpu, gpu, tpu")


class MeasureRequest(Record):
    """What a measuring worker needs to get a cell ready."""

    spec: CellSpec
    outputs: tuple[OutputFacts, ...] = Field(default=(), description="what is known of the model's outputs")
    settings: Settings
    keras_file: Path
    samples_file: Path | None
    outputs_file: Path


def checked(request: type[R], values: dict[str, object]) -> R:
    """The request with its values checked.

    Raises:
        InputError: a value outside its range, naming it.
    """
    try:
        return request.model_validate(values)
    except ValidationError as error:
        raise InputError(
            "Every option lies within its range.", received=describe_validation(error), remedy="See --help for each."
        ) from error


class CheckpointRequest(Record):
    """Writing a trained BERT as a Hugging Face folder."""

    model: Path = Field(description="an artifact folder")
    folder: Path = Field(description="exists and is empty")


class CheckpointAnswer(Record):
    """A Hugging Face folder that was written."""

    tensors: int
    parameters: int
