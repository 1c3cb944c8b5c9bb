"""What a model answers: the kind of each of its outputs, from which scoring, "same answer" and drops follow.

The kind is taken, in this order, from the user, from what a training or an earlier step stored, from the loss in the
`.keras` file, from the activation that the output ends in, and from the labels. Which it was is always told.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, get_args

import numpy as np
from pydantic import Field

from kcost.core.errors import InputError
from kcost.core.schema import Record

Kind = Literal["multiclass", "binary", "multilabel", "regression", "tags", "embedding"]
"""multiclass: one class an example. binary: yes or no, from one unit or two. multilabel: a yes or no for each element
of an example. regression: numbers. tags: one class a position. embedding: numbers that only their distances give a
meaning to, as of embeddings and rankings, so that there is no score."""

KINDS: tuple[Kind, ...] = get_args(Kind)

SAME_WITHIN = 0.01
"""Numbers are the same answer where they differ by at most this part of the spread (standard deviation) that the
reference's answers have over the examples."""

EMBEDDED_WITHIN = 0.05
"""The same for the distance of two embeddings, as part of the root mean square distance of the reference's from their
mean: neighbours further apart than that keep their order."""

IGNORED_LABEL = -1
"""Label of positions that count neither in a loss nor in a score: padding, continuation pieces."""

_CLASS_LOSSES = frozenset(
    {
        *("sparse_categorical_crossentropy", "categorical_crossentropy", "categorical_focal_crossentropy"),
        *("categorical_hinge", "categorical_generalized_cross_entropy", "kl_divergence", "kld", "kullback_leibler"),
        "weighted_cross_entropy",
    }
)
_YES_NO_LOSSES = frozenset(
    {"binary_crossentropy", "bce", "binary_focal_crossentropy", "hinge", "squared_hinge", "dice", "tversky"}
)
_NUMBER_LOSSES = frozenset(
    {
        *("mean_squared_error", "mse", "mean_absolute_error", "mae", "mean_absolute_percentage_error", "mape"),
        *("mean_squared_logarithmic_error", "msle", "huber", "log_cosh", "logcosh", "poisson"),
    }
)
_DISTANCE_LOSSES = frozenset({"cosine_similarity", "circle"})
_CLASS_ENDINGS = frozenset({"softmax", "log_softmax"})
_YES_NO_ENDINGS = frozenset({"sigmoid", "hard_sigmoid"})
_LOGIT_ENDINGS = frozenset({"linear", "log_softmax", "log_sigmoid", None})

Labels = np.ndarray | Mapping[str, np.ndarray]
"""Labels of the one output that they fit, or of each output by its name."""


class Answer(Record):
    """What one output of a model says."""

    output: str
    kind: Kind
    logits: bool = Field(default=False, description="whether the numbers are logits, and no probabilities")
    threshold: float | None = Field(
        default=None, description="binary of one unit, multilabel: an output above it is a yes, as BinaryAccuracy's"
    )
    because: str = Field(description="what the kind was taken from")

    def __str__(self) -> str:
        limit = "" if self.threshold is None else f", yes above {self.threshold:g}"
        return f"output {self.output!r} taken as {self.kind} from {self.because}{limit}"


class OutputFacts(Record):
    """What is known of one output of a model before it has answered anything."""

    name: str
    layer: str | None = Field(default=None, description="that gives it")
    ending: str | None = Field(default=None, description="the activation that it ends in, as far as it is known")
    product: bool = Field(default=False, description="whether a product with weights is what it ends in")
    loss: str | None = Field(default=None, description="snake name of the loss that it was compiled with")
    from_logits: bool | None = Field(default=None, description="as that loss has it")
    metrics: tuple[str, ...] = Field(default=(), description="snake names of the metrics it was compiled with")
    threshold: float | None = Field(default=None, description="of a BinaryAccuracy among these")
    stated: Answer | None = Field(default=None, description="as a training or an earlier step stored it")


class AnswerChoice(Record):
    """What a user says of a model's answers; None leaves it to the file, the layers and the labels."""

    output: str | None = Field(default=None, description="name of the output that labels are of")
    kind: Kind | None = None
    threshold: float | None = Field(default=None, allow_inf_nan=False, description="as of BinaryAccuracy")


class Answers(Record):
    """The outputs of a model in order, and which of them labels are of."""

    outputs: tuple[Answer, ...]
    scored: str | None = Field(default=None, description="name of that output; None where nothing is scored")
    unscored_because: str | None = Field(default=None, description="why nothing is scored")

    @property
    def main(self) -> Answer:
        """The output that scores are of; without labels the first one that is no embedding."""
        named = next((a for a in self.outputs if a.output == self.scored), None)
        return named or next((a for a in self.outputs if a.kind != "embedding"), self.outputs[0])

    @property
    def main_place(self) -> int:
        """Its place among the outputs."""
        return self.outputs.index(self.main)


