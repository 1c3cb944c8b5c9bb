"""Finding, downloading and checking files, against a server on this machine."""

from __future__ import annotations

import gzip
import hashlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from kcost.core.errors import DataError, StorageError
from kcost.data import catalogue, fetch, known, load
from kcost.data.known import Source, SourceFile
from tests.unit.data.files import conll, grey_images, idx_bytes


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  the name is the base class's
        pass


@pytest.fixture
def server(tmp_path):
    """A folder, and the address under which its files can be downloaded."""
    folder = tmp_path / "published"
    folder.mkdir()
    httpd = ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory=str(folder)))
    thread = threading.Thread(target=httpd.serve_forever, daemon=True)
    thread.start()
    yield folder, f"http://127.0.0.1:{httpd.server_port}"
    httpd.shutdown()
    httpd.server_close()
    thread.join()


@pytest.fixture
def folders(tmp_path, monkeypatch) -> tuple[Path, Path]:
    """An empty data folder and an empty cache, set for kcost."""
    monkeypatch.setenv("KCOST_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("KCOST_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "data", tmp_path / "cache"


@pytest.fixture
def tiny(server, folders, monkeypatch) -> Source:
    """A small set of the IDX form that the server publishes and that kcost knows as "tiny"."""
    folder, url = server
    (x, y), (x_test, y_test) = grey_images(30), grey_images(6, seed=1)
    files = []
    for part, array in (("train-images", x), ("train-labels", y), ("test-images", x_test), ("test-labels", y_test)):
        raw = idx_bytes(array)
        packed = gzip.compress(raw, mtime=1)
        (folder / f"{part}.gz").write_bytes(packed)
        files.append(
            SourceFile(
                path=f"images/tiny/{part}.gz",
                part=part,
                sha256=hashlib.sha256(packed).hexdigest(),
                content_sha256=hashlib.sha256(raw).hexdigest(),
                size_bytes=len(packed),
                url=f"{url}/{part}.gz",
            )
        )
    source = Source(
        name="tiny",
        task="image-classification",
        form="idx",
        licence="CC0",
        source="a test",
        label_names=("a", "b", "c"),
        files=tuple(files),
    )
    monkeypatch.setitem(known.SOURCES, "tiny", source)
    return source


def test_files_are_downloaded_once_and_then_found(tiny, folders, server):
    data_set = load("tiny")
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 27, "validation": 3, "test": 6}
    assert np.array_equal(data_set.splits["test"].x[..., 0], grey_images(6, seed=1)[0].astype(np.float32) / 255)
    for file in server[0].iterdir():
        file.unlink()
    assert load("tiny").record == data_set.record
    assert (folders[1] / "images/tiny/train-images.gz").is_file()


def test_the_data_folder_goes_before_the_cache(tiny, folders):
    fetch("tiny")
    (folders[1] / "images").rename(folders[1] / "moved")
    folders[0].mkdir()
    (folders[1] / "moved").rename(folders[0] / "images")
    assert all(path.is_relative_to(folders[0]) for path in fetch("tiny").values())


def test_a_gzip_file_may_have_another_wrapper_but_no_other_content(tiny, folders):
    paths = fetch("tiny")
    raw = gzip.decompress(paths["train-images"].read_bytes())
    paths["train-images"].write_bytes(gzip.compress(raw, compresslevel=1, mtime=99))
    assert hashlib.sha256(paths["train-images"].read_bytes()).hexdigest() != tiny.files[0].sha256
    fetch("tiny")
    paths["train-images"].write_bytes(gzip.compress(raw[:-1] + b"\x00"))
    with pytest.raises(DataError, match=r"train-images.gz is the file that its publisher released(.|\n)*expected"):
        fetch("tiny")


def test_a_broken_gzip_file_is_named(tiny, folders):
    paths = fetch("tiny")
    paths["test-labels"].write_bytes(paths["test-labels"].read_bytes()[:-9])
    with pytest.raises(DataError, match=r"test-labels.gz is a whole gzip file"):
        load("tiny")


def test_a_download_with_another_checksum_is_refused(tiny, folders, server):
    (server[0] / "train-images.gz").write_bytes(b"something else")
    with pytest.raises(DataError, match=r"needs the file train-images.gz(.|\n)*downloading http://127"):
        fetch("tiny")
    assert not (folders[1] / "images/tiny/train-images.gz").exists()


def test_a_file_that_cannot_be_had_is_named_with_its_place(tiny, folders, server):
    (server[0] / "test-images.gz").unlink()
    with pytest.raises(DataError) as caught:
        fetch("tiny")
    message = str(caught.value)
    assert "The data set tiny needs the file test-images.gz." in message
    places = [str(folder / "images/tiny/test-images.gz") for folder in folders]
    assert f"put it at {places[0]} or {places[1]}" in message
    assert "404" in message


def test_without_a_download_the_message_says_where_the_file_goes(folders):
    with pytest.raises(DataError) as caught:
        load("btc")
    message = str(caught.value)
    assert "btc.train" in message
    assert str(folders[0] / "ner/btc/btc.train") in message
    assert "section f as test" in message


def test_a_cache_that_cannot_be_made_is_a_storage_error(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KCOST_CACHE_DIR", str(tmp_path / "file"))
    with pytest.raises(StorageError, match="needs to write to"):
        fetch("tiny")


def test_a_plain_file_is_checked_too(folders, monkeypatch):
    path = folders[0] / "ner/small.conll"
    path.parent.mkdir(parents=True)
    path.write_text(conll("Ada/B-PER left/O"))
    file = SourceFile(path="ner/small.conll", part="train", sha256="0" * 64, size_bytes=1)
    source = Source(name="small", task="token-classification", form="conll", licence="", source="x", files=(file,))
    monkeypatch.setitem(known.SOURCES, "small", source)
    with pytest.raises(DataError, match=r"small.conll is the file that its publisher released"):
        load("small")


def test_the_catalogue_says_where_a_set_was_found(tiny, folders):
    def places() -> dict[str, str | None]:
        return {entry.name: entry.found_in for entry in catalogue()}

    assert places()["tiny"] is None
    fetch("tiny")
    assert places()["tiny"] == str(folders[1])
    assert places()["digits"] == places()["ner-mini"] == "built in"
    assert places()["mnist"] is None


def test_the_catalogue_is_complete():
    for entry in catalogue():
        assert entry.licence
        assert entry.source
        assert entry.synthetic == (entry.name == "ner-mini")
        assert bool(entry.files) == (entry.form != "built-in")
        for file in entry.files:
            assert len(bytes.fromhex(file.sha256)) == 32
            assert file.size_bytes > 0
            assert (file.content_sha256 is not None) == file.path.endswith(".gz")
            assert file.url is None or file.url.startswith("https://")
    sizes = {entry.name: entry.size_bytes for entry in catalogue()}
    assert sizes["digits"] == 0
    assert sizes["mnist"] == 9912422 + 28881 + 1648877 + 4542
