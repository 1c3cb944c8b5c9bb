"""Adversarial examples of Keras models, and training on them, on whichever backend this process runs.

An image is changed itself. The tokens of a text are integers, so that the output of the token embedding is changed,
as in Miyato, Dai and Goodfellow (2017). Gradients are those of the model as it answers users: without dropout, and
with the running statistics of batch normalisation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from kcost.backends import driver
from kcost.backends.base import Inputs
from kcost.core.answer import IGNORED_LABEL, Answer
from kcost.core.errors import UnavailableError
from kcost.core.pixels import UNIT, Pixels
from kcost.training.attacks import TINY, GradientFn, Norm, Range, direction
from kcost.training.losses import learns_classes

EMBEDDING = "token_embedding"
"""Layer of a text model whose output is changed; the name that keras_nlp gives it."""


def split_at_embeddings(model: keras.Model) -> tuple[keras.Model, keras.Model]:
    """Cuts a functional text model in two, which share its layers and weights.

    Returns:
        The model's inputs -> embedded tokens (batch, length, width); and a list of those embedded tokens and then
        the model's inputs in their order -> the model's outputs.

    Raises:
        UnavailableError: the model has no layer `token_embedding`, or its inputs have no names.
    """
    names = [layer.name for layer in model.layers]
    if EMBEDDING not in names or not isinstance(model.input, dict):
        raise UnavailableError(
            f"A text model is attacked at its layer {EMBEDDING!r}, and takes its inputs by name.",
            received=f"{model.name} with the layers {', '.join(names)}",
            remedy="Use a functional model over a BERT of keras_nlp, such as `kcost train --family bert` makes.",
        )
    embeddings = []

    def call(layer: keras.layers.Layer, *args: Any, **kwargs: Any) -> Any:
        output = layer(*args, **kwargs)
        if layer.name == EMBEDDING:
            embeddings.append(output)
        return output

    # Cutting a graph at a tensor spoils its inputs for saving: a second graph over the same layers is cut.
    graph = keras.models.clone_model(model, clone_function=lambda layer: layer, call_function=call)
    embed = keras.Model(graph.input, embeddings[0])
    return embed, keras.Model([embeddings[0], *graph.input.values()], graph.output)


class PerturbedModel:
    """A model seen from the tensor that is changed, the point: the images themselves, or embedded tokens.

    Attributes:
        unit: a change of 1 of an image in [0, 1], in the scale that the model takes; 1 for texts.
        clip: the range of valid points in that scale; None where every value is valid.
    """

    def __init__(self, model: keras.Model, answer: Answer, is_text: bool, pixels: Pixels | None = None) -> None:
        """Prepares a functional model whose only output has a unit for each class.

        Args:
            pixels: the scale that the model takes images in; None for [0, 1].

        Raises:
            UnavailableError: the output is of another kind, a text model cannot be split, or images are whole numbers.
        """
        if not learns_classes(answer) or len(model.outputs) > 1:
            raise UnavailableError(
                "An attack is on a model whose only output has a unit for each class.",
                received=str(answer) if len(model.outputs) == 1 else f"{len(model.outputs)} outputs",
            )
        self._from_logits = answer.logits
        self.is_text = is_text
        self.norm: Norm = "l2" if self.is_text else "linf"
        pixels = pixels or UNIT
        self.unit = 1.0 if self.is_text else pixels.factor
        self.clip: Range | None = None if self.is_text else pixels.range
        whole = [t for t in getattr(model, "inputs", None) or () if "int" in str(t.dtype)]
        if whole and not self.is_text:
            raise UnavailableError(
                "An attack follows the gradient of an image's pixels, which whole numbers do not have.",
                received=f"{model.name} with the input {whole[0].name} of {whole[0].dtype}",
                remedy="Save the model with an input of float32.",
            )
        self._model, self.rest = model, model
        self._embed: keras.Model | None = None
        if self.is_text:
            self._embed, self.rest = split_at_embeddings(model)
        # Made on tensors, so that it can stand inside any compiled step.
        self.gradient = driver(keras.backend.backend()).gradient_of(self._loss)
        self._compiled = _Gradient(self)

    def point(self, inputs: Any) -> Any:
        """What is changed, for a batch of the model's inputs; tensors."""
        return inputs if self._embed is None else self._embed(inputs)

    def answer(self, point: Any, inputs: Any, *, training: bool) -> Any:
        """The model's outputs at a point; tensors."""
        return self.rest(self._at(point, inputs), training=training)

    def points(self, inputs: Any) -> np.ndarray:
        """`point` on the host."""
        return np.asarray(ops.convert_to_numpy(self.point(inputs)))

    def gradient_fn(self, inputs: Any) -> GradientFn:
        """Points and labels -> gradients, on the host and compiled; `inputs` are the batch's own."""
        return lambda x, labels: np.asarray(
            self._compiled.predict_on_batch({"point": x, "inputs": inputs, "labels": labels})
        )

    def predict(self, point: np.ndarray, inputs: Any) -> np.ndarray:
        """The model's outputs at a point, on the host and compiled."""
        return np.asarray(self.rest.predict_on_batch(self._at(point, inputs)))

    def _at(self, point: Any, inputs: Any) -> Any:
        return [point, *(inputs[name] for name in self._model.input)] if self.is_text else point

    def _loss(self, point: Any, inputs: Any, labels: Any) -> Any:
        return cross_entropy(labels, self.answer(point, inputs, training=False), self._from_logits)


