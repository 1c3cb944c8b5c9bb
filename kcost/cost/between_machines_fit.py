"""Grading the projection between machines, and fitting its few coefficients, on cells that several machines measured.

Each cell of each machine is projected from each other machine. What is graded of a machine was fitted without any
measurement of it: neither as the one that is projected to, nor as the one that is projected from.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from pydantic import Field
from scipy.optimize import minimize

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.core.stats import NORMAL_95
from kcost.cost.between_machines import (
    COMPONENT_OF,
    COMPONENTS,
    Array,
    Coefficients,
    Predicted,
    Rows,
    Step,
    is_probed,
    predict,
    rows_of,
)
from kcost.cost.machine_rates import MachineRates
from kcost.cost.projection import WIDEST

BEFORE = Coefficients(
    exponents=dict.fromkeys(COMPONENTS, 1.0),
    floor_sd=0.06,
    slope_sd=0.3,
    own_sd=0.35,
    fitted_to="assumed, measured on nothing",
)
"""What is thought of the coefficients before a machine is seen: a part follows its probe."""

BEFORE_SD = np.array([0.1, 0.1, 0.1, 0.7, 0.7, 0.5])
"""Of the logarithms of the three exponents, the floor, the slope and the cells' own deviation. The exponents are held
close to 1: a machine that is twice as fast in all takes half as long. Ratios of probes are noisy, which alone makes
exponents look smaller, and cells of one pair of machines err together: hundreds of rows are fewer witnesses."""


UNCHANGED = math.log(1.05)


class Machine(NamedTuple):
    """What one machine measured with one backend."""

    name: str
    steps: Sequence[Step]
    rates: MachineRates
    under_quota: Sequence[Step] = ()
    """The same with the pauses of its CPU quota, where it has one: what a projection to it is held against."""


class Table(NamedTuple):
    """Every cell of every machine, projected from every other machine that measured it."""

    rows: Rows
    truth: Array
    """(rows,): natural logarithm of the seconds that were measured on B."""
    source: np.ndarray
    target: np.ndarray
    """(rows,): names of A and B."""
    cell: np.ndarray
    """(rows,): group and name of the cell."""

    def of(self, chosen: np.ndarray) -> Table:
        """Some of the rows."""
        return Table(
            Rows(*(a[chosen] for a in self.rows)),
            self.truth[chosen],
            self.source[chosen],
            self.target[chosen],
            self.cell[chosen],
        )


class Grading(Record):
    """How far projections were off, over rows: a row is one cell projected from one machine to another."""

    what: str
    rows: int
    left_out_cells: int = Field(description="different cells of machines that were projected to")
    median_error: float = Field(description="of |projected - measured| / measured")
    held: float = Field(description="part of the rows inside their 90% interval")
    median_width: float = Field(description="of upper over lower end of the intervals")
    refused: int = Field(description="rows whose interval is too wide to be used; they are graded with the others")


def table_of(machines: Sequence[Machine]) -> Table:
    """All projections between machines that measured the same cells, and were probed in their precision.

    Raises:
        InputError: not one cell was measured on two machines.
    """
    tables = []
    for here in machines:
        for there in machines:
            if here.name == there.name or here.rates.backend != there.rates.backend:
                continue
            truth = {(s.group, s.name): math.log(s.measured_s.value) for s in there.under_quota or there.steps}
            for group in dict.fromkeys(s.group for s in here.steps):
                steps = [s for s in here.steps if s.group == group]
                both = np.array([(s.group, s.name) in truth for s in steps])
                if not both.any() or not all(is_probed(steps[0].workload, m.rates) for m in (here, there)):
                    continue
                table = Table(
                    rows_of(steps, here.rates, there.rates),
                    np.array([truth.get((s.group, s.name), math.nan) for s in steps]),
                    np.full(len(steps), here.name, dtype=object),
                    np.full(len(steps), there.name, dtype=object),
                    np.array([f"{s.group} {s.name}" for s in steps], dtype=object),
                )
                tables.append(table.of(both))
    if not tables:
        raise InputError("Machines are compared by cells that two of them measured.", received="not one such cell")
    return Table(
        Rows(*(np.concatenate(a) for a in zip(*(t.rows for t in tables), strict=True))),
        *(np.concatenate([t[i] for t in tables]) for i in range(1, 5)),
    )


def fit_coefficients(table: Table, fitted_to: str) -> Coefficients:
    """The coefficients that make the measured steps likeliest, held to BEFORE by BEFORE_SD."""
    start = _logs(BEFORE)

    def minus_log_posterior(logs: Array) -> float:
        predicted = predict(table.rows, _of_logs(logs, ""))
        variance = predicted.variance.sum(axis=1)
        likelihood = ((predicted.log_s - table.truth) ** 2 / variance + np.log(variance)).sum() / 2
        return float(likelihood + (((logs - start) / BEFORE_SD) ** 2).sum() / 2)

    # Logarithms that are 0 would get a simplex of no width from scipy's default.
    simplex = np.vstack([start, start + np.diag(BEFORE_SD / 2)])
    options = {"maxiter": 600, "xatol": 0.01, "fatol": 0.01, "initial_simplex": simplex}
    return _of_logs(minimize(minus_log_posterior, start, method="Nelder-Mead", options=options).x, fitted_to)


def _logs(chosen: Coefficients) -> Array:
    exponents = [chosen.exponents[name] for name in COMPONENTS]
    return np.log([*exponents, chosen.floor_sd, chosen.slope_sd, chosen.own_sd])


def _of_logs(logs: Array, fitted_to: str) -> Coefficients:
    values = [float(v) for v in np.exp(logs)]
    return Coefficients(
        exponents=dict(zip(COMPONENTS, values, strict=False)),
        floor_sd=values[3],
        slope_sd=values[4],
        own_sd=values[5],
        fitted_to=fitted_to,
    )


class LeftOut(NamedTuple):
    """What was projected for each row by coefficients that saw nothing of its machine B."""

    log_error: Array
    """(rows,): natural logarithm of projected over measured."""
    sd: Array
    """(rows,)"""
    component: np.ndarray
    """(rows,): the one that takes more than half of the step on B, as projected; empty where none does."""


def leave_out_machines(table: Table, models: np.ndarray | None = None) -> LeftOut:
    """Projects to each machine by coefficients fitted to the pairs of all others.

    Args:
        models: (rows,): the model of each cell; with it the coefficients did not see that model either, on any machine.
    """
    error, sd = np.zeros(len(table.truth)), np.zeros(len(table.truth))
    component = np.full(len(table.truth), "", dtype=object)
    of_model = np.zeros(len(table.truth)) if models is None else models
    for machine in np.unique(table.target.astype(str)):
        for model in np.unique(of_model):
            to_it = (table.target == machine) & (of_model == model)
            if not to_it.any():
                continue
            rest = (table.target != machine) & (table.source != machine)
            if models is not None:
                rest &= of_model != model
            chosen = fit_coefficients(table.of(rest), f"without {machine}") if rest.any() else BEFORE
            error[to_it], sd[to_it], component[to_it] = _errors(table.of(to_it), chosen)
    return LeftOut(error, sd, component)


def unchanged_pairs(table: Table) -> np.ndarray:
    """(rows,): whether a row is of two machines that take as long for the cells of its group: nothing to project."""
    changed = np.abs(table.truth - table.rows.measured)
    groups = np.array([cell.rsplit(" ", 3)[0] for cell in table.cell])
    unchanged = np.zeros(len(table.truth), dtype=bool)
    for source, target, group in set(zip(table.source, table.target, groups, strict=True)):
        rows = (table.source == source) & (table.target == target) & (groups == group)
        unchanged[rows] = np.median(changed[rows]) < UNCHANGED
    return unchanged


def with_coefficients(table: Table, chosen: Coefficients) -> LeftOut:
    """Projects every row by the same coefficients."""
    return LeftOut(*_errors(table, chosen))


def _errors(table: Table, chosen: Coefficients) -> tuple[Array, Array, np.ndarray]:
    predicted = predict(table.rows, chosen)
    return predicted.log_s - table.truth, np.sqrt(predicted.variance.sum(axis=1)), _main_component(predicted)


def _main_component(predicted: Predicted) -> np.ndarray:
    by_component = np.stack(
        [predicted.shares_there[:, index == COMPONENT_OF].sum(axis=1) for index in range(len(COMPONENTS))], axis=1
    )
    largest = by_component.argmax(axis=1)
    names = np.array([COMPONENTS[i] for i in largest], dtype=object)
    return np.where(by_component.max(axis=1) > 0.5, names, "")


def grade(table: Table, left_out: LeftOut, what: str, chosen: np.ndarray | None = None) -> Grading:
    """The errors of rows.

    Args:
        chosen: which rows; None takes all.

    Raises:
        InputError: no row is chosen.
    """
    rows = np.ones(len(table.truth), dtype=bool) if chosen is None else chosen
    if not rows.any():
        raise InputError("A grading is of one row at least.", received=what)
    error, sd = left_out.log_error[rows], left_out.sd[rows]
    width = np.exp(2 * NORMAL_95 * np.minimum(sd, 50.0))
    targets = {(t, c) for t, c in zip(table.target[rows], table.cell[rows], strict=True)}
    return Grading(
        what=what,
        rows=int(rows.sum()),
        left_out_cells=len(targets),
        median_error=float(np.median(np.abs(np.expm1(error)))),
        held=float(np.mean(np.abs(error) <= NORMAL_95 * sd)),
        median_width=float(np.median(width)),
        refused=int((width > WIDEST).sum()),
    )


def simple_ways(table: Table) -> Mapping[str, float]:
    """Median errors of projections that know less: seconds as they are, and all of a step by the ratio of products."""
    as_it_is = np.expm1(table.rows.measured - table.truth)
    by_products = np.expm1(table.rows.measured + table.rows.ratio[:, 0] - table.truth)
    return {
        "seconds as they are": float(np.median(np.abs(as_it_is))),
        "by the ratio of products": float(np.median(np.abs(by_products))),
    }
