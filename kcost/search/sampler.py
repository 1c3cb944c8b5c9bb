"""The sampler of a study: seeded by trial, so that neither a restart nor a second process repeats a draw.

Imports optuna: imported only from inside functions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna


class SeededByTrial(optuna.samplers.BaseSampler):  # type: ignore[misc]  # optuna is not type-checked here
    """Multi-objective TPE with a random generator of its own for each trial, made of the seed and its number.

    Optuna's samplers are seeded once a process: two processes with one seed would suggest the same trials, and so
    would one that starts again. The first trial has fixed values, a point of comparison for all others.
    """

    def __init__(self, seed: int, first: dict[str, Any]) -> None:
        self._seed, self._first = seed, first
        self._number = -1
        self._tpe = optuna.samplers.TPESampler()

    def _of(self, trial: Any) -> optuna.samplers.TPESampler:
        if trial.number != self._number:
            seed = int(np.random.SeedSequence((self._seed, trial.number)).generate_state(1)[0])
            self._number, self._tpe = trial.number, optuna.samplers.TPESampler(seed=seed)
        return self._tpe

    def infer_relative_search_space(self, study: Any, trial: Any) -> Any:
        """See optuna."""
        return {} if trial.number == 0 else self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> Any:
        """See optuna."""
        return {} if trial.number == 0 else self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, param_name: str, param_distribution: Any) -> Any:
        """See optuna."""
        if trial.number == 0:
            return self._first[param_name]
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)
