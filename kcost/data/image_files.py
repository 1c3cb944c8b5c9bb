"""Images of a user's own: an .npz file of arrays, or a folder of image files for each class."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from kcost.core.errors import DataError, UnavailableError
from kcost.data.arrays import is_one_hot
from kcost.data.images import RawImages

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp")

LEAST_BYTE_WHITE = 128.0
"""Floats above 1 are pixels in 0 to 255 where the largest is this at least: else nobody can tell their scale."""

_LEFT_BY_SYSTEMS = ("__macosx", "thumbs.db", "desktop.ini")
"""What operating systems put into folders and archives, beside names that begin with a dot."""

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


def is_hidden(path: Path, below: Path) -> bool:
    """Whether a path is hidden inside a folder: a name on the way begins with a dot, or an operating system left it."""
    names = path.relative_to(below).parts
    return any(name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS for name in names)


def visible(folder: Path, pattern: str) -> list[Path]:
    """The paths below a folder that fit a pattern and are not hidden, sorted."""
    return [path for path in sorted(folder.glob(pattern)) if not is_hidden(path, folder)]


def read_npz(path: Path) -> tuple[dict[str, RawImages], tuple[str, ...], tuple[str, ...]]:
    """Reads an .npz file with x_train, y_train, x_test, y_test (and x_val, y_val), or with x and y.

    Images are (n, h, w) or (n, h, w, channels): whole numbers in 0 to 255, floats in 0 to 1 or in 0 to 255, or
    booleans, which are black and white as whole numbers that are all 0 or 1 are. Labels are (n,) or (n, 1), integers
    or strings. An array `label_names` names the classes of integer labels from 0.

    Returns:
        The images by part, the class names, and notes on the scale that was assumed.

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
    raw, notes = _pixels({x: arrays[x] for x, _ in pairs.values()}, path)
    for part, (x, y) in pairs.items():
        pixels, white = raw[x]
        if len(pixels) != len(labels[part]) or not len(pixels):
            raise DataError(
                "There is one label for each image.",
                received=f"{len(pixels)} images in {x} and {len(labels[part])} labels in {y} of {path}",
                remedy="Save arrays of the same length.",
            )
        parts[part] = RawImages(pixels, np.searchsorted(values, labels[part]).astype(np.int32), white)
    return parts, tuple(names), notes


