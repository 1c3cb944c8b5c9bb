"""Makes what the projection ships: device peaks, published measurements, and the fitted terms with their grading.

    KCOST_DATA_DIR=DATA python scripts/fit_projection.py [--out FOLDER]

Reads DATA/published/measurements.csv and devices.csv. Writes devices.csv, published.csv and projection.json into
kcost/cost/data. Rows that the package may not ship are fitted but not written; docs/projection.md says which and why.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
from pathlib import Path

import kcost
from kcost.cost.devices import COLUMNS, NUMBERS, parse_devices
from kcost.cost.projection_fit import model_of, table_of
from kcost.cost.published import USED_COLUMNS, PublishedRow, cases, parse_published

SHIPPED = Path(kcost.__file__).parent / "cost" / "data"

NOT_SHIPPED = ("mlcommons/", "aws-neuron/", "openvinotoolkit/")
"""Sources with terms beyond a permissive licence: MLCommons's rules for its trademark, share-alike, performance
claims."""

VENDOR_COLUMNS = {
    "fp32": "peak_fp32_tflops",
    "tf32": "peak_tf32_tflops",
    "fp16": "peak_fp16_tflops",
    "bf16": "peak_bf16_tflops",
    "int8": "peak_int8_tops",
}

INTEL = "derived: cores x base clock x operations a cycle of AVX-512 or AMX (AVX2 on Core); vendors publish no peak"

# Name -> (cores, base clock in GHz, memory bandwidth in GB/s), all sockets. Bandwidth is channels x transfers x 8
# bytes.
XEONS = {
    "2x Intel Xeon Platinum 9282": (112, 2.6, 563.0),
    "2x Intel Xeon Platinum 8380": (80, 2.3, 409.6),
    "Intel Core i9-10940X": (14, 3.3, 93.9),
}
AMX = {
    "2x Intel Xeon Platinum 8490H": (120, 1.9, 614.4),
    "2x Intel Xeon Platinum 8580": (120, 2.0, 716.8),
    "2x Intel Xeon Platinum 8480+": (112, 2.0, 614.4),
    "2x Intel Xeon Platinum 8592+": (128, 1.9, 716.8),
    "2x Intel Xeon 6980P": (256, 2.0, 1689.6),
}
# Performance cores, their clock, efficiency cores, theirs, bandwidth: 32 and 16 operations a cycle in fp32, 4 times
# that in int8.
HYBRID = {"Intel Core i9-13900K": (8, 3.0, 16, 2.2, 89.6), "Intel Core i7-12700H": (6, 2.3, 8, 1.7, 76.8)}

OTHERS = {
    "AMD MI250 (1 GCD)": (
        {"fp32": 22.65, "fp16": 181.05, "bf16": 181.05, "int8": 181.05},
        1600.0,
        "half of the package: AMD's table of MI250 peaks (45.3 / 362.1 / 362.1) and rocm.docs.amd.com, 1.6 TB/s a GCD",
    ),
    "NVIDIA GeForce RTX 5090": (
        {"fp16": 209.5},
        1792.0,
        "derived: the published sparse 838 is halved for dense and halved again for fp32 accumulation, as on RTX 4090",
    ),
}

CHIPS = ("T4", "L40S", "L4", "V100", "A100", "A30", "3090", "4090", "5090", "A6000", "H100", "H200", "B200", "MI250")

A100_40GB_S = 1555.0
"""Taken where a source does not say which A100 it measured."""


def chip_of(name: str) -> str:
    return next((c for c in CHIPS if c in name), name)


def family_of(name: str) -> str:
    if name in AMX:
        return "CPU with AMX"
    if "Xeon" in name or "Core" in name or "EPYC" in name:
        return "CPU"
    return "NVIDIA GeForce" if "GeForce" in name else "NVIDIA data centre" if "NVIDIA" in name else "other"


def peaks_of(row: dict[str, str]) -> tuple[dict[str, float], float, str, str] | None:
    """Peaks, bandwidth, basis and source of a device; None where no source gives them."""
    name = row["device"]
    peaks = {n: float(row[c]) for n, c in VENDOR_COLUMNS.items() if row[c]}
    bandwidth = float(row["mem_bandwidth_gb_s"] or 0)
    if name in XEONS:
        cores, ghz, bandwidth = XEONS[name]
        return {"fp32": cores * ghz * 0.064, "int8": cores * ghz * 0.256}, bandwidth, "derived", INTEL
    if name in AMX:
        cores, ghz, bandwidth = AMX[name]
        sixteen = cores * ghz * 1.024
        amx = {"fp32": cores * ghz * 0.064, "fp16": sixteen, "bf16": sixteen, "int8": cores * ghz * 2.048}
        return amx, bandwidth, "derived", INTEL
    if name in HYBRID:
        p, p_ghz, e, e_ghz, bandwidth = HYBRID[name]
        fp32 = (p * p_ghz * 32 + e * e_ghz * 16) / 1e3
        return {"fp32": fp32, "int8": 4 * fp32}, bandwidth, "derived", INTEL
    if name in OTHERS:
        added, bandwidth, source = OTHERS[name]
        return {**peaks, **added}, bandwidth, "derived", source
    if name == "NVIDIA A100 (variant not stated)":
        bandwidth = A100_40GB_S
    return (peaks, bandwidth, "published", row["source"]) if peaks and bandwidth else None


def devices_csv(content: str) -> bytes:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for row in csv.DictReader(io.StringIO(content)):
        known = peaks_of(row)
        if known is not None:
            peaks, bandwidth, basis, source = known
            numbers = (f"{peaks[n]:g}" if n in peaks else "" for n in NUMBERS)
            name = row["device"]
            writer.writerow((name, family_of(name), chip_of(name), *numbers, f"{bandwidth:g}", basis, source))
    return out.getvalue().encode()


def published_csv(rows: tuple[PublishedRow, ...]) -> bytes:
    out = io.StringIO()
    writer = csv.DictWriter(out, USED_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        if row.quality != "C" and not row.source.startswith(NOT_SHIPPED):
            plain = row.model_dump(mode="json")
            writer.writerow({k: f"{v:.12g}" if isinstance(v, float) else v for k, v in plain.items()})
    return out.getvalue().encode()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=SHIPPED)
    out = parser.parse_args().out
    folder = Path(os.environ["KCOST_DATA_DIR"]) / "published"
    sheets = devices_csv((folder / "devices.csv").read_text())
    rows = parse_published((folder / "measurements.csv").read_bytes(), str(folder / "measurements.csv"))
    table = table_of(cases(rows, parse_devices(sheets, "devices.csv")))
    model, left_out = model_of(table)
    out.mkdir(parents=True, exist_ok=True)
    (out / "devices.csv").write_bytes(sheets)
    (out / "published.csv").write_bytes(published_csv(rows))
    document = model.model_dump(mode="json")
    document["covariance"] = [[float(f"{v:.4g}") for v in row] for row in document["covariance"]]
    document["terms"] = {k: round(v, 4) for k, v in document["terms"].items()}
    (out / "projection.json").write_text(json.dumps(document) + "\n")
    for g in model.gradings:
        print(
            f"left out by {g.left_out}: {g.rows} rows, {g.groups} groups: median error {g.median_error:.1%}, "
            f"90% intervals hold {g.held:.1%}, their width {g.median_width:.2f}"
        )
    print("median error where a component takes most:", {k: f"{v:.1%}" for k, v in model.errors_by_component.items()})
    print("spreads:", {k: round(v, 3) for k, v in model.spread.model_dump().items()})
    for chip in model.chips:
        mine = [e for c, e in zip(table.cases, left_out.log_error, strict=True) if c.device.chip == chip]
        print(f"  {chip}: {len(mine)} rows, median of log(projected / measured) {sorted(mine)[len(mine) // 2]:+.2f}")


if __name__ == "__main__":
    main()
