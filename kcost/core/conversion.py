"""Models as files of other runtimes: which there are, at which precisions, and what a conversion says of itself."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from pydantic import Field

from kcost.core import schema
from kcost.core.artifact import TensorSpec
from kcost.core.errors import ArtifactError, UnavailableError
from kcost.core.pixels import Pixels
from kcost.core.schema import VERSIONS, Record

Runtime = Literal["saved_model", "litert", "onnx", "openvino"]
RuntimePrecision = Literal["float32", "bfloat16", "int8", "int8_dynamic"]
"""int8: weights and activations with scales that real samples gave beforehand. int8_dynamic: int8 weights, the scale of
activations is taken anew in each step."""

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
EXTRAS: dict[Runtime, str] = {
    "saved_model": "tensorflow",
    "litert": "litert",
    "onnx": "onnx",
    "openvino": "openvino",
}
"""Runtime -> the extra of kcost that installs it."""

CONVERTED_IN: dict[Runtime, Literal["tensorflow", "torch"]] = {
    "saved_model": "tensorflow",
    "litert": "tensorflow",
    "onnx": "torch",
    "openvino": "torch",
}
"""Runtime -> the backend whose process converts to it, whichever backend trained the model.

ONNX comes from torch: its exporter keeps free axes and whole operations (LayerNormalization, Gelu), where tf2onnx 1.17
knows no Erfc, which Keras's GELU becomes on TensorFlow, and took 125 s for a BERT of 6 layers.
"""

PRECISIONS: dict[Runtime, tuple[RuntimePrecision, ...]] = {
    "saved_model": ("float32", "bfloat16"),
    "litert": ("float32", "int8", "int8_dynamic"),
    "onnx": ("float32", "int8", "int8_dynamic"),
    "openvino": ("float32", "bfloat16", "int8"),
}
"""Runtime -> what it computes in on a CPU."""

DENSE_ALONE: frozenset[tuple[str, str]] = frozenset({("onnx", "int8_dynamic")})
"""Runtimes and precisions that compute dense products in the precision, and convolutions in float32: ONNX Runtime has
no fast kernel on x86 for convolutions of dynamic scale."""

_REASONS: dict[tuple[Runtime, RuntimePrecision], str] = {
    ("saved_model", "int8"): "TensorFlow has no converter to int8 for Keras 3",
    ("saved_model", "int8_dynamic"): "TensorFlow has no converter to int8 for Keras 3",
    ("litert", "bfloat16"): "XNNPACK, LiteRT's CPU library, computes in float32, float16 and int8",
    ("onnx", "bfloat16"): "ONNX Runtime's CPU kernels for x86 compute in float32 and int8",
    ("openvino", "int8_dynamic"): "OpenVINO's quantizer sets the scales beforehand",
}

TOLERANCES: dict[RuntimePrecision, float] = {"float32": 1e-4, "bfloat16": 0.05, "int8": 0.25, "int8_dynamic": 0.25}
"""Largest relative error of each output, in the Euclidean norm over its probe, with which a conversion is kept.

What int8 costs is a question of scores, which a bench answers: this bound only stops conversions that went wrong.
"""

FILE_NAMES: dict[Runtime, str] = {
    "saved_model": "saved_model",
    "litert": "model.tflite",
    "onnx": "model.onnx",
    "openvino": "openvino.xml",
}
"""Runtime -> the file, or folder, of a conversion beside its index."""

INDEX_FILE = "conversion.json"


class ConvertedTensor(TensorSpec):
    """An input or output: `name` in the converted file, and what Keras calls it."""

    model_name: str
    key: str | None = Field(default=None, description="of an input: its name in the dictionary that Keras takes")


class ConversionCheck(Record):
    """One comparison of the converted file's outputs with those of the Keras model."""

    batch: int
    free_axes: tuple[int, ...] = Field(description="lengths of the free axes other than the batch")
    source: Literal["samples", "random"] | None = Field(
        default=None, description="real inputs of the artifact, or drawn ones; None: of a file older than this field"
    )
    relative_error: float | None = Field(
        default=None,
        description="the largest of the outputs: Euclidean norm of the difference over that of the model's output; "
        "None: of a file older than this field",
    )
    max_abs_difference: float


