"""Tags of texts from a served tagger, for a model that has no `serving_text`: the texts are cut here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.core.errors import ArtifactError, InputError
from kcost.core.schema import Record

if TYPE_CHECKING:
    import numpy as np

    from kcost.core.artifact import Artifact


class TaggedWord(Record):
    """A word of a text, and its tag."""

    text: str
    start: int
    end: int
    tag: str
    score: float


def tag_texts(
    url: str, artifact: Path | str, texts: Sequence[str], *, remote: bool = False, timeout_s: float = 30
) -> list[list[TaggedWord]]:
    """Tags the words of texts by a tagger that a server serves, cut into words and pieces as in training.

    Args:
        url: http://HOST:PORT/v1/models/NAME:predict, of the artifact's export.
        artifact: the folder of the tagger: its tokenizer, its tags and its longest input.
        texts: of any length; words that the model does not see are tagged O, with a score of 0.
        remote: whether the server may be on another machine.
        timeout_s: that the answer may take.

    Returns:
        For each text its words: what `serving_text` gives, with the spans in characters of Python.

    Raises:
        ArtifactError: the artifact is no tagger that kcost trained.
        InputError: the URL is of another form, nobody answers there, or the answer is no tagger's.

    Examples:
        >>> texts = kcost.tag_texts("http://127.0.0.1:8501/v1/models/tagger:predict", "tagger", ["Ada is in London"])
        >>> [(word.text, word.start, word.end) for word in texts[0]]
        [('Ada', 0, 3), ('is', 4, 6), ('in', 7, 9), ('London', 10, 16)]
    """
    import asyncio

    import numpy as np

    from kcost.core.artifact import open_model
    from kcost.core.entities import OUTSIDE
    from kcost.data.sets import Sentence
    from kcost.data.tokenizer_files import read_tokenizer
    from kcost.data.words import words_of
    from kcost.serving.http_client import read_url
    from kcost.serving.one_request import ask

    model = open_model(artifact)
    about = _tagger(model.artifact, artifact)
    spans = [words_of(text) for text in texts]
    sentences = []
    for text, row in zip(texts, spans, strict=True):
        words = tuple(text[start:end] for start, end in row)
        sentences.append(Sentence(words, (OUTSIDE,) * len(words)))
    assert about.training is not None  # `_tagger` refuses others
    length = int(about.training.settings["max_length"])
    encoded = read_tokenizer(model.keras_file.parent).encode(sentences, [OUTSIDE], length)
    encoded = encoded.take(np.arange(len(texts)), int(encoded.lengths.max(initial=3)))
    names = ("token_ids", "segment_ids", "padding_mask")
    rows = [{name: getattr(encoded, name)[i].tolist() for name in names} for i in range(len(texts))]
    if not rows:
        return []
    status, body = asyncio.run(
        ask(read_url(url, remote=remote), json.dumps({"instances": rows}).encode(), timeout_s=timeout_s)
    )
    logits = _logits(status, body, (len(texts), encoded.labels.shape[1], len(about.label_names)))
    shares = np.exp(logits - logits.max(axis=-1, keepdims=True))
    shares /= shares.sum(axis=-1, keepdims=True)
    tagged = []
    for i, (sentence, row) in enumerate(zip(sentences, spans, strict=True)):
        unseen = set(np.flatnonzero(encoded.unseen_labels[i] >= 0).tolist())
        of_words = iter(shares[i, np.flatnonzero(encoded.labels[i] >= 0)])
        words_of_text = []
        for place, (word, (start, end)) in enumerate(zip(sentence.tokens, row, strict=True)):
            tag, score = OUTSIDE, 0.0
            if place not in unseen:
                share = next(of_words)
                tag, score = about.label_names[int(share.argmax())], float(share.max())
            words_of_text.append(TaggedWord(text=word, start=start, end=end, tag=tag, score=score))
        tagged.append(words_of_text)
    return tagged


def _tagger(about: Artifact | None, path: Path | str) -> Artifact:
    if about is None or about.task != "token-classification" or about.training is None or not about.label_names:
        raise ArtifactError(
            "Texts are tagged by the artifact of a tagger that kcost trained.",
            received=f"{path}, {'a bare file' if about is None else about.task}",
            remedy="Give the folder that was exported.",
        )
    return about


def _logits(status: int | None, body: bytes, shape: tuple[int, int, int]) -> np.ndarray:
    """Of the one output of a tagger, float64 of that shape."""
    import numpy as np

    try:
        predictions = json.loads(body)["predictions"] if status == 200 else None
        logits = np.asarray(predictions, dtype=np.float64)
    except (ValueError, TypeError, KeyError, RecursionError):
        logits = np.zeros(0)
    if logits.shape != shape:
        what = "no answer" if status is None else f"status {status}, {body[:200]!r}"
        raise InputError(
            f"A tagger answers with logits of shape {shape}: texts, positions, tags.",
            received=what if status != 200 else f"an array of shape {logits.shape}",
            remedy="Check that the URL is the one of this artifact's export, with :predict.",
        )
    return logits
