"""Pruning weights: once, or while the model is trained, with masks that hold through every step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from kcost.core.errors import InputError
from kcost.core.prune_spec import (
    BlockPruning,
    MaskPruning,
    PatternPruning,
    PruneSpec,
    StructuredPruning,
)
from kcost.models.keras_private import forget_variables
from kcost.optimize.coverage import Change, Coverage
from kcost.optimize.kernels import Kernel, copy_of, kernels_of
from kcost.optimize.pruning.importance import Labelled, taylor_scores
from kcost.optimize.pruning.masks import block_mask, global_masks, magnitude_mask, pattern_mask
from kcost.optimize.pruning.schedules import schedule_of
from kcost.optimize.pruning.structured import remove_units


def prune(
    model: keras.Model, spec: PruneSpec, *, skip: Sequence[str] = (), labelled: Labelled | None = None
) -> tuple[keras.Model, Coverage]:
    """A copy of a model with the least important weights set to zero, or with whole units removed.

    Args:
        model: a float model; it is not changed.
        skip: paths or names of layers to leave as they are.
        labelled: data and loss, for importance=taylor.

    Returns:
        A model that saves as a plain `.keras` file (structured pruning of encoder blocks puts in kcost's own
        EncoderBlock), and what was pruned: the sparsity of each layer, or its units before and after.

    Raises:
        InputError: importance=taylor without data, or no layer of the model can be pruned.
        UnavailableError: the model cannot be rebuilt from its config.

    Examples:
        >>> import keras
        >>> from kcost.core.prune_spec import parse_prune_spec
        >>> from kcost.optimize import prune
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16), keras.layers.Dense(4)])
        >>> pruned, coverage = prune(model, parse_prune_spec("magnitude:0.5"))
        >>> float((pruned.get_weights()[0] == 0).mean()), bool((model.get_weights()[0] == 0).any())
        (0.5, False)
    """
    if isinstance(spec, StructuredPruning):
        return remove_units(model, spec, skip=skip, labelled=labelled)
    pruned = copy_of(model)
    kernels, left = kernels_of(pruned, skip)
    require_some(kernels, left)
    if spec.importance == "taylor":
        scores = taylor_scores(pruned, [k.variable for k in kernels], labelled)
    else:
        scores = magnitudes(kernels)
    apply_masks(kernels, masks_of(kernels, spec, scores))
    return pruned, coverage_of(pruned, spec, skip)


def magnitudes(kernels: Sequence[Kernel]) -> list[np.ndarray]:
    """The absolute values of each kernel's weights, float32."""
    return [np.abs(kernel.values()) for kernel in kernels]


def masks_of(
    kernels: Sequence[Kernel],
    spec: MaskPruning,
    scores: Sequence[np.ndarray],
    sparsity: float | np.floating | None = None,
) -> list[np.ndarray]:
    """One mask a kernel, of its shape: True where the weight stays.

    Args:
        scores: importances, of the kernels' shapes.
        sparsity: in place of the spec's own, on the way there.
    """
    if isinstance(spec, PatternPruning):
        return [
            k.from_matrix(pattern_mask(k.matrix(s), spec.kept, spec.group))
            for k, s in zip(kernels, scores, strict=True)
        ]
    share = spec.sparsity if sparsity is None else sparsity
    if isinstance(spec, BlockPruning):
        size = (spec.height, spec.width)
        return [
            k.from_matrix(block_mask(k.matrix(s), share, *size, spec.pooling))
            for k, s in zip(kernels, scores, strict=True)
        ]
    if spec.scope == "global":
        return global_masks(scores, share)
    return [magnitude_mask(s, share) for s in scores]


def apply_masks(kernels: Sequence[Kernel], masks: Sequence[np.ndarray]) -> None:
    """Sets what the masks drop to zero; the rest keeps every bit."""
    for kernel, mask in zip(kernels, masks, strict=True):
        kernel.variable.assign(ops.where(mask, kernel.variable.value, 0))


def coverage_of(model: keras.Model, spec: MaskPruning, skip: Sequence[str] = ()) -> Coverage:
    """The sparsity of each kernel as it is now."""
    kernels, left = kernels_of(model, skip)
    changed = []
    for kernel in kernels:
        values = kernel.values()
        sparsity = 1 - np.count_nonzero(values) / values.size
        what = f"{kernel.kind} -> {_described(spec)}, sparsity {sparsity:.4f}"
        changed.append(Change(layer=kernel.path, what=what, parameters=values.size))
    return Coverage(changed=tuple(changed), skipped=tuple(left))


def require_some(kernels: Sequence[Any], left: Sequence[Change]) -> None:
    """Refuses a model in which there is nothing to prune."""
    if not kernels:
        raise InputError(
            "A model is pruned in its Dense, EinsumDense and convolution layers and its encoder blocks.",
            received="; ".join(f"{c.layer}: {c.what}" for c in left) or "a model without weights of that kind",
            remedy="Prune a float model before it is quantized, and leave out fewer layers.",
        )


def _described(spec: MaskPruning) -> str:
    if isinstance(spec, PatternPruning):
        return f"{spec.kept}:{spec.group}"
    if isinstance(spec, BlockPruning):
        return f"blocks {spec.height}x{spec.width}"
    return f"magnitude ({spec.scope})" if spec.importance == "magnitude" else f"Taylor ({spec.scope})"


