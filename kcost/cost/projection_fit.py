"""Fitting the projection to published measurements, and grading it with whole devices left out.

The terms are found by penalised least squares on logarithms. Each has a prior (`projection.TERMS`), so that a runtime
or a kind of layers with few rows stays near what the others say. Rows of one chip share a deviation, and so do rows
of one table on one chip. Both are integrated over, so that 81 rows of one chip don't outvote three others. Rows far
off count less, as with Student's t of 4 degrees of freedom. How far chips, tables and rows deviate is found by the
likelihood of the same rows.

Sources: random effects, Laird and Ware (1982), doi 10.2307/2529876; weights, Lange, Little and Taylor (1989), doi
10.1080/01621459.1989.10478852.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_factor, cho_solve, cholesky, solve_triangular
from scipy.optimize import least_squares, minimize

from kcost.core.errors import InputError
from kcost.core.stats import NORMAL_95
from kcost.cost.projection import (
    COMPONENTS,
    TERMS,
    Array,
    Design,
    Grading,
    Model,
    Spread,
    design,
    log_ms,
    predictive_sd,
)
from kcost.cost.published import Case

FREEDOM = 4.0
"""Degrees of freedom of the Student t that far rows are weighed by."""

BEFORE = Spread(nvidia=0.2, other_device=0.45, table=0.15, row=0.15)
"""What is thought of the spreads before: their logarithms are held to it with a standard deviation of SPREAD_SD.

Nine chips of one vendor say little of how far the tenth lies, and likelihood alone takes too narrow a spread from them.
"""

SPREAD_SD = 0.2

SWEEPS = 3
"""Times that terms, weights and spreads are found in turn; one less from a fit to begin at."""

LEAST_ROWS = 20

Mask = NDArray[np.bool_]


class Fit(NamedTuple):
    """Terms with their covariance, and the spreads."""

    theta: Array
    covariance: Array
    spread: Spread


class Table(NamedTuple):
    """Cases as arrays."""

    cases: tuple[Case, ...]
    design: Design
    measured: Array
    """Natural logarithm of the measured step, ms."""
    chip: NDArray[np.int64]
    device: NDArray[np.int64]
    cluster: NDArray[np.int64]
    is_other: Mask
    """Rows of devices that are not NVIDIA's."""

    def of(self, rows: Mask) -> Table:
        """Some of the rows."""
        chosen = tuple(c for c, keep in zip(self.cases, rows, strict=True) if keep)
        d = Design(self.design.base[rows], self.design.terms[rows], self.design.component)
        return Table(
            cases=chosen,
            design=d,
            measured=self.measured[rows],
            chip=self.chip[rows],
            device=self.device[rows],
            cluster=self.cluster[rows],
            is_other=self.is_other[rows],
        )


def table_of(cases: Sequence[Case]) -> Table:
    """Cases as arrays.

    Raises:
        InputError: fewer than LEAST_ROWS.
    """
    if len(cases) < LEAST_ROWS:
        raise InputError(
            f"A projection is fitted to at least {LEAST_ROWS} measurements.",
            received=f"{len(cases)} with FLOPs, a known architecture and a device with a peak",
            remedy="Give the table that the package ships, or a longer one.",
        )

    def numbered(name: Callable[[Case], str]) -> NDArray[np.int64]:
        return np.unique([name(c) for c in cases], return_inverse=True)[1].astype(np.int64)

    return Table(
        cases=tuple(cases),
        design=design([(c.workload, c.device) for c in cases]),
        measured=np.log([c.step_ms for c in cases]),
        chip=numbered(lambda c: c.device.chip),
        device=numbered(lambda c: c.device.name),
        cluster=numbered(lambda c: c.cluster),
        is_other=np.array([not c.device.family.startswith("NVIDIA") for c in cases]),
    )


def fit(table: Table, start: Fit | None = None) -> Fit:
    """Terms and spreads from all rows of a table.

    Args:
        start: a fit to begin at, which saves time.
    """
    mean = np.array([p.mean for p in TERMS.values()])
    sd = np.array([p.sd for p in TERMS.values()])
    theta, spread = (mean, BEFORE) if start is None else (start.theta, start.spread)
    weights = np.ones(len(table.measured))
    information = np.diag(1 / sd**2)
    for _ in range(SWEEPS if start is None else SWEEPS - 1):
        half = cholesky(_covariance(table, spread, weights), lower=True)

        def residuals(t: Array, half: Array = half) -> Array:
            off = log_ms(t, table.design)[0] - table.measured
            return np.concatenate([solve_triangular(half, off, lower=True), (t - mean) / sd])

        def jacobian(t: Array, half: Array = half) -> Array:
            slope = log_ms(t, table.design)[1]
            return np.concatenate([solve_triangular(half, slope, lower=True), np.diag(1 / sd)])

        solved = least_squares(residuals, theta, jac=jacobian, method="lm", xtol=1e-7, ftol=1e-7)
        theta = solved.x
        information = solved.jac.T @ solved.jac
        off = table.measured - log_ms(theta, table.design)[0]
        spread = _spread(table, off, weights, spread)
        weights = _weights(table, off, weights, spread)
    return Fit(theta, np.asarray(np.linalg.inv(information), dtype=np.float64), spread)


