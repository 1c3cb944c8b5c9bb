"""AdamW for the torch backend on a CPU, one pass over memory for each variable."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import torch
from torch.optim.adamw import adamw


class FusedAdamW(keras.optimizers.Adam):  # type: ignore[misc]  # keras has no types
    """Keras's AdamW, number for number, through torch's fused kernel, with a factor of the rate for each variable.

    Keras's own takes a dozen passes over each variable on a CPU: a quarter of the step of a small BERT, whose word
    embeddings are half of its parameters.
    """

    def __init__(self, learning_rate: Any, factors: Sequence[float], decays: Sequence[float], **keywords: Any) -> None:
        """`factors` and `decays` give each trainable variable's factor of the rate and weight decay, in their order."""
        super().__init__(learning_rate, **keywords)
        self._factors, self._decays = factors, decays

    def _clip_gradients(self, grads: list[torch.Tensor]) -> list[torch.Tensor]:
        """Keras calls this before the update. In place: the gradients serve for nothing else."""
        if not self.global_clipnorm:
            clipped: list[torch.Tensor] = super()._clip_gradients(grads)
            return clipped
        norm = torch.nn.utils.get_total_norm(grads)
        if norm > self.global_clipnorm:
            torch._foreach_mul_(grads, self.global_clipnorm / norm)
        return grads

    @torch.no_grad()  # type: ignore[untyped-decorator]  # torch gives it no types
    def _backend_update_step(self, grads: list[torch.Tensor], trainable_variables: list[Any], rate: Any) -> None:
        """Keras calls this for all variables at once."""
        done = float(self.iterations) + 1
        # Keras adds epsilon to the raw second moment, torch to the corrected one.
        epsilon = self.epsilon / (1 - self.beta_2**done) ** 0.5
        indices = [self._get_variable_index(v) for v in trainable_variables]
        groups: dict[tuple[float, float], list[int]] = {}
        for place, index in enumerate(indices):
            groups.setdefault((self._factors[index], self._decays[index]), []).append(place)
        for (factor, decay), places in groups.items():
            adamw(
                params=[trainable_variables[p].value for p in places],
                grads=[grads[p] for p in places],
                exp_avgs=[self._momentums[indices[p]].value for p in places],
                exp_avg_sqs=[self._velocities[indices[p]].value for p in places],
                max_exp_avg_sqs=[],
                state_steps=[torch.tensor(done - 1) for _ in places],
                fused=True,
                amsgrad=False,
                beta1=self.beta_1,
                beta2=self.beta_2,
                lr=float(rate) * factor,
                weight_decay=decay,
                eps=epsilon,
                maximize=False,
            )
