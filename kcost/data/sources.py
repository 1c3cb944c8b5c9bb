"""The data sets that kcost knows by name: where their files are looked for, how they are fetched and checked.

A file is looked for below the folder that KCOST_DATA_DIR names, then below the cache (KCOST_CACHE_DIR, or the
user's cache folder), in the same layout, for example `images/mnist/train-images-idx3-ubyte.gz`; then it is
downloaded into the cache. The download addresses are those of the publishers; the project's own checks ran
without a network and did not exercise them, the checksums are those of the files that it was tested with.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from pathlib import Path

from pydantic import Field

from kcost.core.errors import DataError, storage
from kcost.core.suggestion import did_you_mean
from kcost.data.known import SOURCES, Source, SourceFile

DATA_DIR_VARIABLE = "KCOST_DATA_DIR"
CACHE_DIR_VARIABLE = "KCOST_CACHE_DIR"


class CatalogueEntry(Source):
    """A source and where its files were found."""

    found_in: str | None = Field(description="the folder that holds all files, 'built in', or None")


def data_folders() -> tuple[Path, ...]:
    """The folders that data files are looked for in, first hit wins: KCOST_DATA_DIR if set, then the cache."""
    named = os.environ.get(DATA_DIR_VARIABLE)
    return ((Path(named),) if named else ()) + (cache_folder(),)


def cache_folder() -> Path:
    """Where downloads go: KCOST_CACHE_DIR, or kcost's folder in the user's cache."""
    named = os.environ.get(CACHE_DIR_VARIABLE)
    if named:
        return Path(named)
    import pooch

    return Path(pooch.os_cache("kcost"))


def catalogue() -> tuple[CatalogueEntry, ...]:
    """All data sets that `load` knows by name, and where each was found. Reads no file and downloads nothing."""
    return tuple(CatalogueEntry(**source.model_dump(), found_in=_found_in(source)) for source in SOURCES.values())


def known(name: str) -> Source:
    """The source of that name.

    Raises:
        DataError: kcost knows none of that name; the message lists those it knows.
    """
    if name not in SOURCES:
        raise DataError(
            "A data set is one that kcost knows by name, or a path to your own.",
            received=f"{name!r}, which is neither",
            remedy=f"{did_you_mean(name, SOURCES)}Known names: {', '.join(SOURCES)}. A path is a folder or a file that "
            "exists.",
        )
    return SOURCES[name]


def fetch(name: str) -> dict[str, Path]:
    """Finds or downloads all files of a data set and checks them.

    Returns:
        Part of the set -> file; empty for a built-in set.

    Raises:
        DataError: the name is unknown, a file is neither here nor to be had, or it is not the file it should be.
        StorageError: the cache cannot be written to.
    """
    source = known(name)
    files = {file.part: _locate(source, file) or _download(source, file) for file in source.files}
    for file in source.files:
        _check(file, files[file.part])
    return files


def _found_in(source: Source) -> str | None:
    if not source.files:
        return "built in"
    folders = [folder for folder in data_folders() if all((folder / file.path).is_file() for file in source.files)]
    return str(folders[0]) if folders else None


def _locate(source: Source, file: SourceFile) -> Path | None:
    for folder in data_folders():
        if (folder / file.path).is_file():
            return folder / file.path
    return None


def _download(source: Source, file: SourceFile) -> Path:
    target = cache_folder() / file.path
    if file.url is None:
        raise _missing(source, file, "its publisher offers no download of this very file")
    import pooch

    try:
        with storage(target.parent):
            target.parent.mkdir(parents=True, exist_ok=True)
            checksum = f"sha256:{file.sha256}"
            return Path(pooch.retrieve(file.url, checksum, target.name, target.parent, progressbar=False))
    except (OSError, ValueError) as error:  # no network, no such address; or a file with another checksum
        raise _missing(source, file, f"downloading {file.url} failed: {error}") from error


def _missing(source: Source, file: SourceFile, why: str) -> DataError:
    folders = " or ".join(str(folder / file.path) for folder in data_folders())
    notes = "".join(f" {note}" for note in source.notes)
    return DataError(
        f"The data set {source.name} needs the file {Path(file.path).name}.",
        received=f"no such file at {folders}, and {why}",
        remedy=f"Get it from {source.source} and put it at {folders}."
        + ("" if os.environ.get(DATA_DIR_VARIABLE) else f" Or set {DATA_DIR_VARIABLE} to the folder that holds it.")
        + notes,
    )


def _check(file: SourceFile, path: Path) -> None:
    """Compares a file with its checksum; of a gzip file only the content counts, as the wrapper may differ."""
    expected = file.content_sha256 or file.sha256
    try:
        with gzip.open(path) if file.content_sha256 else path.open("rb") as stream:
            sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(
            f"{Path(file.path).name} is a whole gzip file.", f"{path}: {error}", "Remove it and fetch it again."
        ) from error
    if sha256 != expected:
        raise DataError(
            f"{Path(file.path).name} is the file that its publisher released.",
            received=f"{path} with SHA-256 {sha256[:12]}..., expected {expected[:12]}...",
            remedy="Remove it and fetch it again, or load your own files by their path instead of by this name.",
        )