def _covariance(table: Table, spread: Spread, weights: Array) -> Array:
    """Of the measured logarithms around the model: shared by chip, shared by table on a chip, and each row's own."""
    chip = np.where(table.is_other, spread.other_device, spread.nvidia)
    shared = (table.chip[:, None] == table.chip) * np.outer(chip, chip)
    shared = shared + (table.cluster[:, None] == table.cluster) * spread.table**2
    return np.asarray(shared + np.diag(spread.row**2 / weights), dtype=np.float64)


def _spread(table: Table, off: Array, weights: Array, before: Spread) -> Spread:
    """The spreads that make these deviations likeliest, held to BEFORE."""
    prior = np.log(list(BEFORE.model_dump().values()))

    def minus_log_likelihood(logs: Array) -> float:
        factor = cho_factor(_covariance(table, _as_spread(logs), weights), lower=True)
        fitted = off @ cho_solve(factor, off) / 2 + np.log(np.diag(factor[0])).sum()
        return float(fitted + (((logs - prior) / SPREAD_SD) ** 2).sum() / 2)

    start = np.log(list(before.model_dump().values()))
    options = {"maxiter": 60, "xatol": 0.02, "fatol": 0.02}
    return _as_spread(minimize(minus_log_likelihood, start, method="Nelder-Mead", options=options).x)


def _as_spread(logs: Array) -> Spread:
    nvidia, other, by_table, row = (float(v) for v in np.exp(logs))
    return Spread(nvidia=nvidia, other_device=other, table=by_table, row=row)


def _weights(table: Table, off: Array, weights: Array, spread: Spread) -> Array:
    """How much each row counts, by what is left of its deviation when chip and table are taken out."""
    whole = _covariance(table, spread, weights)
    own = spread.row**2 / weights
    left = own * np.linalg.solve(whole, off)
    by_t = (FREEDOM + 1) / (FREEDOM + (left / spread.row) ** 2)
    return np.asarray(np.clip(by_t, 0.02, 1.0), dtype=np.float64)


class LeftOut(NamedTuple):
    """What was projected for each row by a fit that saw nothing of its device."""

    log_error: Array
    """Natural logarithm of projected over measured."""
    sd: Array
    shares: Array
    """(rows, 4), of the components."""


def leave_out(table: Table, groups: NDArray[np.int64], start: Fit) -> LeftOut:
    """Projects each group by a fit to all others: terms, spreads and weights are found anew each time."""
    error, sd = np.zeros(len(table.measured)), np.zeros(len(table.measured))
    shares = np.zeros((len(table.measured), len(COMPONENTS)))
    for group in np.unique(groups):
        held_out = groups == group
        fitted_to_rest = fit(table.of(~held_out), start)
        rest = table.of(held_out)
        total, slope, parts = log_ms(fitted_to_rest.theta, rest.design)
        error[held_out] = total - rest.measured
        sd[held_out] = predictive_sd(
            slope, fitted_to_rest.covariance, fitted_to_rest.spread, [c.device for c in rest.cases]
        )
        shares[held_out] = parts
    return LeftOut(error, sd, shares)


def grade(table: Table, left_out: LeftOut, what: str, groups: NDArray[np.int64], rows: Mask | None = None) -> Grading:
    """The errors of rows that were projected without their devices.

    Args:
        what: `chip` or `device`.
        rows: those to grade; None takes all.
    """
    chosen = np.ones(len(table.measured), dtype=bool) if rows is None else rows
    error, sd = left_out.log_error[chosen], left_out.sd[chosen]
    return Grading(
        left_out=what,
        rows=int(chosen.sum()),
        groups=len(np.unique(groups[chosen])),
        median_error=float(np.median(relative(error))),
        held=float(np.mean(np.abs(error) <= NORMAL_95 * sd)),
        median_width=float(np.median(np.exp(2 * NORMAL_95 * sd))),
    )


def relative(log_error: Array) -> Array:
    """|projected - measured| / measured from the logarithm of their ratio."""
    return np.abs(np.expm1(log_error))


def model_of(table: Table) -> tuple[Model, LeftOut]:
    """The whole of it: the fit to all rows, and its gradings by chip and by device. Takes about a minute."""
    whole = fit(table)
    by_chip = leave_out(table, table.chip, whole)
    by_device = leave_out(table, table.device, whole)
    published = np.array([c.device.basis == "published" for c in table.cases])
    gradings = (
        grade(table, by_chip, "chip", table.chip),
        grade(table, by_device, "device", table.device),
        grade(table, by_chip, "chip, peaks published", table.chip, published),
        grade(table, by_device, "device, peaks published", table.device, published),
    )
    error = relative(by_chip.log_error)
    model = Model(
        terms=dict(zip(TERMS, (float(v) for v in whole.theta), strict=True)),
        covariance=tuple(tuple(float(v) for v in row) for row in whole.covariance),
        spread=whole.spread,
        rows=len(table.measured),
        smallest_flops=min(c.workload.flops_per_example for c in table.cases),
        chips=tuple(sorted({c.device.chip for c in table.cases})),
        gradings=gradings,
        errors_by_component={
            name: float(np.median(error[mine]))
            for index, name in enumerate(COMPONENTS)
            if (mine := by_chip.shares[:, index] > 0.5).any()
        },
    )
    return model, by_chip
