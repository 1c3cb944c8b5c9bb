"""A user's own data by its path: which form it has, and which file holds which part."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from kcost.core.errors import DataError
from kcost.data.arrays import build_array_set, holds_arrays
from kcost.data.conll import RawFile, read_conll
from kcost.data.image_files import (
    IMAGE_SUFFIXES,
    has_classes,
    labelled,
    npz_arrays,
    read_class_folders,
    read_npz,
    visible,
)
from kcost.data.images import RawImages, build_image_set, read_idx_pair
from kcost.data.jsonl import read_jsonl
from kcost.data.ner import build_tag_set
from kcost.data.sets import DataSet
from kcost.data.text_files import TABLE_SUFFIXES, form_of, read_text, table_separator
from kcost.data.texts import build_text_set, read_texts

FORMS = (
    "IDX files named as MNIST's, an .npz file, a folder of images for each class, CoNLL files, JSON lines, "
    "or CSV with the columns text and label"
)
"""What a path may hold, for messages."""

_PART_WORDS = {"train": ("train",), "validation": ("valid", "dev", "val"), "test": ("test", "t10k")}
_PART_FOLDERS = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
_LICENCE = "not stated: your own data"
_NOT_TEXT = (".md", ".stats", ".ipynb", ".gz", ".zip", ".npz", ".npy", ".pdf", *IMAGE_SUFFIXES)


def load_path(path: Path, *, seed: int, limit: int | None, repair: bool) -> DataSet:
    """Loads the data at a path that exists; the arguments are those of `kcost.data.load`.

    Raises:
        DataError: it has none of the known forms, or a file of it is broken.
        UnavailableError: a folder of images without Pillow.
    """
    name = path.stem if path.is_file() else path.resolve().name
    archive = _npz_file(path)
    if archive is not None and holds_arrays(arrays := npz_arrays(archive)):
        return build_array_set(arrays, name=name, source=str(path.absolute()), licence=_LICENCE, seed=seed, limit=limit)
    image_parts = _image_parts(path)
    if image_parts is not None:
        parts, label_names, notes = image_parts
        return build_image_set(
            parts,
            label_names,
            name=name,
            source=str(path.absolute()),
            licence=_LICENCE,
            seed=seed,
            limit=limit,
            notes=notes,
        )
    files = _text_files(path)
    if form_of(files["train"]) in ("table", "json-texts"):
        return build_text_set(
            {part: read_texts(file) for part, file in files.items()},
            name=name,
            source=str(path.absolute()),
            licence=_LICENCE,
            seed=seed,
            limit=limit,
        )
    return build_tag_set(
        {part: _read_text_file(file) for part, file in files.items()},
        name=name,
        source=str(path.absolute()),
        licence=_LICENCE,
        seed=seed,
        limit=limit,
        repair=repair,
    )


def part_of(name: str) -> str | None:
    """The part of a data set that the name of a file tells, or None."""
    for part, words in _PART_WORDS.items():
        if any(word in name.lower() for word in words):
            return part
    return None


def _npz_file(path: Path) -> Path | None:
    """The .npz file that a path is, or that its folder holds beside no IDX files."""
    if path.is_file():
        return path if path.suffix == ".npz" else None
    archives = sorted(path.glob("*.npz"))
    return archives[0] if len(archives) == 1 and not _idx_pairs(path) else None


def _image_parts(path: Path) -> tuple[dict[str, RawImages], tuple[str, ...], tuple[str, ...]] | None:
    """Raw images by part, class names and notes; None where the path holds no images."""
    if path.is_file():
        return read_npz(path) if path.suffix == ".npz" else None
    idx = _idx_pairs(path)
    if idx:
        return (*labelled({part: read_idx_pair(*pair) for part, pair in idx.items()}), ())
    archives = visible(path, "*.npz")
    if archives:
        if len(archives) > 1:
            raise DataError("A folder holds one .npz file.", ", ".join(map(str, archives)), "Give the path of one.")
        return read_npz(archives[0])
    tree = {part: path / name for part, names in _PART_FOLDERS.items() for name in names if has_classes(path / name)}
    if "train" in tree:
        return read_class_folders(tree)
    if not has_classes(path):
        return None
    if (path / "train").is_dir() and (path / "test").is_dir():
        raise DataError(
            "A folder of images has a folder for each class.",
            received=f"{path} with images in train and test themselves",
            remedy="Lay it out as train/CLASS/*.png and test/CLASS/*.png.",
        )
    return read_class_folders({"train": path})


def _idx_pairs(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Part -> (images, labels) of a folder of IDX files."""
    pairs = {}
    for images in visible(folder, "*images*idx*ubyte*"):
        part = part_of(images.name)
        labels = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
        if part is None or part in pairs or not labels.is_file():
            raise DataError(
                "IDX files come in pairs, train-images-idx3-ubyte.gz with train-labels-idx1-ubyte.gz, "
                "and t10k-... for the test part.",
                received=f"{images}" + ("" if labels.is_file() else f", and no {labels.name} beside it"),
                remedy="Name the files as those of MNIST.",
            )
        pairs[part] = (images, labels)
    _need_train(pairs, folder)
    return pairs