class Conversion(Record):
    """`conversion.json`: a converted model, where it came from and what was checked."""

    schema_: int = Field(default=VERSIONS["conversion"], alias="schema")
    runtime: Runtime
    precision: RuntimePrecision
    file: str = Field(description="name of the file, or folder, beside conversion.json that the runtime opens")
    model: str
    model_sha256: str
    parameters: int
    inputs: tuple[ConvertedTensor, ...]
    outputs: tuple[ConvertedTensor, ...]
    real_samples: bool = Field(description="False: random inputs were made up, for the scales of int8 as well")
    checks: tuple[ConversionCheck, ...] = ()
    file_bytes: int = Field(description="of what the runtime opens, weights included")
    seconds: float = Field(description="that the conversion took, without loading the model")
    versions: dict[str, str] = Field(description="package -> version of what converted and checked it")
    notes: tuple[str, ...] = ()

    @property
    def relative_error(self) -> float:
        """The largest of the checks; a number that is none where there was no check."""
        errors = [check.relative_error for check in self.checks if check.relative_error is not None]
        return max(errors, default=float("nan"))


IMAGE_SIGNATURE, TEXT_SIGNATURE = "serving_image_bytes", "serving_text"
"""Signatures that take what people have, files of images and texts, in the place of arrays."""

PACKED_SIGNATURE = "serving_packed"
"""The signature of a model whose rows may lie end to end: its inputs as those of `serving_default`, but all rows as one
line (places,), and where they are. Its outputs are one for each place."""

ROW_LENGTHS = "row_lengths"
"""What `serving_packed` takes beside: each row's length, int32 (rows,). Behind the last row, answers mean nothing.
One row has a place, at least."""


class Tagging(Record):
    """What a tagger's texts are cut by, and what its answers are called."""

    folder: Path = Field(description="with the tokenizer's files")
    tag_names: tuple[str, ...]
    max_length: int = Field(ge=3, description="most positions of a text")


class ServingRequest(Record):
    """What a SavedModel for a server carries beside `serving_default`."""

    name: str = Field(description="of the model in the server")
    warm_up_batches: tuple[int, ...] = Field(description="batch sizes of the requests that a server warms up with")
    pixels: Pixels | None = Field(default=None, description="how the model takes images; None where it takes none")
    tagging: Tagging | None = Field(default=None, description="None where the model tags no words")


class LeftOut(Record):
    """Something that an export has not, and why."""

    what: str
    reason: str


class ServingAnswer(Record):
    """What was written for a server beside `serving_default`."""

    signatures: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()
    warm_up_batches: tuple[int, ...] = ()


class SignatureCheck(Record):
    """One signature beside `serving_default` that was run by TensorFlow's C library."""

    signature: str
    rows: int = Field(description="images, texts or rows that it answered as `serving_default` answers their arrays")
    max_abs_difference: float


class ServingCheck(Record):
    """What a process that opened an export for a server saw."""

    signatures: tuple[SignatureCheck, ...]
    warm_up_requests: int = Field(description="that it answered")
    peak_bytes: int = Field(description="most resident memory of that process, TensorFlow's library and Python in it")


class OutputTemperature(Record):
    """What the logits of one output are divided by, so that its probabilities are what they say."""

    value: float = Field(gt=0, allow_inf_nan=False)
    place: int = Field(ge=0, description="of the output among the model's outputs")
    kind: Literal["multiclass", "tags", "binary"]
    logits: bool = Field(description="whether the output's numbers are logits, and no probabilities")

    def one_unit(self, shape: tuple[int | None, ...]) -> bool:
        """Whether an output of that shape has the probability of a yes alone."""
        return self.kind == "binary" and (len(shape) == 1 or shape[-1] == 1)