class Fitted(NamedTuple):
    """The answers of a model, and the labels of its scored output in the form that its kind wants."""

    answers: Answers
    labels: np.ndarray | None


def plain_answers(kind: Kind, *, logits: bool, because: str, output: str = "output") -> Answers:
    """The answers of a model with one output of a known kind."""
    return Answers(outputs=(Answer(output=output, kind=kind, logits=logits, because=because),), scored=output)


def resolve(
    facts: Sequence[OutputFacts],
    shapes: Sequence[tuple[int | None, ...]],
    labels: Labels | None,
    choice: AnswerChoice | None = None,
) -> Fitted:
    """What each output of a model answers, and which of them the labels are of.

    Args:
        facts: of each output, as far as they are known; others are called output, output_1, ...
        shapes: of each output, the batch axis first.
        labels: as a data set holds them; None where there are none.
        choice: of the user.

    Raises:
        InputError: the user names an output that is not there, or labels that fit no way of reading the output.
    """
    choice = choice or AnswerChoice()
    if len(facts) != len(shapes):
        facts = [OutputFacts(name="output" if not i else f"output_{i}") for i in range(len(shapes))]
    by_name = dict(labels) if isinstance(labels, Mapping) else None
    names = [one.name for one in facts]
    chosen = _chosen(choice, facts, by_name)
    answers = []
    for one, shape in zip(facts, shapes, strict=True):
        own: Labels | None = labels if len(facts) == 1 or one.name == chosen else None
        if by_name is not None:
            own = by_name.get(one.name)
        wanted = choice if chosen in (one.name, None) and (len(facts) == 1 or chosen is not None) else AnswerChoice()
        answers.append(_answer(one, shape, own if isinstance(own, np.ndarray) else None, wanted))
    if labels is None:
        unscored_because = None if len(facts) == 1 else "there are no labels"
        return Fitted(Answers(outputs=tuple(answers), scored=chosen, unscored_because=unscored_because), None)
    if chosen is None:
        fits = [i for i, a in enumerate(answers) if _could_be(a, shapes[i], facts[i], labels, by_name)]
        if len(fits) != 1:
            where_labels_fit = (
                f"labels fit {', '.join(repr(names[i]) for i in fits)}" if fits else "labels fit no output"
            )
            reason = f"{where_labels_fit}; name the one that they are of with --output"
            return Fitted(Answers(outputs=tuple(answers), scored=None, unscored_because=reason), None)
        chosen = names[fits[0]]
    place = names.index(chosen)
    own = by_name[chosen] if by_name is not None else labels
    assert isinstance(own, np.ndarray)
    if by_name is None and len(facts) > 1:
        answers[place] = _answer(facts[place], shapes[place], own, choice)
    answer = answers[place]
    resolved = Answers(
        outputs=tuple(answers),
        scored=None if answer.kind == "embedding" else chosen,
        unscored_because=f"the output {chosen!r} is taken as an embedding" if answer.kind == "embedding" else None,
    )
    return Fitted(resolved, None if answer.kind == "embedding" else fitted_labels(answer, shapes[place], own))


def fitted_labels(answer: Answer, shape: tuple[int | None, ...], labels: np.ndarray) -> np.ndarray:
    """Labels in the form that a kind is scored with.

    multiclass: class numbers (n,), int64; tags: (n, ...), int64, below 0 where a position does not count; binary: 0 or
    1, (n,), int64; multilabel: 0 or 1 for each element, (n, elements), int64; regression: (n, numbers), float64.
    Columns of one, one-hot rows, booleans, whole numbers as floats, and -1 and 1 for no and yes are taken, too.

    Args:
        shape: of the output, the batch axis first.

    Raises:
        InputError: they are of none of these forms.
    """
    fitted = _fit(answer, shape, labels)
    if fitted is None:
        wanted = f"an output of shape {_shape_text(shape)} that is {answer.kind} (from {answer.because})"
        values = "" if labels.dtype.kind not in "iufb" or not labels.size else f", {labels.min():g} to {labels.max():g}"
        raise InputError(
            "Labels are of the kind that the model answers.",
            received=f"labels {labels.dtype} of shape {labels.shape}{values}, for {wanted}",
            remedy="Name the kind with --task, the output with --output, or give other labels.",
        )
    return fitted


