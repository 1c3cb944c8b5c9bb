"""The loss of each kind of answer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from kcost.core.answer import IGNORED_LABEL, Answer
from kcost.core.errors import UnavailableError


class WeightedCrossEntropy(keras.losses.Loss):  # type: ignore[misc]  # keras has no types
    """Cross-entropy over integer labels with label smoothing, class weights, and soft targets beside them.

    With s the smoothing, w the weight of an element's class and p the model's probabilities, the loss is the mean,
    weighted by w, of (1 - s) * -log p[label] + s * mean over classes of -log p. Labels of -1 weigh nothing.
    Where labels come with soft targets q, that is (1 - d) of an element; d times the sum of -q * log p is the rest.

    Source of label smoothing: Szegedy et al. (2016), Rethinking the Inception Architecture, section 7. Of soft targets:
    see `training.distillation`.
    """

    def __init__(
        self, from_logits: bool, label_smoothing: float, class_weights: Sequence[float] | None, soft_share: float = 0.0
    ) -> None:
        super().__init__(name="weighted_cross_entropy", reduction=None)
        self._from_logits, self._smoothing, self._soft_share = from_logits, label_smoothing, soft_share
        self._class_weights = None if class_weights is None else ops.convert_to_tensor(class_weights, "float32")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """Labels (...), or labels and soft targets (..., 1 + classes), and outputs (..., classes) in; a scalar out."""
        soft = None
        if len(y_true.shape) == len(y_pred.shape):
            soft, y_true = ops.cast(y_true[..., 1:], "float32"), y_true[..., 0]
        y_pred = ops.cast(y_pred, "float32")
        epsilon = keras.backend.epsilon()
        log_p = ops.log_softmax(y_pred) if self._from_logits else ops.log(ops.clip(y_pred, epsilon, 1.0))
        y_true = ops.cast(y_true, "int32")  # Keras hands labels over as floats
        known = ops.not_equal(y_true, IGNORED_LABEL)
        labels = ops.where(known, y_true, 0)
        hit = -ops.squeeze(ops.take_along_axis(log_p, ops.expand_dims(labels, -1), axis=-1), -1)
        element = (1 - self._smoothing) * hit - self._smoothing * ops.mean(log_p, axis=-1)
        if soft is not None:
            element = (1 - self._soft_share) * element - self._soft_share * ops.sum(soft * log_p, axis=-1)
        weight = ops.cast(known, "float32")
        if self._class_weights is not None:
            weight = weight * ops.take(self._class_weights, labels)
        # A batch of nothing but ignored positions has a loss of 0, not 0 / 0.
        return ops.sum(weight * element) / ops.maximum(ops.sum(weight), epsilon)


def learns_classes(answer: Answer) -> bool:
    """Whether an output has a unit for each class, so that a cross-entropy over class numbers is its loss."""
    return answer.kind in ("multiclass", "tags") or (answer.kind == "binary" and answer.threshold is None)


def loss_of(
    answer: Answer | None,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] | None = None,
    soft_share: float = 0.0,
) -> keras.losses.Loss:
    """The loss that an output of a kind is trained with, on labels as `fitted_labels` gives them. Keras's own where it
    suffices.

    Args:
        answer: None where nothing is known of what labels are of.
        class_weights: for outputs with a unit for each class.
        soft_share: part of the loss that goes by soft targets, for labels that come with them; 0 to 1; likewise.

    Raises:
        UnavailableError: no loss is known for the kind, or not with these options.
    """
    if answer is None or answer.kind == "embedding":
        received = "an output of unknown kind" if answer is None else str(answer)
        raise UnavailableError(
            "A training step needs an output whose kind has a loss.",
            received=received,
            remedy="Measure inference only (--phases inference), or name the kind of the output with --task.",
        )
    if learns_classes(answer):
        if label_smoothing or class_weights is not None or soft_share:
            return WeightedCrossEntropy(answer.logits, label_smoothing, class_weights, soft_share)
        ignored = IGNORED_LABEL if answer.kind == "tags" else None
        return keras.losses.SparseCategoricalCrossentropy(from_logits=answer.logits, ignore_class=ignored)
    if class_weights is not None or soft_share or (label_smoothing and answer.kind == "regression"):
        raise UnavailableError(
            "Class weights, label smoothing and distillation are for outputs with a unit for each class.",
            received=str(answer),
            remedy="Leave these options out.",
        )
    if answer.kind == "regression":
        return keras.losses.MeanSquaredError()
    return keras.losses.BinaryCrossentropy(from_logits=answer.logits, label_smoothing=label_smoothing)
