"""Makes kcost/cost/data/grid.csv, the carbon of electricity by region of a cloud provider:
`python scripts/grid_carbon.py FOLDER`.

FOLDER holds ccf_grid_aws.csv and ccf_grid_azure.csv of Cloud Carbon Footprint, and gcp_region_carbon_2024.csv of
Google's region-carbon-info; all three are under the Apache License 2.0. Rows that a source wrote wrongly are left out
and named.
"""

from __future__ import annotations

import csv
import sys
from collections.abc import Iterator
from pathlib import Path

FILE = Path(__file__).parents[1] / "kcost" / "cost" / "data" / "grid.csv"
COLUMNS = ("provider", "region", "place", "g_co2e_per_kwh", "year", "source")
CCF = "Cloud Carbon Footprint (Apache-2.0)"
GCP = "Google Cloud region-carbon-info (Apache-2.0)"
GRAMS_PER_TON = 1e6
MOST_GRAMS = 2000.0
"""No grid is worse; a row above it lacks its decimal point."""


def rows(folder: Path) -> Iterator[tuple[str, str, str, float, str, str]]:
    """The rows of the table; one that cannot be right is named on standard error."""
    for provider, place in (("aws", "Country"), ("azure", "Location")):
        for row in _read(folder / f"ccf_grid_{provider}.csv"):
            grams = float(row["CO2e (metric ton/kWh)"]) * GRAMS_PER_TON
            # Azure's own names of regions are those of its pages in small letters without spaces.
            region = row["Region"].strip().lower().replace(" ", "")
            if grams > MOST_GRAMS:
                print(f"left out: {provider} {region}: {row['CO2e (metric ton/kWh)']} t a kWh", file=sys.stderr)
                continue
            yield provider, region, row[place].strip(), round(grams, 3), "", f"{CCF}: {row['Source'].strip()}"
    for row in _read(folder / "gcp_region_carbon_2024.csv"):
        grams = float(row["Grid carbon intensity (gCO2eq / kWh)"])
        yield "gcp", row["Google Cloud Region"].strip(), row["Location"].strip(), grams, "2024", GCP


def _read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    """Writes the table."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    with FILE.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        writer.writerows(sorted(rows(Path(sys.argv[1]))))


if __name__ == "__main__":
    main()
