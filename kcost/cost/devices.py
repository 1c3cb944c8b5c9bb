"""What devices can do at most: peaks by precision and memory bandwidth, from data sheets, each with its source.

The package's table, data/devices.csv, is made by scripts/fit_projection.py. It holds dense peaks: the rates with 2:4
sparsity that vendors print are halved. Vendors publish no peak of a processor: `basis` is `derived` there, cores x
base clock x operations a cycle of its widest instructions. A sustained clock differs from both, which the fitted
efficiencies take up.
"""

from __future__ import annotations

import csv
import io
import re
from functools import cache
from importlib import resources
from typing import Literal

from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import Record

Number = Literal["fp32", "tf32", "fp16", "bf16", "int8"]
"""What products are computed in. fp16 is mixed precision on frameworks: float32 weights, products in float16."""

NUMBERS: tuple[Number, ...] = ("fp32", "tf32", "fp16", "bf16", "int8")

Family = Literal["NVIDIA data centre", "NVIDIA GeForce", "CPU", "CPU with AMX", "other"]

COLUMNS = ("device", "family", "chip", *(f"{n}_tflops" for n in NUMBERS), "bandwidth_gb_s", "basis", "source")


class Device(Record):
    """One GPU, TPU or Neuron chip, or all sockets of one server, and what it can do at most."""

    name: str
    family: Family
    chip: str = Field(description="variants of one chip share it: they are left out of a grading together")
    peak_tflops: dict[Number, float] = Field(description="dense; TOPS for int8; a precision that no source gives lacks")
    bandwidth_gb_s: float = Field(gt=0)
    basis: Literal["published", "derived"]
    source: str

    @property
    def is_cpu(self) -> bool:
        """Whether it is a processor."""
        return self.family in ("CPU", "CPU with AMX")


def parse_devices(content: bytes, name: str) -> dict[str, Device]:
    """Name -> device, of a CSV file with COLUMNS.

    Raises:
        InputError: no CSV of these columns, or a number that is none.
    """
    try:
        reader = csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise ValueError(f"columns {','.join(reader.fieldnames or ()) or '(none)'}")
        return {row["device"]: _device(row) for row in reader}
    except (UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise InputError(
            "A table of devices is a CSV file with the columns " + ",".join(COLUMNS) + ".", received=f"{name}: {error}"
        ) from error


def _device(row: dict[str, str]) -> Device:
    return Device.model_validate(
        {
            "name": row["device"],
            "family": row["family"],
            "chip": row["chip"],
            "peak_tflops": {n: float(row[f"{n}_tflops"]) for n in NUMBERS if row[f"{n}_tflops"]},
            "bandwidth_gb_s": float(row["bandwidth_gb_s"]),
            "basis": row["basis"],
            "source": row["source"],
        }
    )


@cache
def devices() -> dict[str, Device]:
    """The devices that the package knows, by name.

    Examples:
        >>> devices()["NVIDIA T4"].peak_tflops["fp16"]
        65.0
    """
    content = resources.files("kcost.cost").joinpath("data", "devices.csv").read_bytes()
    return parse_devices(content, "the package's own devices")


IN_PRICE_BOOKS = {
    "T4": "NVIDIA T4",
    "L4": "NVIDIA L4",
    "V100": "NVIDIA V100-SXM 16GB",
    "A100-40GB": "NVIDIA A100-SXM4-40GB",
    "A100": "NVIDIA A100-SXM4-40GB",
    "A100-80GB": "NVIDIA A100-SXM4-80GB",
    "A30": "NVIDIA A30",
    "L40S": "NVIDIA L40S",
    "H100": "NVIDIA H100-SXM5-80GB",
    "H200": "NVIDIA H200-SXM-141GB",
    "B200": "NVIDIA B200-SXM",
    "Inferentia2": "AWS Inferentia2",
    "TPU-v3": "Google TPU v3",
    "TPU-v5e": "Google TPU v5e",
    "TPU-v5p": "Google TPU v5p",
}
"""An accelerator's name in a price book -> the device."""


def device_named(name: str) -> Device:
    """The device of a name, as the table or a price book writes it; any case, and part of a name where it fits one.

    Raises:
        InputError: none, or more than one; it lists some.

    Examples:
        >>> device_named("l4").name
        'NVIDIA L4'
    """
    by_accelerator = {k.lower(): v for k, v in IN_PRICE_BOOKS.items()}
    wanted = by_accelerator.get(name.lower(), name).lower()
    for device in devices().values():
        if device.name.lower() == wanted:
            return device
    fitting = [d for d in devices().values() if wanted and set(_words(wanted)) <= set(_words(d.name))]
    if len(fitting) == 1:
        return fitting[0]
    listed = ", ".join(d.name for d in (fitting or devices().values()))
    raise InputError(
        "A projection is made to a device whose peaks are known.",
        received=f"{name!r}, which is {'more than one' if fitting else 'none'} of them",
        remedy=f"Name one of: {listed}.",
    )


def _words(name: str) -> list[str]:
    return re.findall(r"[a-z0-9+]+", name.lower())
