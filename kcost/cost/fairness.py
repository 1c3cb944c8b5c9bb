"""Whether two cells may be ranked against each other at all.

Precision and compilation are what is being chosen between. Everything else that decides speed must be
the same, or the difference in dollars would be told of the wrong thing.
"""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from kcost.core.errors import SchemaError
from kcost.core.result import CellResult, Environment
from kcost.core.schema import Record


class Fairness(Record):
    """The settings that were in force for a cell."""

    dtype: str = Field(description="what the layers compute in, as the cell says; in older runs what was asked for")
    jit: bool
    device: str
    device_name: str
    threads: int
    tf32: bool | None
    inputs_on: str
    environment_id: str

    @property
    def must_be_equal(self) -> tuple[tuple[str, object], ...]:
        """Name and value of each setting that cells of one comparison share."""
        return (
            ("device", self.device),
            ("threads", self.threads),
            ("tf32", self.tf32),
            ("inputs_on", self.inputs_on),
            ("environment", self.environment_id),
        )


def fairness_of(cell: CellResult) -> Fairness:
    """The settings of a measured cell.

    Raises:
        SchemaError: the cell is said to be measured and does not say what was in force.
    """
    if cell.preparation is None or not cell.rounds:
        raise SchemaError(
            "A cell with status ok has a preparation and rounds.",
            received=f"cell {cell.spec.cell_id} ({cell.spec.label} of {cell.spec.model}) without",
            remedy="Delete the cell's file and run `kcost bench` again: it measures what is missing.",
        )
    done = cell.preparation
    return Fairness(
        dtype=done.computed_dtype or cell.spec.precision,
        jit=done.jit,
        device=cell.spec.device,
        device_name=done.device_name,
        threads=done.threads,
        tf32=done.tf32,
        inputs_on=done.inputs_on,
        environment_id=cell.environment_id,
    )


def differences(one: Fairness, other: Fairness, environments: Mapping[str, Environment]) -> tuple[str, ...]:
    """The settings in which two cells differ and must not, each as `name: value, not value`."""
    differing = []
    for (name, mine), (_, theirs) in zip(one.must_be_equal, other.must_be_equal, strict=True):
        if mine != theirs:
            if name == "environment":
                fields = environments[str(mine)].differences(environments[str(theirs)])
                differing.append(f"environment: another {', '.join(fields)}")
            else:
                differing.append(f"{name}: {mine}, not {theirs}")
    return tuple(differing)