def _fit(answer: Answer, shape: tuple[int | None, ...], labels: np.ndarray) -> np.ndarray | None:
    if labels.dtype.kind not in "iufb" or labels.ndim == 0:
        return None
    rows, units = len(labels), _units(shape)
    if answer.kind == "regression":
        numbers = labels.reshape(rows, -1).astype(np.float64)
        same = numbers.shape[1] == _elements(shape) or None in shape[1:]
        return numbers if same and bool(np.isfinite(numbers).all()) else None
    if answer.kind == "multilabel":
        flat = labels.reshape(rows, -1)
        free = None in shape[1:]
        return _yes_no(flat) if free or flat.shape[1] == _elements(shape) else None
    if answer.kind == "binary":
        flat = labels.reshape(rows, -1)
        if flat.shape[1] == 2 == units and _is_one_hot(flat):
            return np.asarray(flat.argmax(1), np.int64)
        return _yes_no(flat[:, 0]) if flat.shape[1] == 1 else None
    positions = len(shape) - 2
    if labels.ndim == positions + 2 and labels.shape[-1] == units and units > 1:
        return np.asarray(labels.argmax(-1), np.int64) if _is_one_hot(labels.reshape(-1, units)) else None
    if labels.ndim == positions + 2 and labels.shape[-1] == 1:
        labels = labels[..., 0]
    whole: np.ndarray = labels.astype(np.int64)
    fits = labels.ndim == positions + 1 and bool((whole == labels).all()) and int(whole.max(initial=0)) < units
    if not fits or (answer.kind == "multiclass" and int(whole.min(initial=0)) < IGNORED_LABEL):
        return None
    return whole


def _yes_no(labels: np.ndarray) -> np.ndarray | None:
    """0 and 1 from these, or from -1 and 1."""
    values = set(np.unique(labels).tolist()) if labels.dtype.kind in "iufb" else {None}
    if values <= {0, 1}:
        return labels.astype(np.int64)
    return (labels > 0).astype(np.int64) if values <= {-1, 1} else None


def _is_one_hot(rows: np.ndarray) -> bool:
    return bool(np.isin(rows, (0, 1)).all() and (rows.sum(-1) == 1).all())


def _chosen(choice: AnswerChoice, facts: Sequence[OutputFacts], labels: dict[str, np.ndarray] | None) -> str | None:
    """The output that labels are of, where that is known before these are looked at; of several the first."""
    names = {one.name for one in facts}
    for label in labels or ():
        if label not in names:
            raise InputError(
                "Labels by name are named after outputs of the model.",
                received=f"labels of {label!r}, and the outputs {', '.join(sorted(names))}",
                remedy="Rename the array after the output that it is of.",
            )
    if choice.output is not None:
        match = [one.name for one in facts if choice.output in (one.name, one.layer)]
        if not match:
            raise InputError(
                "The output that labels are of is one of the model's.",
                received=f"{choice.output!r}, and the outputs {', '.join(sorted(names))}",
                remedy="Name one of these with --output.",
            )
        return match[0]
    if labels is not None:
        return next(one.name for one in facts if one.name in labels)
    return facts[0].name if len(facts) == 1 else None


def _could_be(
    answer: Answer,
    shape: tuple[int | None, ...],
    facts: OutputFacts,
    labels: Labels,
    by_name: dict[str, np.ndarray] | None,
) -> bool:
    """Whether labels may be of an output that nobody named: only where its own end or loss says its kind."""
    if by_name is not None or not isinstance(labels, np.ndarray):
        return False
    sure = facts.stated is not None or facts.loss is not None or facts.ending in _CLASS_ENDINGS | _YES_NO_ENDINGS
    if not sure and not (facts.ending == "linear" and labels.dtype.kind == "f"):
        return False
    if answer.kind in ("multiclass", "tags", "binary", "multilabel") and labels.dtype.kind == "f":
        # Measured numbers that happen to be whole are no classes; one-hot rows are.
        return labels.ndim == len(shape) and _fit(answer, shape, labels) is not None
    if answer.kind == "regression" and labels.dtype.kind != "f" and facts.loss is None:
        return False
    return answer.kind != "embedding" and _fit(answer, shape, labels) is not None


