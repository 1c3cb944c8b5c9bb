"""`load`: from a name or a path to a data set in three splits."""

from __future__ import annotations

from pathlib import Path

from kcost.core.artifact import Model
from kcost.core.errors import DataError, InputError
from kcost.data.known import SOURCES, Source
from kcost.data.sets import DataSet, ImageSet, TagSet
from kcost.data.sources import fetch, known


def load(name_or_path: str, *, seed: int = 0, limit: int | None = None, repair: bool = True) -> DataSet:
    """Loads a data set by a name that kcost knows (see `catalogue`) or by the path of your own files.

    Args:
        name_or_path: a known name, or the path of a folder or a file; a known name goes first. A path may hold
            IDX files named as MNIST's (train-images-idx3-ubyte.gz, ...), an .npz file (x_train, y_train, x_test,
            y_test, or x and y; features and labels of any kind, several as x_train/NAME), images in train/CLASS/ and
            test/CLASS/ or in CLASS/, CoNLL files in BIO, IOB1 or BIOES, JSON lines of tagged sentences, or texts
            with a label each as JSON lines or CSV (text, label); content tells which. Text files are named after their
            part: train, dev, test.
        seed: of the validation part where the source has none, and of `limit`.
        limit: at most that many examples a split, for quick runs; None for all.
        repair: for tags: True repairs broken tag sequences and counts them in the record, False refuses them.

    Raises:
        DataError: unknown name, no such path, a broken or missing file; the message names the file and line.
        UnavailableError: a library that this data set needs is not installed.
        StorageError: a download cannot be written to the cache.
    """
    if limit is not None and limit < 1:
        raise DataError("limit is a positive number of examples a split.", limit, "Leave it out to get all.")
    if name_or_path not in SOURCES:
        path = Path(name_or_path)
        try:
            if path.exists():
                from kcost.data.own import load_path

                return load_path(path, seed=seed, limit=limit, repair=repair)
        except OSError as error:  # a folder without read permission, a path that is too long
            where = error.filename or name_or_path
            raise DataError(
                "A path to data can be read.", f"{where}: {error.strerror}", "Give another path."
            ) from error
    return _load_known(known(name_or_path), seed=seed, limit=limit, repair=repair)


def refuse_unknown(name_or_path: str) -> None:
    """Raises DataError where kcost knows no data set of that name and nothing is at that path. Reads nothing."""
    try:
        there = name_or_path in SOURCES or Path(name_or_path).exists()
    except OSError:
        return  # `load` says why the path cannot be read
    if not there:
        known(name_or_path)


def chosen(model: Model, named: str | None) -> str:
    """The name or path of the data that a model is scored on: what the user named, else what the artifact names.

    Raises:
        InputError: neither names any.
        DataError: there is no such data set. What the artifact names may have been moved since.
    """
    record = None if model.artifact is None else model.artifact.dataset
    # A set of the user's own is known by the path that it was read from.
    recorded = None if record is None else record.name if record.name in SOURCES else record.source
    name = named or recorded
    if name is None:
        raise InputError(
            "A bare .keras file is scored on data that you name.", received=str(model.keras_file), remedy="Give --data."
        )
    refuse_unknown(name)
    return name


def _load_known(source: Source, *, seed: int, limit: int | None, repair: bool) -> ImageSet | TagSet:
    files = fetch(source.name)
    if source.task == "image-classification":
        from kcost.data.images import build_image_set, read_digits, read_idx_pair

        if source.name == "digits":
            parts = read_digits()
        else:
            parts = {
                part: read_idx_pair(files[f"{part}-images"], files[f"{part}-labels"]) for part in ("train", "test")
            }
        return build_image_set(
            parts,
            source.label_names,
            name=source.name,
            source=source.source,
            licence=source.licence,
            seed=seed,
            limit=limit,
        )
    from kcost.data.conll import read_conll
    from kcost.data.mini import sentences
    from kcost.data.ner import build_tag_set

    return build_tag_set(
        sentences() if source.name == "ner-mini" else {part: read_conll(path) for part, path in files.items()},
        name=source.name,
        source=source.source,
        licence=source.licence,
        synthetic=source.synthetic,
        seed=seed,
        limit=limit,
        repair=repair,
    )