class _Gradient(keras.Model):  # type: ignore[misc]  # keras has no types
    """Lets Keras compile a gradient and feed it the weights as they are now, as it does for any model's outputs."""

    def __init__(self, perturbed: PerturbedModel) -> None:
        super().__init__(name="input_gradient", dtype="float32")
        self.rest = perturbed.rest
        self._gradient = perturbed.gradient
        self.built = True

    def call(self, data: dict[str, Any]) -> Any:
        """Gradients at `point` for `inputs` and `labels`."""
        return self._gradient(data["point"], data["inputs"], data["labels"])


def input_gradient(
    model: keras.Model, answer: Answer, is_text: bool
) -> Callable[[Inputs | np.ndarray, np.ndarray], np.ndarray]:
    """Inputs of a model and labels -> gradient of the cross-entropy (summed over the batch) at its point, float32.

    Images: an array of their shape. Texts: inputs by name in, (batch, length, width) of the embedded tokens out.
    """
    perturbed = PerturbedModel(model, answer, is_text)

    def gradient(inputs: Inputs | np.ndarray, labels: np.ndarray) -> np.ndarray:
        return perturbed.gradient_fn(inputs)(perturbed.points(inputs), labels)

    return gradient


def cross_entropy(labels: Any, outputs: Any, from_logits: bool) -> Any:
    """Cross-entropy summed over all labels but IGNORED_LABEL, with a gradient that does not vanish.

    Computed as log(1 + exp(m)), where m are the log odds that the answer is wrong. The usual form has a gradient of
    zero, to the last bit, where float32 rounds a model's confidence to 1: an attack on it goes nowhere, and the model
    seems robust (Carlini and Wagner, 2017, Towards Evaluating the Robustness of Neural Networks, section V).

    Args:
        labels: integers, shape (...).
        outputs: logits or probabilities, shape (..., classes).
    """
    outputs = ops.cast(outputs, "float32")
    log_p = outputs if from_logits else ops.log(ops.maximum(outputs, TINY))
    known = ops.not_equal(labels, IGNORED_LABEL)
    right = ops.one_hot(ops.where(known, labels, 0), outputs.shape[-1], dtype="bool")
    own = ops.sum(ops.where(right, log_p, 0.0), axis=-1)
    others = ops.logsumexp(ops.where(right, -1e9, log_p), axis=-1)
    return ops.sum(ops.where(known, ops.softplus(others - own), 0.0))


class AdversarialTrainer(keras.Model):  # type: ignore[misc]  # keras has no types
    """Trains a model on the mean of the loss on a batch and the loss on its FGSM examples, made of the weights of
    that step. Compiled and fitted in the model's place; the weights are the model's own.

    Validation and metrics are those of the model without attack.

    Sources: as of `attacks.fgsm`, with equal weight for both losses (Goodfellow et al. 2015, section 6).
    """

    def __init__(self, model: keras.Model, answer: Answer, is_text: bool, epsilon: float) -> None:
        super().__init__(name=f"adversarial_{model.name}", dtype="float32")
        self.wrapped = model
        self._perturbed = PerturbedModel(model, answer, is_text)
        self._epsilon = epsilon
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """What the model answers."""
        return self.wrapped(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Keras calls this in each step, within the backend's own gradient."""
        clean = super().compute_loss(x, y, y_pred, sample_weight, training)
        if not training:
            return clean
        seen = self._perturbed
        x = keras.tree.map_structure(ops.convert_to_tensor, x)
        point = seen.point(x)
        gradient = seen.gradient(ops.stop_gradient(point), x, y)
        change = self._epsilon * direction(ops.cast(gradient, "float32"), seen.norm, ops)
        moved = point + ops.cast(ops.stop_gradient(change), point.dtype)
        if seen.clip is not None:
            moved = ops.clip(moved, *seen.clip)
        attacked = super().compute_loss(x, y, seen.answer(moved, x, training=True), sample_weight, training)
        return (clean + attacked) / 2


def adversarial_model(model: keras.Model, answer: Answer, is_text: bool, epsilon: float) -> AdversarialTrainer:
    """The model to compile and fit instead of `model`, so that `model` resists changes of size `epsilon`.

    Args:
        model: a functional image classifier, or a text model with a layer `token_embedding`.
        epsilon: for images the change of each value, of images in [0, 1]; for texts the Euclidean length of the change
            of all embedded tokens of an example.

    Raises:
        UnavailableError: the output has no unit for each class, or a text model cannot be split.
    """
    return AdversarialTrainer(model, answer, is_text, epsilon)
