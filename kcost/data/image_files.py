"""Images of a user's own: an .npz file of arrays, or a folder of image files for each class."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from kcost.core.errors import DataError, UnavailableError
from kcost.data.arrays import is_one_hot
from kcost.data.images import RawImages

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")

_NPZ_PARTS = {
    "train": ("x_train", "y_train"),
    "validation": ("x_val", "y_val"),
    "test": ("x_test", "y_test"),
}


def labelled(parts: dict[str, RawImages]) -> tuple[dict[str, RawImages], tuple[str, ...]]:
    """Names the classes after their numbers and makes the indices run from 0 without gaps."""
    values = np.unique(np.concatenate([raw.y for raw in parts.values()]))
    renumbered = {
        part: RawImages(raw.x, np.searchsorted(values, raw.y).astype(np.int32)) for part, raw in parts.items()
    }
    return renumbered, tuple(str(value) for value in values)


def read_npz(path: Path) -> tuple[dict[str, RawImages], tuple[str, ...]]:
    """Reads an .npz file with x_train, y_train, x_test, y_test (and x_val, y_val), or with x and y.

    Images are (n, h, w) or (n, h, w, channels), whole numbers in 0 to 255 or floats in 0 to 1. Labels are (n,) or
    (n, 1), integers or strings. An array `label_names` names the classes of integer labels from 0.

    Raises:
        DataError: the file is no .npz file, an array is missing, or one has another form.
    """
    arrays = npz_arrays(path)
    pairs = {part: keys for part, keys in _NPZ_PARTS.items() if keys[0] in arrays}
    if "train" not in pairs and "x" in arrays:
        pairs["train"] = ("x", "y")
    missing = [key for keys in pairs.values() for key in keys if key not in arrays]
    if "train" not in pairs or missing:
        raise DataError(
            "An .npz file of images holds x_train, y_train, x_test and y_test, or x and y.",
            received=f"{path} with {', '.join(sorted(arrays)) or 'no array'}",
            remedy="Save it with numpy.savez(path, x_train=..., y_train=..., x_test=..., y_test=...).",
        )
    labels = {part: _labels(arrays[y], f"{y} of {path}") for part, (_, y) in pairs.items()}
    values, names = _class_values(arrays.get("label_names"), labels, path)
    parts = {}
    for part, (x, y) in pairs.items():
        pixels = _pixels(arrays[x], f"{x} of {path}")
        if len(pixels) != len(labels[part]) or not len(pixels):
            raise DataError(
                "There is one label for each image.",
                received=f"{len(pixels)} images in {x} and {len(labels[part])} labels in {y} of {path}",
                remedy="Save arrays of the same length.",
            )
        parts[part] = RawImages(pixels, np.searchsorted(values, labels[part]).astype(np.int32))
    return parts, tuple(names)


def read_class_folders(parts: dict[str, Path]) -> tuple[dict[str, RawImages], tuple[str, ...], tuple[str, ...]]:
    """Reads CLASS/IMAGE files below the folder of each part, with Pillow.

    All images have one size. They are read as grey (1 channel) where every file is, as RGB otherwise.

    Returns:
        The images by part, the class names in alphabetical order, and notes.

    Raises:
        UnavailableError: Pillow is not installed.
        DataError: no images, a file that is no image, or images of different sizes. The message names the file.
    """
    try:
        from PIL import Image
    except ImportError as error:
        raise UnavailableError(
            "Image files are read with Pillow.",
            received="Pillow is not installed",
            remedy="Install it: pip install pillow. Or save your images as an .npz file.",
        ) from error
    found, others = _image_paths(parts)
    names = tuple(sorted({label for files in found.values() for label, _ in files}))
    opened: dict[str, list[tuple[str, Any]]] = {}
    size, first = None, None
    for part, files in found.items():
        opened[part] = []
        for label, file in files:
            image = _opened(Image, file)
            if size is None:
                size, first = image.size, file
            if image.size != size:
                raise DataError(
                    "All images of a data set have one size.",
                    received=f"{file} with {image.size} pixels (width, height), {first} with {size}",
                    remedy="Resize them first, for example: mogrify -resize '32x32!' FOLDER/*/*.png",
                )
            opened[part].append((label, image))
    grey = all(image.mode in ("1", "L") for images in opened.values() for _, image in images)
    raw = {
        part: RawImages(
            np.stack([np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB"))) for _, image in images]),
            np.array([names.index(label) for label, _ in images], np.int32),
        )
        for part, images in opened.items()
    }
    return raw, names, (f"{others} files that are no images were left out",) if others else ()


def _image_paths(parts: dict[str, Path]) -> tuple[dict[str, list[tuple[str, Path]]], int]:
    """For each part (class, file) of all image files in order, and the number of other files."""
    found: dict[str, list[tuple[str, Path]]] = {}
    others = 0
    for part, folder in parts.items():
        files = [file for file in sorted(folder.glob("*/*")) if file.is_file() and not file.name.startswith(".")]
        found[part] = [(file.parent.name, file) for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
        others += len(files) - len(found[part])
        if not found[part]:
            raise DataError(
                "A folder of images has a folder for each class, and image files in these.",
                received=f"{folder} without {', '.join(IMAGE_SUFFIXES)} files one folder down",
                remedy="Lay it out as train/CLASS/*.png and test/CLASS/*.png, or as CLASS/*.png.",
            )
    return found, others


def _opened(image_module: Any, file: Path) -> Any:
    try:
        with image_module.open(file) as image:
            image.load()
            mode = image.mode
            copy = image.copy()
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise DataError(
            "Each image file can be decoded.", f"{file}: {error}", "Remove the file or save it again."
        ) from error
    if mode.startswith(("I", "F")):
        raise DataError("Images have 8 bits a channel.", f"{file} with mode {mode}", "Convert it to 8 bits first.")
    return copy


def npz_arrays(path: Path) -> dict[str, np.ndarray]:
    """The arrays of an .npz file by name. Raises DataError for one that is broken or holds pickled objects."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {key: archive[key] for key in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(
            "An .npz file is a whole zip archive of numpy arrays, without pickled objects.",
            received=f"{path}: {error}",
            remedy="Save it again with numpy.savez.",
        ) from error