def read_class_folders(parts: dict[str, Path]) -> tuple[dict[str, RawImages], tuple[str, ...], tuple[str, ...]]:
    """Reads CLASS/IMAGE files below the folder of each part, with Pillow.

    All images have one size. They are read as grey (1 channel) where every file is, as RGB otherwise. Transparent
    pixels are drawn over white. Hidden files and folders are left out.

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
    files_by_part, notes = _image_paths(parts)
    names = tuple(sorted({label for files in files_by_part.values() for label, _ in files}))
    opened: dict[str, list[tuple[str, Any]]] = {}
    size, first = None, None
    drawn = moving = 0
    for part, files in files_by_part.items():
        opened[part] = []
        for label, file in files:
            image, frames = _opened(Image, file)
            if size is None:
                size, first = image.size, file
            if image.size != size:
                raise DataError(
                    "All images of a data set have one size.",
                    received=f"{file} with {image.size} pixels (width, height), {first} with {size}",
                    remedy="Resize them first, for example: mogrify -resize '32x32!' FOLDER/*/*.png",
                )
            image, transparent = _over_white(Image, image)
            drawn, moving = drawn + transparent, moving + (frames > 1)
            opened[part].append((label, image))
    grey = all(image.mode in ("1", "L") for images in opened.values() for _, image in images)
    raw = {
        part: RawImages(
            np.stack([np.atleast_3d(np.asarray(image.convert("L" if grey else "RGB"))) for _, image in images]),
            np.array([names.index(label) for label, _ in images], np.int32),
        )
        for part, images in opened.items()
    }
    if drawn:
        notes.append(f"{drawn} images with transparent pixels were drawn over white")
    if moving:
        notes.append(f"of {moving} files with more than one frame the first was taken")
    return raw, names, tuple(notes)


def _image_paths(parts: dict[str, Path]) -> tuple[dict[str, list[tuple[str, Path]]], list[str]]:
    """For each part (class, file) of all image files in order, and notes on what was left out."""
    files_by_part: dict[str, list[tuple[str, Path]]] = {}
    others = hidden = 0
    for part, folder in parts.items():
        files = [file for file in sorted(folder.glob("*/*")) if file.is_file()]
        seen = [file for file in files if not is_hidden(file, folder)]
        files_by_part[part] = [(file.parent.name, file) for file in seen if _is_image(file)]
        others += len(seen) - len(files_by_part[part])
        hidden += len(files) - len(seen)
        if not files_by_part[part]:
            raise DataError(
                "A folder of images has a folder for each class, and image files in these.",
                received=f"{folder} without {', '.join(IMAGE_SUFFIXES)} files one folder down",
                remedy="Lay it out as train/CLASS/*.png and test/CLASS/*.png, or as CLASS/*.png.",
            )
    counts = ((others, "files that are no images"), (hidden, "hidden files"))
    return files_by_part, [f"{count} {what} were left out" for count, what in counts if count]


def has_classes(folder: Path) -> bool:
    """True where a folder inside `folder` holds an image."""
    return any(map(_is_image, visible(folder, "*/*")))


def _is_image(file: Path) -> bool:
    return file.suffix.lower() in IMAGE_SUFFIXES


def _opened(image_module: Any, file: Path) -> tuple[Any, int]:
    """A decoded image, and the number of its frames."""
    try:
        with image_module.open(file) as image:
            frames = getattr(image, "n_frames", 1)
            image.load()
            mode = image.mode
            copy = image.copy()
    except (OSError, SyntaxError, ValueError, image_module.DecompressionBombError) as error:
        raise DataError(
            "Each image file can be decoded.", f"{file}: {error}", "Remove the file or save it again."
        ) from error
    if mode.startswith(("I", "F")):
        raise DataError("Images have 8 bits a channel.", f"{file} with mode {mode}", "Convert it to 8 bits first.")
    return copy, frames


def _over_white(image_module: Any, image: Any) -> tuple[Any, bool]:
    """The image drawn over white where it is transparent, and whether any of it is. Grey stays grey."""
    if not image.has_transparency_data:
        return image, False
    is_grey = image.mode in ("1", "L", "LA", "La")
    with_alpha = image.convert("RGBA")
    transparent = with_alpha.getchannel("A").getextrema()[0] < 255
    white = image_module.new("RGBA", image.size, (255, 255, 255, 255))
    drawn = image_module.alpha_composite(white, with_alpha)
    return drawn.convert("L" if is_grey else "RGB"), transparent


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


def _pixels(
    arrays: Mapping[str, np.ndarray], path: Path
) -> tuple[dict[str, tuple[np.ndarray, float]], tuple[str, ...]]:
    """The arrays as uint8 or as float32 in [0, 1], each with the number that stood for 1; and what was assumed.

    Arrays of one kind have one scale, so that a dark test part is not taken for another scale than its training part.
    """
    shaped = {name: _with_channels(x, f"{name} of {path}") for name, x in arrays.items()}
    made: dict[str, tuple[np.ndarray, float]] = {}
    notes = []
    for kinds, make in (("b", _black_and_white), ("iu", _whole), ("f", _floats)):
        of_kind = {name: x for name, x in shaped.items() if x.dtype.kind in kinds}
        if of_kind:
            white, note = make(of_kind, path)
            notes.append(f"{_names(of_kind)}: {note}")
            made |= {name: (_stored(x, white), white) for name, x in of_kind.items()}
    for name in shaped.keys() - made.keys():
        raise _no_pixels(f"{name} {shaped[name].dtype} of {path}")
    if any(x.shape[-1] == 4 for x in shaped.values()):
        notes.append("4 channels are taken as they are; none is drawn as transparent")
    return made, tuple(notes)


def _stored(x: np.ndarray, white: float) -> np.ndarray:
    if x.dtype.kind in "iu" and white == 255:
        return x.astype(np.uint8)
    return x.astype(np.float32) / np.float32(white)


def _black_and_white(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[float, str]:
    return 1.0, "taken for black and white"


def _whole(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[float, str]:
    low, high = _ends(arrays)
    if not 0 <= low <= high <= 255:
        raise _no_pixels(f"{_names(arrays)} of {path} from {low:g} to {high:g}")
    if high == 1:
        return 1.0, "0 and 1 alone, taken for black and white"
    return 255.0, f"taken for pixels in 0 to 255; the largest is {high:g}"


def _floats(arrays: Mapping[str, np.ndarray], path: Path) -> tuple[float, str]:
    low, high = _ends(arrays)
    unit = [name for name, x in arrays.items() if 0 < x.max(initial=0) <= 1]
    where = f"{_names(arrays)} of {path} from {low:g} to {high:g}"
    if not 0 <= low <= high <= 255 or 1 < high < LEAST_BYTE_WHITE:
        raise _no_pixels(where)
    if high <= 1:
        return 1.0, f"taken for pixels in 0 to 1; the largest is {high:g}"
    if unit:
        raise _no_pixels(f"{where}, where {', '.join(unit)} is in 0 to 1")
    return 255.0, f"taken for pixels in 0 to 255; the largest is {high:g}"


def _names(arrays: Mapping[str, np.ndarray]) -> str:
    return ", ".join(f"{name} {x.dtype}" for name, x in arrays.items())


def _ends(arrays: Mapping[str, np.ndarray]) -> tuple[float, float]:
    """The least and the largest value, 0 among them; not numbers where an array holds one that is not."""
    return (
        float(np.min([x.min(initial=0) for x in arrays.values()])),
        float(np.max([x.max(initial=0) for x in arrays.values()])),
    )


def _no_pixels(received: str) -> DataError:
    return DataError(
        "Pixels are whole numbers in 0 to 255, floats in 0 to 1 or in 0 to 255, or booleans, alike in all parts.",
        received=received,
        remedy="Scale them, for example x / 255, and remove what is not a number.",
    )


def _with_channels(x: np.ndarray, where: str) -> np.ndarray:
    if x.ndim not in (3, 4) or (x.ndim == 4 and x.shape[-1] not in (1, 2, 3, 4)):
        raise DataError(
            "Images have the shape (n, height, width) or (n, height, width, channels), with 1 to 4 channels.",
            received=f"{where} with shape {x.shape}",
            remedy="Reshape them, or transpose with the channels last.",
        )
    return x[..., np.newaxis] if x.ndim == 3 else x


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
