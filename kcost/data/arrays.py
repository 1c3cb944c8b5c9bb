"""Arrays of a user's own for models of any kind: features and labels of any shape from an .npz file."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from kcost.core.artifact import Dataset, Split
from kcost.core.errors import DataError
from kcost.data import splits as cuts
from kcost.data.sets import SPLITS, Arrays, ArraySet

_PARTS = {"train": "train", "validation": "val", "test": "test"}
"""Part -> how the names of its arrays end."""


def holds_arrays(arrays: Mapping[str, np.ndarray]) -> bool:
    """Whether these are no images of one class each: other features, other labels, or several of either."""
    names = set(arrays) - {"label_names"}
    if any(_stem(name) is None for name in names) or not names:
        return False
    if any("/" in name for name in names):
        return True
    features = [arrays[name] for name in names if name.startswith("x")]
    labels = [arrays[name] for name in names if name.startswith("y")]
    images = all(x.ndim in (3, 4) and (x.ndim == 3 or x.shape[-1] <= 4) for x in features)
    one_class = all((y.dtype.kind in "iuU" and y.shape[1:] in ((), (1,))) or is_one_hot(y) for y in labels)
    # Series are (n, steps, features) and images (n, height, width): both are floats, but pixels lie in [0, 255].
    pixels = all(x.size == 0 or x.dtype.kind not in "iuf" or (x.min() >= 0 and x.max() <= 255) for x in features)
    return bool(features and labels) and not (images and one_class and pixels)


def build_array_set(
    arrays: Mapping[str, np.ndarray], *, name: str, source: str, licence: str, seed: int, limit: int | None
) -> ArraySet:
    """Reads x_train, y_train, x_test, y_test (and x_val, y_val), or x and y; several as x_train/NAME, y_train/NAME.

    Values stay as they are: no scale is assumed. float64 becomes float32.

    Raises:
        DataError: an array is missing, has another number of rows, or holds what are no numbers.
    """
    parts: dict[str, tuple[dict[str, np.ndarray], dict[str, np.ndarray]]] = {}
    for key, array in arrays.items():
        if key == "label_names":
            continue
        stem = _stem(key)
        assert stem is not None
        side, part, own = stem
        parts.setdefault(part, ({}, {}))[side == "y"][own] = _numbers(array, f"{key} of {source}")
    for part, (x, y) in parts.items():
        if not x or not y or "train" not in parts:
            raise DataError(
                "An .npz file holds x_train, y_train, x_test and y_test, or x and y; several as x_train/NAME.",
                received=f"{source} with {', '.join(sorted(arrays))}",
                remedy="Save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...).",
            )
        lengths = {key: len(a) for key, a in [*x.items(), *((f"labels {k}", v) for k, v in y.items())]}
        if len(set(lengths.values())) > 1 or 0 in lengths.values():
            counts = ", ".join(f"{key or 'x'}: {count}" for key, count in lengths.items())
            raise DataError(
                "Arrays of one part have as many rows, one at least.",
                f"{counts} rows of {part} in {source}",
                "Save arrays of the same length.",
            )
    groups = {part: np.zeros(len(next(iter(x.values()))), np.int64) for part, (x, _) in parts.items()}
    places, notes = cuts.complete(groups, seed)
    if limit is not None:
        for split, (part, at) in places.items():
            kept = np.sort(cuts.sample(groups[part][at], min(limit, len(at)), seed))
            places[split] = (part, at[kept])
        notes = (*notes, f"at most {limit} examples a split, sampled with seed {seed}")
    taken = {
        split: Arrays(
            {key: a[at] for key, a in parts[part][0].items()}, {key: a[at] for key, a in parts[part][1].items()}
        )
        for split, (part, at) in places.items()
    }
    duplicates = cuts.duplicates({split: _keys(one) for split, one in taken.items()})
    names = arrays.get("label_names")
    record = Dataset(
        name=name,
        synthetic=False,
        source=source,
        licence=licence,
        splits={split: _split(taken[split]) for split in SPLITS},
        notes=("values are taken as they are", *notes, *duplicates),
    )
    return ArraySet(name, () if names is None else tuple(map(str, names.tolist())), taken, record)


def is_one_hot(labels: np.ndarray) -> bool:
    """Whether labels are rows of several columns with a single 1 among zeros."""
    if labels.ndim != 2 or labels.shape[1] < 2 or labels.dtype.kind not in "iufb":
        return False
    return bool(np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all())


def _stem(key: str) -> tuple[str, str, str] | None:
    """(x or y, part, own name or nothing) of an array's name; None for other names."""
    stem, _, own = key.partition("/")
    if stem in ("x", "y"):
        return stem, "train", own
    side, _, ending = stem.partition("_")
    part = next((part for part, known in _PARTS.items() if ending in (known, part)), None)
    return (side, part, own) if side in ("x", "y") and part is not None else None


def _numbers(array: np.ndarray, where: str) -> np.ndarray:
    if array.dtype.kind not in "iufb" or array.ndim == 0:
        raise DataError(
            "Arrays of examples hold numbers, one row an example.",
            received=f"{where}, {array.dtype} with shape {array.shape}",
            remedy="Save numbers; labels that are names become whole numbers.",
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(
            "Arrays of examples hold finite numbers.",
            received=f"{where} with {array.size - int(np.isfinite(array).sum()):,} that are nan or infinite",
            remedy="Remove these rows, or fill the numbers in.",
        )
    return array.astype(np.float32) if array.dtype == np.float64 else array


def _keys(arrays: Arrays) -> list[bytes]:
    """A digest of each example's features."""
    columns = [np.ascontiguousarray(a).reshape(len(a), -1) for a in arrays.x.values()]
    rows = (b"".join(column[i].tobytes() for column in columns) for i in range(len(arrays)))
    return [hashlib.blake2b(row, digest_size=16).digest() for row in rows]


def _split(arrays: Arrays) -> Split:
    """Size and content hash: SHA-256 over name, shape and bytes of each array in the order of the names."""
    digest = hashlib.sha256()
    for side in (arrays.x, arrays.y):
        for key in sorted(side):
            digest.update(f"{key} {side[key].dtype.str} {side[key].shape}".encode())
            digest.update(np.ascontiguousarray(side[key]).data)
    return Split(count=len(arrays), sha256=digest.hexdigest())
