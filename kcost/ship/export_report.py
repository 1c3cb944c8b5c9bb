"""`export.json`: an exported version, where it came from and what was checked."""

from __future__ import annotations

from pydantic import Field

from kcost.core.artifact import TensorSpec
from kcost.core.conversion import ConversionCheck, LeftOut, Runtime, RuntimePrecision, SignatureCheck
from kcost.core.schema import VERSIONS, Record
from kcost.core.serving import Batching

REPORT_FILE = "export.json"


class Beside(Record):
    """The model for another runtime, in the folder of the version."""

    runtime: Runtime
    precision: RuntimePrecision
    file: str = Field(description="below the version's folder; conversion.json beside it has its checks")
    file_bytes: int
    relative_error: float = Field(description="the largest of its checks: of an output, in the Euclidean norm")


class ExportReport(Record):
    """`export.json`: an exported version, where it came from and what was checked."""

    schema_: int = Field(default=VERSIONS["export"], alias="schema")
    name: str
    version: int
    model: str = Field(description="name of the model that was exported")
    model_sha256: str
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    checks: tuple[ConversionCheck, ...]
    weights_bytes: int
    keras_version: str
    tensorflow_version: str = Field(description="that wrote the SavedModel")
    library_version: str = Field(description="of the TensorFlow library that the check ran it with")
    serving_image: str
    files: dict[str, str] = Field(description="path below the version's folder -> SHA-256")
    created_at: str
    internal_operations: tuple[str, ...] = Field(
        default=(), description="operations of the graph that only TensorFlow with oneDNN on x86 has"
    )
    signatures: tuple[SignatureCheck, ...] = Field(default=(), description="beside serving_default")
    left_out: tuple[LeftOut, ...] = Field(default=(), description="signatures that the model could be asked for")
    warm_up_batches: tuple[int, ...] = ()
    peak_bytes: int | None = Field(
        default=None,
        description="most resident memory of the process that checked it, TensorFlow's library and Python in it; None "
        "in a file older than this field",
    )
    temperature: float | None = Field(
        default=None, description="that the probabilities were put at; None: as the model has them"
    )
    batching: Batching | None = Field(default=None, description="None where the server does not put requests together")
    beside: tuple[Beside, ...] = Field(default=(), description="for other runtimes: what kcost serve --backend serves")
    warnings: tuple[str, ...] = ()