def _text_files(path: Path) -> dict[str, Path]:
    """Part -> file, "train" among them. Tables go last: only where no other text file can be the train part."""
    if path.is_file():
        if path.suffix.lower() in _NOT_TEXT:
            raise DataError(f"A path to data holds {FORMS}.", path, "Of IDX or image files give the folder.")
        return {"train": path}
    files = [
        file
        for file in sorted(path.iterdir())
        if file.is_file()
        and not file.name.startswith((".", "README", "LICENSE", "LICENCE"))
        and file.suffix.lower() not in _NOT_TEXT
    ]
    files = _without_tables(files)
    if len(files) == 1:
        return {"train": files[0]}
    parts = _by_part(files)
    _need_train(parts, path)
    if not parts:
        raise DataError(
            f"A path to data holds {FORMS}.",
            received=f"{path} with {', '.join(file.name for file in files[:5]) or 'no data file'}",
            remedy="Name the files after their part: train, dev and test, for example train.conll.",
        )
    return parts


def _without_tables(files: list[Path]) -> list[Path]:
    """The files of a folder that may be data: no CSV of something else, and no texts beside another train file."""
    tables = {file: has_header for file in files if (has_header := _table(file)) is not None}
    texts = [file for file, has_header in tables.items() if has_header]
    others = [file for file in files if file not in tables]
    train_is_table = any(part_of(file.name) == "train" for file in texts)
    if train_is_table and not any(part_of(file.name) == "train" for file in others):
        return [*texts, *others]
    return others or texts or files


def _table(path: Path) -> bool | None:
    """Of a file that is a table by its ending, and no CoNLL by its content: whether its columns are text and label."""
    if path.suffix.lower() not in TABLE_SUFFIXES or form_of(path) != "table":
        return None
    return table_separator(read_text(path).partition("\n")[0]) is not None


def _read_text_file(path: Path) -> RawFile:
    return read_jsonl(path) if form_of(path) in ("json-tags", "json-texts") else read_conll(path)


def _by_part(paths: list[Path]) -> dict[str, Path]:
    """Part -> the file named after it; other names are passed over.

    Raises:
        DataError: two are named after the same part.
    """
    parts: dict[str, Path] = {}
    for path in paths:
        part = part_of(path.name)
        if part is None:
            continue
        if part in parts:
            raise DataError(
                f"One file is named after the {part} part.",
                received=f"{parts[part].name} and {path.name} in {path.parent}",
                remedy="Rename or move one of them.",
            )
        parts[part] = path
    return parts


def _need_train(parts: Collection[str], folder: Path) -> None:
    if parts and "train" not in parts:
        raise DataError(
            "A data set has a train part.",
            received=f"{folder} with {' and '.join(parts)} only",
            remedy="Add the train file, or give the path of one file to have it cut into three parts.",
        )
