"""Runs all that an export has beside `serving_default` by TensorFlow's C library, in a process without Keras."""

from __future__ import annotations

import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from kcost.core.conversion import (
    IMAGE_SIGNATURE,
    PACKED_SIGNATURE,
    TEXT_SIGNATURE,
    ConvertedTensor,
    ServingAnswer,
    ServingCheck,
    ServingRequest,
    SignatureCheck,
    Tagging,
)
from kcost.core.entities import OUTSIDE
from kcost.core.errors import GateError
from kcost.core.pixels import Pixels
from kcost.core.scores import entity_spans
from kcost.data.pixels import values_of_bytes
from kcost.data.sets import Sentence
from kcost.data.tokenizer_files import read_tokenizer
from kcost.data.words import words_of
from kcost.runtimes.prediction_log import WARM_UP_FILE, PredictRequest, read_requests
from kcost.runtimes.saved_model import SERVING_SIGNATURE, SavedModelSession
from kcost.worker.convert.serving_probes import TEXTS, made_up_images, png
from kcost.worker.packed_rows import cut_rows, packed_rows

IMAGES = 4
PACKED_ROWS = 3

ALIKE = 1e-4
"""Largest difference between a signature's numbers and those of `serving_default`, or that part of a number beyond 1:
both run the same operations on the same arrays. A model that rounds may differ by more: where arrays lie in memory
changes the last bit of a sum, and that a rounding, which moves an activation by a whole step."""


def check_serving(
    path: Path, request: ServingRequest, served: ServingAnswer, image: ConvertedTensor, rounding: float
) -> ServingCheck:
    """Holds the signatures against `serving_default`, and answers what a server warms up with.

    Args:
        image: the first input of the model, which images are given to.
        rounding: by how much two right ways of computing the model may differ, root mean square; 0 where none rounds.

    Raises:
        GateError: a signature answers otherwise than `serving_default`.
        ArtifactError: the warm-up requests cannot be read.
    """
    with SavedModelSession(path, signature=None, strings=True) as session:
        for name in (SERVING_SIGNATURE, *served.signatures):
            session.bind(name)
        checks = []
        if IMAGE_SIGNATURE in served.signatures and request.pixels is not None:
            checks.append(_check_images(session, image, request.pixels, rounding))
        if TEXT_SIGNATURE in served.signatures and request.tagging is not None:
            checks.append(_check_texts(session, request.tagging, rounding))
        warm_up = read_requests(path / WARM_UP_FILE)
        if PACKED_SIGNATURE in served.signatures:
            checks.append(_check_packed(session, warm_up, rounding))
        for warming in warm_up:
            session.run_signature(warming.signature, warming.inputs)
        return ServingCheck(
            signatures=tuple(checks),
            warm_up_requests=len(warm_up),
            peak_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        )


def _check_images(
    session: SavedModelSession, image: ConvertedTensor, pixels: Pixels, rounding: float
) -> SignatureCheck:
    images = made_up_images(IMAGES, [size or 1 for size in image.shape[1:]])
    wanted = session.run_signature(SERVING_SIGNATURE, {image.name: values_of_bytes(pixels, image.dtype)[images]})
    (name,) = session.signatures[IMAGE_SIGNATURE].inputs
    answers = session.run_signature(IMAGE_SIGNATURE, {name: _strings([png(i) for i in images])})
    differences = [_difference(IMAGE_SIGNATURE, output, answers[output], wanted[output], rounding) for output in wanted]
    return SignatureCheck(signature=IMAGE_SIGNATURE, rows=IMAGES, max_abs_difference=max(differences))


def _check_texts(session: SavedModelSession, tagging: Tagging, rounding: float) -> SignatureCheck:
    texts = (*TEXTS, "")
    spans = [words_of(text) for text in texts]
    words = [tuple(text[a:b] for a, b in row) for text, row in zip(texts, spans, strict=True)]
    sentences = [Sentence(row, (OUTSIDE,) * len(row)) for row in words]
    encoded = read_tokenizer(tagging.folder).encode(sentences, [OUTSIDE], tagging.max_length)
    length = int(encoded.lengths.max())
    arrays = {name: getattr(encoded, name)[:, :length] for name in ("token_ids", "segment_ids", "padding_mask")}
    (logits,) = session.run_signature(SERVING_SIGNATURE, arrays).values()
    shares = _softmax(logits.astype(np.float64))
    answers = session.run_signature(TEXT_SIGNATURE, {"text": _strings([text.encode() for text in texts])})
    largest = 0.0
    for row, row_words in enumerate(words):
        count = len(row_words)
        _compare("words", [w.decode() for w in answers["words"][row, :count]], list(row_words))
        _compare("spans", answers["spans"][row, :count].tolist(), [list(span) for span in spans[row]])
        unseen = set(np.flatnonzero(encoded.unseen_labels[row] >= 0).tolist())
        seen = [i for i in range(count) if i not in unseen]
        of_words = shares[row, np.flatnonzero(encoded.labels[row] >= 0)]
        scores = np.zeros(count)
        scores[seen] = of_words.max(axis=-1)
        difference = _difference(TEXT_SIGNATURE, "scores", answers["scores"][row, :count], scores, rounding)
        largest = max(largest, difference)
        tags = [tag.decode() for tag in answers["tags"][row, :count]]
        _compare("tags of words without a position", [tags[i] for i in sorted(unseen)], [OUTSIDE] * len(unseen))
        # The tag that is named has the highest share; where two are equal within rounding, either may be named.
        named = np.array([share[tagging.tag_names.index(tags[i])] for i, share in zip(seen, of_words, strict=True)])
        _difference(TEXT_SIGNATURE, "tags", named, of_words.max(axis=-1), rounding)
        _check_entities(row, spans[row], tags, scores, answers, rounding)
    return SignatureCheck(signature=TEXT_SIGNATURE, rows=len(texts), max_abs_difference=largest)