class ConvertRequest(Record):
    """Writing a `.keras` file as a file that a runtime opens."""

    keras_file: Path
    runtime: Runtime
    precision: RuntimePrecision
    path: Path = Field(description="of the file or folder to write; what it lies in exists")
    samples_file: Path | None = Field(description="npz with real inputs by name; None: inputs are made up")
    made_samples_file: Path | None = Field(default=None, description="where made-up inputs are kept, if they are")
    probes: Path = Field(description="an existing folder for the probes, an npz each")
    portable: bool = Field(default=False, description="of a SavedModel: public operations of TensorFlow only")
    serving: ServingRequest | None = Field(default=None, description="of a SavedModel that a server serves")
    temperature: OutputTemperature | None = Field(default=None, description="None: probabilities as the model has them")


class ConversionProbe(Record):
    """Inputs and what the Keras model gave for them, by their names in the converted file: arrays `input/NAME` and
    `output/NAME`; of a model that rounds `change/NAME` too, how much its outputs change with its weights."""

    file: Path
    batch: int
    free_axes: tuple[int, ...] = Field(description="lengths of the free axes other than the batch")
    source: Literal["samples", "random"] = Field(description="real inputs of the artifact, or drawn ones")


class ConvertAnswer(Record):
    """A file that was converted, and is still to be checked; fields as in Conversion."""

    inputs: tuple[ConvertedTensor, ...]
    outputs: tuple[ConvertedTensor, ...]
    parameters: int
    weights_bytes: int
    real_samples: bool
    seconds: float
    versions: dict[str, str]
    probes: tuple[ConversionProbe, ...]
    internal_operations: tuple[str, ...] = Field(
        default=(),
        description="of a SavedModel: operations of the graph that only some builds of TensorFlow have, or can run on "
        "int8",
    )
    int8_operations: tuple[str, ...] = Field(
        default=(), description="of a SavedModel: those that are exact where the CPU has VNNI or AMX alone"
    )
    plain_blocks: tuple[tuple[str, str], ...] = Field(
        default=(), description="layer and reason, of fused layers that could not be written in their fast form"
    )
    serving: ServingAnswer = ServingAnswer()


class ConversionCheckRequest(Record):
    """Holding a converted file against the Keras model; the other fields are those of ConvertAnswer."""

    path: Path = Field(description="of what the runtime opens")
    runtime: Runtime
    precision: RuntimePrecision
    inputs: tuple[ConvertedTensor, ...]
    outputs: tuple[ConvertedTensor, ...]
    probes: tuple[ConversionProbe, ...]
    serving: ServingRequest | None = Field(default=None, description="as in ConvertRequest")
    served: ServingAnswer = ServingAnswer()


class ConversionCheckAnswer(Record):
    """A converted file that gives the model's outputs."""

    checks: tuple[ConversionCheck, ...]
    runtime_version: str
    notes: tuple[str, ...] = Field(description="what the runtime says of itself")
    serving: ServingCheck | None = Field(default=None, description="of a SavedModel that a server serves")


def require_precision(runtime: Runtime, precision: RuntimePrecision) -> None:
    """Raises UnavailableError, with the reason, where a runtime has no such precision."""
    if precision not in PRECISIONS[runtime]:
        raise UnavailableError(
            f"{runtime} computes in {', '.join(PRECISIONS[runtime])}.",
            received=f"{precision}: {_REASONS[runtime, precision]}",
            remedy="Name one of those precisions.",
        )


def read_conversion(folder: Path) -> Conversion:
    """The conversion in a folder.

    Raises:
        ArtifactError: the folder holds none, or the file that it names is gone.
        SchemaError: its index is damaged or of a newer schema.
    """
    if not (folder / INDEX_FILE).is_file():
        raise ArtifactError(
            f"A converted model is a folder with {INDEX_FILE}.",
            received=f"{folder} without it",
            remedy="Convert the model again.",
        )
    conversion = schema.read("conversion", folder / INDEX_FILE, Conversion)
    if not (folder / conversion.file).exists():
        raise ArtifactError(
            f"The file that {INDEX_FILE} names lies beside it.",
            received=f"{folder} without {conversion.file}",
            remedy="Convert the model again.",
        )
    return conversion
