"""A data set as it would be with fewer labels: fewer training and validation examples, the same test split."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from kcost.core.artifact import Dataset, Split
from kcost.core.errors import DataError
from kcost.data import splits as cuts
from kcost.data.sets import (
    ArraySet,
    DataSet,
    Images,
    ImageSet,
    TagSet,
    Texts,
    TextSet,
    images_split,
    sentences_split,
    texts_split,
)

LABELLED = ("train", "validation")
"""The splits whose labels a model is made with."""


def fewer_labels(data_set: DataSet, labels: int, seed: int) -> DataSet:
    """A seeded sample of `labels` examples of the training and validation splits together, in their proportion.

    The test split stays whole, so that scores of models with more and fewer labels are of the same examples. Classes
    keep their share.

    Args:
        labels: examples with a label, of both splits together; at least 10.
        seed: the same seed gives the same sample.

    Raises:
        DataError: there are not so many, or the data are arrays of any kind.
    """
    if isinstance(data_set, ArraySet):
        raise DataError(
            "Fewer labels are taken of images, texts or tagged sentences.",
            received=f"{data_set.name}, which holds {data_set.task}",
            remedy="Leave --labels out.",
        )
    sizes = {name: len(data_set.splits[name]) for name in LABELLED}
    total = sum(sizes.values())
    if labels > total:
        raise DataError(
            "A model is trained with at most as many labels as there are.",
            received=f"{labels:,} of {total:,} in {data_set.name}",
            remedy="Give fewer, or leave --labels out for all.",
        )
    validation = max(1, round(labels * sizes["validation"] / total))
    wanted = {"train": labels - validation, "validation": validation}
    return _sampled(data_set, wanted, seed)


def _sampled(data_set: ImageSet | TagSet | TextSet, wanted: dict[str, int], seed: int) -> DataSet:
    note = f"{wanted['train'] + wanted['validation']} labels, sampled with seed {seed}; test is whole"
    if isinstance(data_set, TagSet):
        sentences = dict(data_set.splits)
        for name, size in wanted.items():
            at = cuts.sample(np.zeros(len(sentences[name]), int), size, seed)
            sentences[name] = tuple(sentences[name][i] for i in at)
        counts = {name: sentences_split(sentences[name]) for name in wanted}
        return replace(data_set, splits=sentences, record=_record(data_set, counts, note))
    if isinstance(data_set, TextSet):
        texts = dict(data_set.splits)
        for name, size in wanted.items():
            at = cuts.sample(texts[name].y, size, seed)
            texts[name] = Texts(tuple(texts[name].texts[i] for i in at), texts[name].y[at])
        counts = {name: texts_split(texts[name]) for name in wanted}
        return replace(data_set, splits=texts, record=_record(data_set, counts, note))
    images = dict(data_set.splits)
    for name, size in wanted.items():
        at = cuts.sample(images[name].y, size, seed)
        images[name] = Images(images[name].x[at], images[name].y[at])
    counts = {name: images_split(images[name]) for name in wanted}
    return replace(data_set, splits=images, record=_record(data_set, counts, note))


def _record(data_set: ImageSet | TagSet | TextSet, counts: dict[str, Split], note: str) -> Dataset:
    record = data_set.record
    return record.model_copy(update={"splits": {**record.splits, **counts}, "notes": (*record.notes, note)})
