"""Published measurements: what others measured on devices that are not at hand.

They are evidence to show beside a projection, and what the projection is fitted and graded on. The package ships
data/published.csv: rows of quality A and B whose licence is permissive and asks for no more than attribution.
scripts/fit_projection.py makes it and names what is left out.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import Field, ValidationError

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.core.units import significant
from kcost.cost.devices import Device, Number
from kcost.cost.workload import ARCHITECTURES, Engine, Kind, Workload, encoder_activations

USED_COLUMNS = (
    "id", "model", "flops_per_example", "input_shape", "phase", "precision", "batch", "device", "device_count",
    "framework", "figure", "unit", "scenario", "source", "source_commit_or_date", "licence", "quality",
)  # fmt: skip
"""The columns that are read; a table may have more."""

NEURON_CORES = {"AWS Inferentia1": 4, "AWS Inferentia2": 2, "AWS Trainium1": 2}
"""Cores of a Neuron chip: a batch is that of one core there."""

READS_IMAGES = ("PTR-", "TF1R-")
"""Tables whose loops read and decode the images that they measure (traps 12 of the sources)."""

OFFLINE_BATCH = {"accelerator": 64.0, "processor": 32.0}
"""What stands in where a throughput was published without its batch: large enough to fill either. A choice."""


class PublishedRow(Record):
    """One published figure, as its source has it."""

    id: str
    model: str
    flops_per_example: float | None = Field(default=None, gt=0, description="of the forward pass")
    input_shape: str
    phase: Literal["inference", "training"]
    precision: str
    batch: float | None = Field(default=None, gt=0, description="None where the source does not say")
    device: str
    device_count: int = Field(gt=0)
    framework: str
    figure: float = Field(gt=0)
    unit: str
    scenario: str
    source: str
    source_commit_or_date: str
    licence: str
    quality: Literal["A", "B", "C"]

    @property
    def line(self) -> str:
        """The row in a line: what, where, how fast, and who says so."""
        batch = "" if self.batch is None else f", batch {self.batch:g}"
        unit = {"ms_per_step": "ms a step", "samples_per_s": "examples a second"}.get(self.unit, self.unit)
        count = f"{self.device_count} x " if self.device_count > 1 else ""
        return (
            f"{self.model} ({self.input_shape}){batch}, {self.precision}, {self.framework}, {self.phase}, "
            f"{count}{self.device}: {significant(self.figure)} {unit} [{self.source.partition(':')[0]}]"
        )


class Case(Record):
    """A published row as the projection sees it: a step, the device, and how long it took."""

    id: str
    workload: Workload
    device: Device
    step_ms: float

    @property
    def cluster(self) -> str:
        """Rows of one chip and one table share their circumstances, so that they count as less than that many rows."""
        return f"{self.device.chip}/{self.id.partition('-')[0]}"


def parse_published(content: bytes, name: str) -> tuple[PublishedRow, ...]:
    """The rows of a CSV file with at least USED_COLUMNS.

    Raises:
        InputError: no such CSV, or a row that is none; its id is named.
    """
    rule = "A table of published measurements is a CSV file with the columns " + ",".join(USED_COLUMNS) + "."
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        missing = set(USED_COLUMNS) - set(reader.fieldnames or ())
        if missing:
            raise InputError(rule, received=f"{name} without {', '.join(sorted(missing))}")
        lines = list(reader)
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(rule, received=f"{name}: {error}") from error
    rows = []
    for line in lines:
        try:
            cells = {c: line[c] or None if c in ("batch", "flops_per_example") else line[c] for c in USED_COLUMNS}
            rows.append(PublishedRow.model_validate(cells))
        except ValidationError as error:
            first = error.errors()[0]
            received = f"{name}, row {line['id'] or '(no id)'}: {'.'.join(map(str, first['loc']))}: {first['msg']}"
            raise InputError(rule, received=received) from error
    return tuple(rows)


@cache
def published() -> tuple[PublishedRow, ...]:
    """The rows that the package ships."""
    content = resources.files("kcost.cost").joinpath("data", "published.csv").read_bytes()
    return parse_published(content, "the package's own measurements")


def cases(rows: Iterable[PublishedRow], known: Mapping[str, Device]) -> tuple[Case, ...]:
    """The rows that a projection can be fitted and graded on.

    These are of quality A or B, with FLOPs, of a known architecture, on a device whose peak at that precision is known.
    Quality C never enters.
    """
    return tuple(case for row in rows if (case := _case(row, known)) is not None)


def _case(row: PublishedRow, known: Mapping[str, Device]) -> Case | None:
    device, architecture = known.get(row.device), ARCHITECTURES.get(row.model)
    if row.quality == "C" or row.flops_per_example is None or architecture is None or device is None:
        return None
    precision = _number(row.precision)
    engine = engine_of(row)
    if precision is None or precision not in device.peak_tflops or engine is None:
        return None
    # All sockets of a server are one device here.
    count = 1 if device.is_cpu else row.device_count
    cores = NEURON_CORES.get(row.device, 1)
    batch = row.batch or OFFLINE_BATCH["processor" if device.is_cpu else "accelerator"]
    if row.unit == "samples_per_s":
        step_ms = batch * cores * count / row.figure * 1e3
    elif row.unit in ("ms_per_step", "ms_latency_p50", "ms_latency_p90"):
        step_ms = row.figure
    else:
        return None
    activations = architecture.activations or encoder_activations(architecture, int(row.input_shape.split()[0]))
    workload = Workload(
        kind=architecture.kind,
        engine=engine,
        phase=row.phase,
        precision=precision,
        batch=batch * cores,
        flops_per_example=row.flops_per_example,
        parameters=architecture.parameters,
        activations_per_example=activations,
        products=architecture.products,
        reads_images=row.id.startswith(READS_IMAGES),
    )
    return Case(id=row.id, workload=workload, device=device, step_ms=step_ms)


def _number(precision: str) -> Number | None:
    names: dict[str, Number] = {"fp32": "fp32", "tf32": "tf32", "fp16": "fp16", "bf16": "bf16", "int8": "int8"}
    return names.get(precision)


def engine_of(row: PublishedRow) -> Engine | None:
    """What ran a row's model; None for a framework that no other row has."""
    if row.scenario.startswith("MLPerf"):
        return "mlperf"
    engines: dict[str, Engine] = {
        "tensorrt": "tensorrt", "aitemplate": "aitemplate", "openvino": "openvino", "neuron": "neuron",
        "jax": "xla", "keras-jax": "xla", "keras-tensorflow": "xla", "keras2-tensorflow": "tensorflow graph",
        "keras-torch": "torch eager",
    }  # fmt: skip
    if row.framework in engines:
        return engines[row.framework]
    if row.framework == "tensorflow":
        # "XLA not stated" is a graph without it; where the scenario names XLA it was on.
        on = "XLA" in row.scenario and "not stated" not in row.scenario
        return "xla" if on else "tensorflow graph"
    if row.framework == "pytorch":
        return "torch.compile" if "torch.compile" in row.scenario else "torch eager"
    return None


def evidence(
    rows: Sequence[PublishedRow], device: Device, workload: Workload, count: int = 3
) -> tuple[PublishedRow, ...]:
    """The published rows on this chip that are most like a step: its kind and phase, then precision, FLOPs and
    batch."""

    def distance(row: PublishedRow) -> tuple[float, ...]:
        flops = row.flops_per_example
        size = math.inf if flops is None else abs(math.log2(flops / workload.flops_per_example))
        batch = 3.0 if row.batch is None else abs(math.log2(row.batch / workload.batch))
        return (row.precision != workload.precision, size + batch)

    like = [r for r in rows if _same_chip(r, device) and r.phase == workload.phase and _kind(r) == workload.kind]
    return tuple(sorted(like, key=lambda r: (*distance(r), r.id))[:count])


def _kind(row: PublishedRow) -> Kind | None:
    architecture = ARCHITECTURES.get(row.model)
    return None if architecture is None else architecture.kind


def _same_chip(row: PublishedRow, device: Device) -> bool:
    words = row.device.replace("-", " ").split()
    return row.device == device.name or (not device.is_cpu and device.chip in words)
