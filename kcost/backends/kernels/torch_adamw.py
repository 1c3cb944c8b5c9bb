"""AdamW for the torch backend on a CPU, one pass over memory for each variable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.optim.adamw import adamw

from kcost.models.keras_private import AdamInOneCall, variable_index


class FusedAdamW(AdamInOneCall):
    """Keras's AdamW, number for number, through torch's fused kernel, with a factor of the rate for each variable.

    Keras's own takes a dozen passes over each variable on a CPU: a quarter of the step of a small BERT, whose word
    embeddings are half of its parameters.
    """

    def __init__(self, learning_rate: Any, factors: Sequence[float], decays: Sequence[float], **keywords: Any) -> None:
        """`factors` and `decays` give each trainable variable's factor of the rate and weight decay, in their order."""
        super().__init__(learning_rate, **keywords)
        self._factors, self._decays = factors, decays

    def clipped(self, gradients: list[torch.Tensor]) -> list[torch.Tensor]:
        """The gradients as the settings clip them. In place: they serve for nothing else."""
        if not self.global_clipnorm:
            return super().clipped(gradients)
        norm = torch.nn.utils.get_total_norm(gradients)
        if norm > self.global_clipnorm:
            torch._foreach_mul_(gradients, self.global_clipnorm / norm)
        return gradients

    @torch.no_grad()  # type: ignore[untyped-decorator]  # torch gives it no types
    def update_all(self, gradients: list[torch.Tensor], variables: list[Any], learning_rate: Any) -> None:
        """One step of all variables."""
        done = float(self.iterations) + 1
        # Keras adds epsilon to the raw second moment, torch to the corrected one.
        epsilon = self.epsilon / (1 - self.beta_2**done) ** 0.5
        moments = [self.moments(variable) for variable in variables]
        groups: dict[tuple[float, float], list[int]] = {}
        for place, variable in enumerate(variables):
            index = variable_index(self, variable)
            groups.setdefault((self._factors[index], self._decays[index]), []).append(place)
        for (factor, decay), places in groups.items():
            adamw(
                params=[variables[p].value for p in places],
                grads=[gradients[p] for p in places],
                exp_avgs=[moments[p][0].value for p in places],
                exp_avg_sqs=[moments[p][1].value for p in places],
                max_exp_avg_sqs=[],
                state_steps=[torch.tensor(done - 1) for _ in places],
                fused=True,
                amsgrad=False,
                beta1=self.beta_1,
                beta2=self.beta_2,
                lr=float(learning_rate) * factor,
                weight_decay=decay,
                eps=epsilon,
                maximize=False,
            )