def _check_entities(
    row: int,
    spans: list[tuple[int, int]],
    tags: list[str],
    scores: np.ndarray,
    answers: Mapping[str, np.ndarray],
    rounding: float,
) -> None:
    """Holds the entities of a text against the tags of its words."""
    wanted = entity_spans(tags)
    types = [kind.decode() for kind in answers["entity_types"][row]]
    _compare("types of entities", [kind for kind in types if kind], [kind for kind, _, _ in wanted])
    bounds = [[spans[start][0], spans[end - 1][1]] for _, start, end in wanted]
    _compare("spans of entities", answers["entity_spans"][row, : len(wanted)].tolist(), bounds)
    least = np.array([scores[start:end].min() for _, start, end in wanted])
    _difference(TEXT_SIGNATURE, "entity_scores", answers["entity_scores"][row, : len(wanted)], least, rounding)


def _check_packed(session: SavedModelSession, warm_up: Sequence[PredictRequest], rounding: float) -> SignatureCheck:
    """Rows of several lengths, cut from those that a server warms up with: end to end, and each by itself."""
    largest = max(
        (r for r in warm_up if r.signature == SERVING_SIGNATURE), key=lambda r: len(next(iter(r.inputs.values())))
    )
    rows = cut_rows(largest.inputs, PACKED_ROWS)
    answers = session.run_signature(PACKED_SIGNATURE, packed_rows(rows))
    ends = np.cumsum([len(next(iter(row.values()))) for row in rows])[:-1]
    differences = []
    for output, answer in answers.items():
        for row, own in zip(rows, np.split(answer, ends), strict=True):
            wanted = session.run_signature(SERVING_SIGNATURE, {name: array[None] for name, array in row.items()})
            differences.append(_difference(PACKED_SIGNATURE, output, own, wanted[output][0], rounding))
    return SignatureCheck(signature=PACKED_SIGNATURE, rows=PACKED_ROWS, max_abs_difference=max(differences))


def _softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares: np.ndarray = powers / powers.sum(axis=-1, keepdims=True)
    return shares


def _strings(values: list[bytes]) -> np.ndarray:
    array = np.empty(len(values), object)
    array[:] = values
    return array


def _difference(signature: str, what: str, answer: np.ndarray, wanted: np.ndarray, rounding: float) -> float:
    """The largest difference of some numbers. Raises GateError where it is too large, or the shapes differ.

    Args:
        rounding: see `check_serving`. It is of numbers before a softmax, which are further apart than shares are.
    """
    if answer.shape != wanted.shape:
        raise _otherwise(signature, what, f"the shape {answer.shape}, not {wanted.shape}")
    wide = wanted.astype(np.float64)
    difference = np.abs(answer.astype(np.float64) - wide)
    is_alike = bool((difference <= ALIKE * np.maximum(1.0, np.abs(wide))).all())
    if not is_alike and not (rounding and np.sqrt(np.mean(difference**2)) <= rounding):
        raise _otherwise(signature, what, f"a difference of {difference.max():.3g}")
    return float(difference.max(initial=0.0))


def _compare(what: str, answer: Sequence[object], wanted: Sequence[object]) -> None:
    if answer != wanted:
        raise _otherwise(TEXT_SIGNATURE, what, f"{answer}, not {wanted}")


def _otherwise(signature: str, what: str, received: str) -> GateError:
    return GateError(
        f"{signature} answers as {SERVING_SIGNATURE} does on the arrays of training.",
        received=f"{what}: {received}",
        remedy="Nothing was kept. Please report the model: kcost cuts and reads its inputs otherwise than in training.",
    )