class PruningCallback(keras.callbacks.Callback):  # type: ignore[misc]  # keras has no types
    """Prunes a model while it is trained: masks follow a schedule, and hold through every step.

    Each kernel's constraint applies its mask inside the compiled step, behind the optimizer's update: momentum cannot
    bring a weight back. In the one step before masks change, weights move freely, so that a dropped weight can come
    back if its update is large; tensorflow_model_optimization does the same.

    Steps are those of the optimizer, from 1 on: a run that resumes goes on where it was, with the zeros that it finds
    as its masks. Compile the model anew to begin again. Stand the callback before those that save the model.
    """

    def __init__(self, spec: MaskPruning | None, total_steps: int, *, skip: Sequence[str] = ()) -> None:
        """`total_steps` is the number of steps of the whole training; spec None holds the zeros that are there.

        Raises:
            InputError: importance=taylor, which is for pruning at once.
        """
        super().__init__()
        if spec is not None and spec.importance == "taylor":
            raise InputError(
                "Masks that change while a model is trained go by magnitude.",
                received="importance=taylor",
                remedy="Prune once with importance=taylor, then train with its zeros held: PruningCallback(None, 0).",
            )
        self._spec, self._skip = spec, tuple(skip)
        self.schedule = None if spec is None else schedule_of(spec, total_steps)
        self._kernels: list[Kernel] = []
        self._masks: list[np.ndarray] = []
        self._variables: list[Any] = []
        self._constraints: list[Any] = []
        self._held = True
        self._step = 0

    @property
    def masks(self) -> dict[str, np.ndarray]:
        """The masks as they are now, by path of the layer; True where the weight stays."""
        return {k.path: m for k, m in zip(self._kernels, self._masks, strict=True)}

    @property
    def reached(self) -> bool:
        """Whether the last mask has been made, so that a model kept from now on is as sparse as was asked."""
        return self.schedule is None or self._step >= self.schedule.end_step

    def set_model(self, model: keras.Model) -> None:
        """Adds masks to a compiled model's optimizer; Keras calls this before training."""
        super().set_model(model)
        if self._kernels:
            return
        if model.steps_per_execution != 1:
            raise InputError("Masks change between steps.", received=f"steps_per_execution={model.steps_per_execution}")
        self._kernels, left = kernels_of(model, self._skip)
        require_some(self._kernels, left)
        self._masks = [
            k.values() != 0 if self._spec is None else np.ones(k.variable.shape, bool) for k in self._kernels
        ]
        if not model.optimizer.built:
            model.optimizer.build(model.trainable_variables)
        for kernel in self._kernels:
            shape = kernel.variable.shape
            if keras.backend.backend() == "jax":
                # A step is a function of the state alone; what is no part of it would be compiled in as a constant.
                variable = model.optimizer.add_variable(shape, "ones", dtype="bool", name="mask")
            else:
                variable = keras.Variable("ones", shape=shape, dtype="bool", trainable=False, name="mask")
            self._variables.append(variable)
            self._constraints.append(kernel.variable.constraint)
            kernel.variable.constraint = _Held(variable, kernel.variable.constraint)
        model.make_train_function(force=True)

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Takes the zeros of a pruned model for masks, and goes on from the step that the optimizer has come to."""
        self._step = int(ops.convert_to_numpy(self.model.optimizer.iterations))
        if self.schedule is None or self._step > 0:
            self._masks = [kernel.values() != 0 for kernel in self._kernels]
        else:
            self._masks = [np.ones(kernel.variable.shape, bool) for kernel in self._kernels]
        self._hold(True)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        """Makes new masks where the schedule wants them."""
        self._step += 1
        if self.schedule is None:
            return
        update, hold = self.schedule.updates_at(self._step), not self.schedule.updates_at(self._step + 1)
        if not update and hold == self._held:
            return
        self._sync()
        if update:
            sparsity = self.schedule.sparsity_at(self._step)
            assert self._spec is not None
            self._masks = masks_of(self._kernels, self._spec, magnitudes(self._kernels), sparsity)
            apply_masks(self._kernels, self._masks)
        self._hold(hold)

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        """Validation sees the pruned model."""
        self._apply()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        """What is saved after an epoch is pruned."""
        self._apply()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        """Leaves a pruned model with its own constraints, and an optimizer without masks."""
        self._apply()
        for kernel, constraint in zip(self._kernels, self._constraints, strict=True):
            kernel.variable.constraint = constraint
        if keras.backend.backend() == "jax":
            forget_variables(self.model.optimizer, self._variables)
        self._kernels, self._masks, self._variables, self._constraints = [], [], [], []
        self.model.make_train_function(force=True)

    def _hold(self, hold: bool) -> None:
        """Whether the compiled step applies the masks."""
        for variable, mask in zip(self._variables, self._masks, strict=True):
            variable.assign(mask if hold else np.ones_like(mask))
        self._held = hold

    def _apply(self) -> None:
        self._sync()
        apply_masks(self._kernels, self._masks)

    def _sync(self) -> None:
        """Brings variables to the host's knowledge; jax keeps them in a state of its own while it trains."""
        if keras.backend.backend() == "jax":
            self.model.jax_state_sync()


class _Held(keras.constraints.Constraint):  # type: ignore[misc]  # keras has no types
    """Applies a mask after the constraint that a variable had before."""

    def __init__(self, mask: Any, before: Callable[[Any], Any] | None) -> None:
        self._mask, self._before = mask, before

    def __call__(self, w: Any) -> Any:
        """The weights to go on with."""
        w = w if self._before is None else self._before(w)
        return ops.where(ops.convert_to_tensor(self._mask), ops.convert_to_tensor(w), 0)
