"""The verb that makes a training reference: from stored predictions and the data that they are of."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from kcost.core import schema
from kcost.core.artifact import Model, answers_of_task
from kcost.core.errors import InputError
from kcost.core.plan import Backend

if TYPE_CHECKING:
    from kcost.core.predictions import Predictions, SplitPredictions
    from kcost.data import DataSet
    from kcost.risk.drift_reference import Pieces, Reading, Reference

REFERENCE_FILE = "reference.json"
_DEFAULT_MAX_LENGTH = 128
_SOFT_ENDINGS = ("softmax", "sigmoid")

Part = Literal["train", "validation", "test"]


class _Inputs(NamedTuple):
    """The rows of a split as the served model is given them."""

    form: Literal["pixels", "tokens", "arrays"]
    name: str | None
    vectors: np.ndarray | None
    """Shape (n, d)."""
    shape: tuple[int, ...]
    ids: np.ndarray | None
    mask: np.ndarray | None
    positions: np.ndarray | None
    """Of labels in token ids, shape (n, length), bool."""


def make_reference(
    model: Path | str,
    *,
    data: str | None = None,
    split: Part = "test",
    out: Path | str | None = None,
    backend: Backend | None = None,
    limit: int | None = None,
    seed: int = 0,
    **settings: Any,
) -> Reference:
    """What a model is given and answers before it goes live, in a file that live traffic is held against.

    Predictions are those that `assess_risk` stores: they are made once.

    Args:
        model: an artifact folder or a .keras file.
        data: None takes the data set that the model was trained on.
        split: whose rows are the reference. On `train` a model is surer of itself than on anything it meets later.
        out: the file; None takes `reference.json` in an artifact folder, or `NAME-reference.json` beside a file.
        limit: most examples of each split.
        seed: of the words of a tagger that are drawn.
        settings: pixels, batch_size, train_examples.

    Raises:
        InputError: the model and the data do not fit together, or the model answers with no classes.
        UnavailableError: the backend is not installed.
        StorageError: `out` cannot be written to.

    Examples:
        >>> reference = kcost.make_reference("digits-cnn", limit=200, backend="torch")
        >>> reference.rows, [f.name for f in reference.features if f.source == "output"]
        (200, ['confidence', 'class'])
    """
    from kcost.api.risk_predictions import predict_and_store
    from kcost.risk.drift_features import class_columns, tag_columns, token_columns, vector_columns, word_starts
    from kcost.risk.drift_reference import BASIS_ROWS, LONGEST_VECTOR, Reference, features_of, vector_basis
    from kcost.risk.drift_usd import bands_of

    if split not in ("train", "validation", "test"):
        raise InputError("A reference is of one split: train, validation or test.", received=split)
    opened, read, predictions = predict_and_store(model, data=data, backend=backend, limit=limit, **settings)
    answers, header = predictions.splits[split], predictions.header
    names, notes = header.label_names, list(header.dataset.notes)
    reading = _reading(opened, predictions)
    rng = np.random.default_rng(seed)
    inputs = _inputs(opened, read, predictions, split)
    if header.kind == "tags":
        assert inputs is not None
        assert inputs.ids is not None
        assert inputs.mask is not None
        assert inputs.positions is not None
        reading = reading.model_copy(
            update={"form": "tokens", "input": inputs.name, "mask": "padding_mask", "pieces": _pieces(opened)}
        )
        assert reading.pieces is not None
        starts = word_starts(inputs.ids, inputs.mask, reading.pieces)
        kept = starts[inputs.positions]  # labels in order, as they are stored
        outputs = tag_columns(
            answers.log_probabilities[kept],
            answers.predicted[kept],
            answers.rows[kept],
            len(answers),
            names,
            rng.random(len(answers)),
        )
        right = np.ones(len(answers), bool)
        np.logical_and.at(right, answers.rows[kept], answers.right[kept])
    else:
        answers = _one_a_row(answers, opened)
        outputs = class_columns(answers.log_probabilities, answers.predicted, names)
        right = answers.right
    given: dict[str, np.ndarray] = {}
    if inputs is None:
        notes.append("inputs are not watched: features are taken of one input of numbers, of images, or of token ids")
    elif inputs.ids is not None and inputs.mask is not None:
        pieces = reading.pieces or _pieces(opened)
        given = token_columns(inputs.ids, inputs.mask, pieces)
        reading = reading.model_copy(
            update={"form": "tokens", "input": inputs.name, "mask": "padding_mask", "pieces": pieces}
        )
    elif inputs.vectors is not None:
        basis, width = None, inputs.vectors.shape[1]
        if 1 < width <= LONGEST_VECTOR:
            others = _inputs(opened, read, predictions, "validation" if split == "train" else "train")
            assert others is not None
            assert others.vectors is not None
            basis = vector_basis(rng.permutation(others.vectors)[:BASIS_ROWS])
        elif width > LONGEST_VECTOR:
            notes.append(f"no distances of inputs: a row has {width:,} numbers, more than {LONGEST_VECTOR:,}")
        given = vector_columns(inputs.vectors, basis)
        reading = reading.model_copy(
            update={"form": inputs.form, "input": inputs.name, "shape": inputs.shape, "basis": basis}
        )
    confidence = np.nan_to_num(outputs["confidence"], nan=0.0)
    reference = Reference(
        model=header.model,
        model_sha256=header.model_sha256,
        dataset=header.dataset.name,
        split=split,
        rows=len(right),
        unit=header.unit,
        label_names=names,
        reading=reading,
        features=features_of({"output": outputs, "input": {f"input {name}": v for name, v in given.items()}}),
        bands=bands_of(confidence, right),
        notes=tuple(notes),
    )
    schema.write(reference_path(opened) if out is None else Path(out), reference)
    return reference


def reference_path(model: Model) -> Path:
    """Where the reference of a model is unless it is put elsewhere."""
    if model.artifact is not None:
        return model.keras_file.parent / REFERENCE_FILE
    return model.keras_file.with_name(f"{model.keras_file.stem}-{REFERENCE_FILE}")


def read_reference(path: Path) -> Reference:
    """Reads what `make_reference` wrote; `path` may be the artifact folder that it is in.

    Raises:
        InputError: there is none.
        SchemaError: it is damaged or of a newer schema.
    """
    from kcost.risk.drift_reference import Reference

    file = path / REFERENCE_FILE if path.is_dir() else path
    try:
        return schema.read("reference", file, Reference)
    except OSError as error:
        raise InputError(
            "A reference is a file that `kcost monitor reference ARTIFACT` writes.",
            received=f"{file}: {error.strerror}",
            remedy="Make one first, or name another.",
        ) from error


def _one_a_row(answers: SplitPredictions, model: Model) -> SplitPredictions:
    if len(answers.labels) != len(answers):
        raise InputError(
            "A reference is of one answer a row, or of the words of a sentence.",
            received=f"{model.name}: {len(answers.labels):,} labels of {len(answers):,} rows",
        )
    return answers


def _reading(model: Model, predictions: Predictions) -> Reading:
    from kcost.risk.drift_reference import Reading

    header, about = predictions.header, model.artifact
    facts = model.output_facts()
    named = header.choice.output
    fact = next((f for f in facts if f.name == named), facts[0])
    if fact.stated is not None:
        logits, threshold = fact.stated.logits, fact.stated.threshold
    elif about is not None and about.family != "unknown":
        logits, threshold = answers_of_task(about.task).main.logits, None
    elif fact.from_logits is not None or fact.ending in _SOFT_ENDINGS:
        logits, threshold = bool(fact.from_logits) and fact.ending not in _SOFT_ENDINGS, fact.threshold
    else:
        raise InputError(
            "A reference knows whether answers are probabilities or logits.",
            received=f"{model.name}, whose file does not say: it ends in {fact.ending or 'no known activation'}",
            remedy="End it in softmax or sigmoid, or save it compiled with its loss.",
        )
    return Reading(
        kind=header.kind,
        logits=logits,
        threshold=header.choice.threshold if header.choice.threshold is not None else threshold,
        output=fact.name if len(facts) > 1 else None,
        form="arrays",
    )


def _inputs(model: Model, read: DataSet, predictions: Predictions, split: str) -> _Inputs | None:
    """The inputs of the rows that were predicted; None where no features are taken of them."""
    from kcost.data import ArraySet, ImageSet, TagSet
    from kcost.data.pixels import pixels_of, scaled

    answers, about = predictions.splits[split], model.artifact
    places = answers.examples
    if isinstance(read, ImageSet):
        pixels = None if about is None else about.pixels
        if predictions.header.pixels is not None:
            pixels = pixels_of(read, predictions.header.pixels, "as --pixels says")
        elif pixels is not None and pixels.scale == "as-is":
            pixels = pixels_of(read, "as-is", "as the artifact was made with")
        if pixels is None:
            return None
        images = scaled(read, pixels).splits[split].x[places]
        return _Inputs("pixels", None, images.reshape(len(images), -1), images.shape[1:], None, None, None)
    if isinstance(read, ArraySet):
        arrays = read.splits[split].x
        if len(arrays) != 1:
            return None
        (name, rows), *_ = arrays.items()
        taken = rows[places]
        if taken.dtype.kind not in "fiub":
            return None
        return _Inputs("arrays", name or None, taken.reshape(len(taken), -1), taken.shape[1:], None, None, None)
    assert about is not None  # the worker refuses texts without a vocabulary
    length, tokenizer = _max_length(model), _tokenizer(model)
    if isinstance(read, TagSet):
        sentences = [read.splits[split][i] for i in places]
        encoded = tokenizer.encode(sentences, about.label_names, length)
        return _Inputs("tokens", "token_ids", None, (), encoded.token_ids, encoded.padding_mask, encoded.labels >= 0)
    texts = read.splits[split].texts
    made = tokenizer.encode_texts([texts[i] for i in places], length)
    return _Inputs("tokens", "token_ids", None, (), made["token_ids"], made["padding_mask"], None)


def _max_length(model: Model) -> int:
    assert model.artifact is not None
    trained = next((s for s in reversed(model.artifact.steps) if s.kind == "train"), None)
    return int(trained.settings["max_length"]) if trained else _DEFAULT_MAX_LENGTH


def _tokenizer(model: Model) -> Any:
    from kcost.data.tokenizer_files import read_tokenizer

    return read_tokenizer(model.keras_file.parent)


def _pieces(model: Model) -> Pieces:
    """What the ids of a model's tokenizer mean."""
    from kcost.data.tokenize import END, MASK, PAD, START, UNKNOWN
    from kcost.risk.drift_reference import Pieces

    vocabulary: dict[str, int] = _tokenizer(model).vocab
    special = [vocabulary[token] for token in (PAD, START, END, MASK) if token in vocabulary]
    return Pieces(
        unknown=vocabulary.get(UNKNOWN, -1),
        special=tuple(special),
        continuation=_runs(i for piece, i in vocabulary.items() if piece.startswith("##")),
        punctuation=_runs(i for piece, i in vocabulary.items() if len(piece) == 1 and _is_punctuation(piece)),
    )


def _is_punctuation(character: str) -> bool:
    """As BERT cuts words: every ASCII character but letters, digits and space, and Unicode's punctuation."""
    if character.isascii():
        return not character.isalnum() and not character.isspace()
    return unicodedata.category(character).startswith("P")


def _runs(ids: Iterable[int]) -> tuple[tuple[int, int], ...]:
    """Ids as (first, last) of each run.

    Examples:
        >>> _runs([7, 1, 2, 3])
        ((1, 3), (7, 7))
    """
    runs: list[tuple[int, int]] = []
    for number in sorted(ids):
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return tuple(runs)