def _answer(
    facts: OutputFacts, shape: tuple[int | None, ...], labels: np.ndarray | None, choice: AnswerChoice
) -> Answer:
    if facts.stated is not None and choice.kind is None:
        limit = facts.stated.threshold if choice.threshold is None else choice.threshold
        return facts.stated.model_copy(update={"output": facts.name, "threshold": limit})
    kind, because = _kind(facts, shape, labels)
    if choice.kind is not None:
        kind, because = choice.kind, "what you named"
    units = _units(shape)
    if (kind == "binary" and units > 2) or (kind in ("multiclass", "tags") and units < 2):
        raise InputError(
            {"binary": "A binary output has one unit or two."}.get(kind, "Classes are told by two units or more."),
            received=f"output {facts.name!r} of shape {_shape_text(shape)}, taken as {kind} from {because}",
            remedy="Name another kind with --task: " + ", ".join(KINDS) + ".",
        )
    if kind in ("multiclass", "tags"):
        kind = "tags" if len(shape) > 2 else "binary" if units == 2 and choice.kind is None else "multiclass"
    # A loss that does not say is one on probabilities, as Keras's default is.
    usual_logits = facts.ending in _LOGIT_ENDINGS and facts.loss not in _CLASS_LOSSES | _YES_NO_LOSSES
    logits = usual_logits if facts.from_logits is None else facts.from_logits
    threshold = None
    if kind == "multilabel" or (kind == "binary" and units == 1):
        hinge = facts.loss in ("hinge", "squared_hinge")
        usual = 0.0 if hinge or (logits and facts.ending not in _YES_NO_ENDINGS) else 0.5
        threshold = next(t for t in (choice.threshold, facts.threshold, usual) if t is not None)
    elif choice.threshold is not None:
        raise InputError(
            "A threshold is for outputs of one unit a yes or no.",
            received=f"--threshold {choice.threshold:g}, and the output {facts.name!r}, which is {kind}",
            remedy="Leave --threshold out, or name the kind with --task binary or multilabel.",
        )
    return Answer(output=facts.name, kind=kind, logits=bool(logits), threshold=threshold, because=because)


def _kind(facts: OutputFacts, shape: tuple[int | None, ...], labels: np.ndarray | None) -> tuple[Kind, str]:
    """The kind of an output and what it is taken from."""
    units, loss = _units(shape), facts.loss
    if loss is not None:
        source = f"{loss} in the file"
        if loss in _CLASS_LOSSES and units > 1:
            return "multiclass", source
        if loss in _YES_NO_LOSSES:
            return _yes_no_kind(shape, labels), source
        if loss in _NUMBER_LOSSES:
            return "regression", source
        if loss in _DISTANCE_LOSSES:
            return "embedding", source
    if facts.ending in _CLASS_ENDINGS and units > 1:
        return "multiclass", f"the {facts.ending} that it ends in"
    if facts.ending in _YES_NO_ENDINGS:
        source = f"the {facts.ending} that it ends in"
        if labels is not None and _yes_no(labels) is None and labels.dtype.kind == "f":
            return "regression", f"{source} and labels that are numbers"
        return _yes_no_kind(shape, labels), source
    if labels is not None:
        return _kind_of_labels(facts, shape, labels)
    if facts.product and facts.ending == "linear":
        if units == 1:
            return "regression", "the one linear unit that it ends in"
        return "multiclass", f"the {units} linear units that it ends in, as logits"
    return "embedding", "what it ends in, which is neither a softmax, a sigmoid nor a linear product"


def _kind_of_labels(facts: OutputFacts, shape: tuple[int | None, ...], labels: np.ndarray) -> tuple[Kind, str]:
    units, positions = _units(shape), len(shape) - 2
    column = labels.ndim > 1 and labels.shape[-1] == 1
    if labels.dtype.kind in "iub":
        if units == 1:
            if len(shape) <= 2 and facts.ending != "relu" and _yes_no(labels) is not None:
                return "binary", "labels of two values and one unit"
            return "regression", "whole numbers as labels and one unit"
        if labels.ndim - column == positions + 1:
            return "multiclass", f"whole numbers as labels and {units} units"
    if labels.ndim == len(shape) and labels.shape[-1] == units > 1 and np.isin(labels, (0, 1)).all():
        if _is_one_hot(labels.reshape(-1, units)):
            return "multiclass", "one-hot labels"
        return "multilabel", "labels of 0 and 1, several a row"
    return "regression", "labels that are numbers"


def _yes_no_kind(shape: tuple[int | None, ...], labels: np.ndarray | None) -> Kind:
    units = _units(shape)
    if units == 1 and len(shape) <= 2:
        return "binary"
    if units > 1 and labels is not None and labels.reshape(len(labels), -1).shape[1] == 1 and len(shape) == 2:
        return "binary" if units == 2 else "multiclass"
    if units == 2 and labels is not None and labels.ndim == 2 and _is_one_hot(labels):
        return "binary"
    return "multilabel"


def _units(shape: tuple[int | None, ...]) -> int:
    """Numbers of an output a position."""
    return (shape[-1] or 1) if len(shape) > 1 else 1


def _elements(shape: tuple[int | None, ...]) -> int:
    """Numbers of an output an example."""
    return int(np.prod([size or 1 for size in shape[1:]], dtype=np.int64)) if len(shape) > 1 else 1


def _shape_text(shape: tuple[int | None, ...]) -> str:
    return "(" + ", ".join("any" if size is None else str(size) for size in shape) + ")"