def _pixels(x: np.ndarray, where: str) -> np.ndarray:
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (1, 2, 3, 4)):
        raise DataError(
            "Images have the shape (n, height, width) or (n, height, width, channels), with 1 to 4 channels.",
            received=f"{where} with shape {x.shape}",
            remedy="Reshape them, or transpose with the channels last.",
        )
    x = x[..., np.newaxis] if x.ndim == 3 else x
    whole = x.dtype.kind in "iub"
    low, high = (x.min(initial=0), x.max(initial=0)) if whole or x.dtype.kind == "f" else (np.nan, np.nan)
    if not 0 <= low <= high <= (255 if whole else 1):
        raise DataError(
            "Pixels are whole numbers in 0 to 255 or floats in 0 to 1.",
            received=f"{where}, {x.dtype} from {low} to {high}",
            remedy="Scale them, for example x / 255, and remove what is not a number.",
        )
    return x.astype(np.uint8 if whole else np.float32)


def _labels(y: np.ndarray, where: str) -> np.ndarray:
    flat = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y.argmax(axis=1) if is_one_hot(y) else y
    if flat.ndim != 1 or flat.dtype.kind not in "iuU":
        raise DataError(
            "Labels are integers or strings, one for each image.",
            received=f"{where}, {y.dtype} with shape {y.shape}",
            remedy="Save class indices, or one-hot rows.",
        )
    return flat


def _class_values(given: np.ndarray | None, labels: dict[str, np.ndarray], path: Path) -> tuple[np.ndarray, list[str]]:
    """The label value of each class index, ascending, and what the class is called."""
    values = np.unique(np.concatenate(list(labels.values())))
    if given is None:
        return values, [str(value) for value in values]
    if values.dtype.kind not in "iu" or given.ndim != 1 or values[0] < 0 or values[-1] >= len(given):
        raise DataError(
            "label_names names the classes 0, 1, 2, ... of integer labels.",
            received=f"{given.size} label_names and labels from {values[0]} to {values[-1]} in {path}",
            remedy="Save one name for each class, or leave label_names out.",
        )
    return np.arange(len(given)), [str(name) for name in given]
