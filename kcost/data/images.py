"""From image files to an `ImageSet`: IDX files, .npz files, a folder per class, and the digits of scikit-learn."""

from __future__ import annotations

import gzip
import hashlib
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from kcost.core.artifact import Dataset
from kcost.core.errors import DataError, UnavailableError
from kcost.data import splits as cuts
from kcost.data.sets import SPLITS, Images, ImageSet, images_split


@dataclass(frozen=True, eq=False)
class RawImages:
    """Images as their source has them.

    Attributes:
        x: shape (n, height, width, channels), uint8 in [0, 255] or float32 in [0, 1].
        y: class indices, shape (n,), int32.
        stored_white: the number that stands for 1 of a float32 in the source; of uint8 it is 255.
    """

    x: np.ndarray
    y: np.ndarray
    stored_white: float = 1.0


def build_image_set(
    parts: dict[str, RawImages],
    label_names: tuple[str, ...],
    *,
    name: str,
    source: str,
    licence: str,
    seed: int = 0,
    limit: int | None = None,
    notes: tuple[str, ...] = (),
) -> ImageSet:
    """Makes an `ImageSet` of the parts that a source has.

    Args:
        parts: the images of "train" and, where the source has them, of "validation" and "test".
        label_names: the name of each class index.
        name, source, licence: for the record.
        seed: of the validation cut and of `limit`.
        limit: at most that many images a split, a seeded sample with each class at its share.
        notes: what else the record shall say.

    Raises:
        DataError: the parts have different image shapes, there is one class alone, or there are too few images for
            three splits.
    """
    shapes = {part: raw.x.shape[1:] for part, raw in parts.items()}
    if len(set(shapes.values())) > 1:
        raise DataError("All images of a data set have one shape.", f"{name} with {shapes}", "Resize them first.")
    if len(label_names) < 2:
        received = f"{name} with the class {label_names[0]!r} alone"
        raise DataError("Images are of at least two classes.", received, "Check the labels, or the folders' names.")
    places, split_notes = cuts.complete({part: raw.y for part, raw in parts.items()}, seed)
    duplicate_notes = cuts.duplicates({split: _keys(parts[part].x, at) for split, (part, at) in places.items()})
    unseen = np.setdiff1d(np.arange(len(label_names)), parts["train"].y[places["train"][1]])
    unseen_names = ", ".join(label_names[i] for i in unseen)
    unseen_notes = (f"classes without a train example: {unseen_names}",) if unseen_names else ()
    limit_notes: tuple[str, ...] = ()
    if limit is not None:
        places = {split: (part, _sampled(parts[part].y, at, limit, seed)) for split, (part, at) in places.items()}
        limit_notes = (f"at most {limit} images a split, sampled with seed {seed}, each class at its share",)
    splits = {split: _images(parts[part], indices) for split, (part, indices) in places.items()}
    record = Dataset(
        name=name,
        synthetic=False,
        source=source,
        licence=licence,
        splits={split: images_split(splits[split]) for split in SPLITS},
        notes=(*notes, *split_notes, *duplicate_notes, *unseen_notes, *limit_notes),
    )
    whites = {255.0 if raw.x.dtype == np.uint8 else raw.stored_white for raw in parts.values()}
    return ImageSet(name, label_names, splits, record, whites.pop() if len(whites) == 1 else None)


def read_digits() -> dict[str, RawImages]:
    """The 1,797 handwritten digits that scikit-learn ships: shape (n, 8, 8, 1), 17 grey levels made [0, 1].

    Raises:
        UnavailableError: scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise UnavailableError(
            "The data set digits comes with scikit-learn.",
            received="scikit-learn is not installed",
            remedy="Install it: pip install scikit-learn (each backend extra of kcost brings it)",
        ) from error
    digits = load_digits()
    x = (digits.images / 16).astype(np.float32)[..., np.newaxis]
    return {"train": RawImages(x, digits.target.astype(np.int32), stored_white=16.0)}


def read_idx_pair(images: Path, labels: Path) -> RawImages:
    """Reads a file of images and the file of their labels, both in IDX form, gzipped or not.

    Raises:
        DataError: one of them is broken, or they differ in length.
    """
    x, y = read_idx(images), read_idx(labels)
    if x.ndim not in (3, 4) or y.ndim != 1:
        raise DataError(
            "Images are IDX files of 3 or 4 dimensions, labels of 1.",
            received=f"{images.name} with shape {x.shape} and {labels.name} with shape {y.shape} in {images.parent}",
            remedy="Check that the two files were not swapped.",
        )
    if len(x) != len(y) or not len(x):
        raise DataError(
            "There is one label for each image.",
            received=f"{len(x)} images in {images} and {len(y)} labels in {labels}",
            remedy="Take both files from the same release.",
        )
    return RawImages(x[..., np.newaxis] if x.ndim == 3 else x, y.astype(np.int32))


def read_idx(path: Path) -> np.ndarray:
    """Reads an IDX file of unsigned bytes, gzipped or not: uint8, with the shape that the file states.

    Source of the form: the description of the MNIST files; two zero bytes, 0x08 for unsigned bytes, the number
    of dimensions, then each dimension as a big-endian 32-bit integer, then the data in C order.

    Raises:
        DataError: the gzip stream is broken, the magic number is another, or the length is not the stated one.
    """
    remedy = "The file is damaged or cut short. Fetch it again."
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError("A .gz file is a whole gzip stream.", received=f"{path}: {error}", remedy=remedy) from error
    except OSError as error:
        raise DataError("A data file can be read.", f"{path}: {error.strerror}", "Check its permissions.") from error
    if len(raw) < 4 or raw[:3] != b"\x00\x00\x08" or not raw[3]:
        raise DataError(
            "An IDX file of unsigned bytes starts with the bytes 00 00 08 and its number of dimensions.",
            received=f"{path} starting with {raw[:4].hex(' ') or 'nothing'}",
            remedy="Give the IDX files of the MNIST family (train-images-idx3-ubyte.gz and so on).",
        )
    header = 4 + 4 * raw[3]
    shape = tuple(int.from_bytes(raw[i : i + 4]) for i in range(4, header, 4))
    if len(raw) != header + math.prod(shape):
        raise DataError(
            "An IDX file holds exactly as many bytes as its header states.",
            received=f"{path}: {len(raw)} bytes, the header states {header + math.prod(shape)} for shape {shape}",
            remedy=remedy,
        )
    return np.frombuffer(raw, dtype=np.uint8, offset=header).reshape(shape)


def _images(raw: RawImages, indices: np.ndarray) -> Images:
    x = raw.x[indices]
    return Images(x.astype(np.float32) / np.float32(255) if x.dtype == np.uint8 else x, raw.y[indices])


def _sampled(y: np.ndarray, indices: np.ndarray, limit: int, seed: int) -> np.ndarray:
    return np.take(indices, cuts.sample(y[indices], min(limit, len(indices)), seed))


def _keys(x: np.ndarray, indices: np.ndarray) -> list[bytes]:
    """A digest of each image's bytes: two images with the same digest are the same image."""
    return [hashlib.blake2b(x[i].tobytes(), digest_size=16).digest() for i in indices]
