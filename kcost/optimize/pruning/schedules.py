"""When masks change during training, and to what sparsity: the schedules of tensorflow_model_optimization."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from kcost.core.prune_spec import MaskPruning, PatternPruning

MASKS_IN_ALL = 50
"""How often masks change between begin and end where a spec does not say."""


@dataclass(frozen=True)
class Schedule:
    """Sparsity by step; steps count from 1, and masks change at begin_step + k * frequency up to end_step.

    The sparsity goes from `initial` to `final` as final + (initial - final) * (1 - t)^power, with t the part of the way
    from begin to end. Source: Zhu and Gupta (2017), To prune, or not to prune, section 3 (power 3). A constant schedule
    has `initial` equal to `final`.
    """

    initial: float
    final: float
    begin_step: int
    end_step: int
    frequency: int
    power: float = 3

    def updates_at(self, step: int) -> bool:
        """Whether masks change before this step. An end_step of -1 stands for no end."""
        within = step >= self.begin_step and (step <= self.end_step or self.end_step < 0)
        return within and (step - self.begin_step) % self.frequency == 0

    def sparsity_at(self, step: int) -> np.float32:
        """The share of weights to zero, in the float32 arithmetic of tensorflow_model_optimization."""
        if self.initial == self.final:
            return np.float32(self.final)
        t = np.float32(step - self.begin_step) / np.float32(self.end_step - self.begin_step)
        left = np.float32(1) - np.clip(t, np.float32(0), np.float32(1))
        return np.float32(
            np.float32(self.initial - self.final) * np.power(left, np.float32(self.power)) + np.float32(self.final)
        )


def schedule_of(spec: MaskPruning, total_steps: int) -> Schedule:
    """The schedule that a spec asks for in a training of `total_steps`; a pattern is chosen once, at the first step."""
    if isinstance(spec, PatternPruning):
        dropped = 1 - spec.kept / spec.group
        return Schedule(dropped, dropped, 1, 1, 1)
    final = spec.sparsity
    begin = max(1, round(spec.begin * total_steps))
    if spec.schedule == "constant":
        end = begin if spec.every is None else max(begin, round(spec.end * total_steps))
        return Schedule(final, final, begin, end, spec.every or 1)
    end = max(begin + 1, round(spec.end * total_steps))
    frequency = min(spec.every or max(1, (end - begin) // MASKS_IN_ALL), end - begin)
    # The last mask falls on the end, where the sparsity is the one that was asked for.
    return Schedule(0.0, final, begin, begin + (end - begin) // frequency * frequency, frequency)
