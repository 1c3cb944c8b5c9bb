"""Images of a user's own: IDX files, .npz files, a folder per class; and what each broken file is told."""

from __future__ import annotations

import gzip
import sys

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from kcost.core.errors import DataError, UnavailableError
from kcost.data import ImageSet, load
from kcost.data.images import read_idx
from tests.unit.data.files import grey_images, idx_bytes, write_idx_folder


def _load(path, **settings) -> ImageSet:
    data_set = load(str(path), **settings)
    assert isinstance(data_set, ImageSet)
    return data_set


@given(arrays(np.uint8, array_shapes(min_dims=1, max_dims=4, max_side=5)), st.booleans())
@settings(max_examples=50)
def test_idx_files_are_read_as_written(tmp_path_factory, array, compressed):
    path = tmp_path_factory.mktemp("idx") / ("x-ubyte.gz" if compressed else "x-ubyte")
    raw = idx_bytes(array)
    path.write_bytes(gzip.compress(raw) if compressed else raw)
    assert np.array_equal(read_idx(path), array)


@given(st.binary(max_size=60))
@settings(max_examples=200)
def test_any_bytes_are_an_array_or_a_data_error(tmp_path_factory, raw):
    path = tmp_path_factory.mktemp("idx") / "x-ubyte"
    path.write_bytes(raw)
    try:
        array = read_idx(path)
    except DataError as error:
        message = str(error)
    else:
        message = str(path)
        assert idx_bytes(array) == raw
    assert str(path) in message


@pytest.mark.parametrize("compress", [True, False])
def test_a_folder_of_idx_files(tmp_path, compress):
    train, test = grey_images(30), grey_images(9, seed=1)
    data_set = _load(write_idx_folder(tmp_path / "mine", {"train": train, "t10k": test}, compress))
    assert data_set.name == "mine"
    assert data_set.label_names == ("0", "1", "2")
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 27, "validation": 3, "test": 9}
    assert np.array_equal(data_set.splits["test"].x, test[0][..., np.newaxis].astype(np.float32) / 255)
    assert np.array_equal(data_set.splits["test"].y, test[1])
    assert data_set.record.licence == "not stated: your own data"


def test_label_numbers_with_gaps_are_names(tmp_path):
    x, y = grey_images(30)
    data_set = _load(write_idx_folder(tmp_path, {"train": (x, y * 7)}))
    assert data_set.label_names == ("0", "7", "14")
    assert set(data_set.splits["train"].y.tolist()) == {0, 1, 2}


def test_broken_gzip(tmp_path):
    folder = write_idx_folder(tmp_path, {"train": grey_images(30)})
    file = folder / "train-images-idx3-ubyte.gz"
    for broken in (b"not gzip at all", file.read_bytes()[:-20]):
        file.write_bytes(broken)
        with pytest.raises(DataError, match=r"whole gzip stream(.|\n)*train-images-idx3-ubyte.gz"):
            load(str(folder))


@pytest.mark.parametrize("raw", [b"", b"\x00\x00\x0d\x01" + bytes(8), b"\x00\x00\x08\x00", b"PK\x03\x04abcdef"])
def test_wrong_magic(tmp_path, raw):
    folder = write_idx_folder(tmp_path, {"train": grey_images(30)})
    (folder / "train-labels-idx1-ubyte.gz").write_bytes(gzip.compress(raw))
    with pytest.raises(DataError, match=r"starts with the bytes 00 00 08(.|\n)*train-labels"):
        load(str(folder))


@pytest.mark.parametrize("change", [lambda raw: raw[:-1], lambda raw: raw + b"x", lambda raw: raw[:9]])
def test_truncated_or_padded_idx(tmp_path, change):
    folder = write_idx_folder(tmp_path, {"train": grey_images(30)}, compress=False)
    file = folder / "train-images-idx3-ubyte"
    file.write_bytes(change(file.read_bytes()))
    with pytest.raises(DataError, match=r"exactly as many bytes as its header states(.|\n)*train-images"):
        load(str(folder))


def test_images_and_labels_that_do_not_match(tmp_path):
    (x, y) = grey_images(30)
    with pytest.raises(DataError, match=r"30 images in .* and 29 labels"):
        load(str(write_idx_folder(tmp_path / "a", {"train": (x, y[:-1])})))
    with pytest.raises(DataError, match="swapped"):
        load(str(write_idx_folder(tmp_path / "b", {"train": (y, x)})))
    folder = write_idx_folder(tmp_path / "c", {"train": (x, y)})
    (folder / "train-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataError, match=r"come in pairs(.|\n)*no train-labels-idx1-ubyte.gz"):
        load(str(folder))
    with pytest.raises(DataError, match=r"has a train part(.|\n)*test only"):
        load(str(write_idx_folder(tmp_path / "d", {"t10k": (x, y)})))
    with pytest.raises(DataError, match=r"one shape"):
        load(str(write_idx_folder(tmp_path / "e", {"train": (x, y), "t10k": (x[:, :3], y)})))


def test_duplicates_between_splits_and_unseen_classes_are_noted(tmp_path):
    x, y = grey_images(30)
    x_test, y_test = grey_images(5, seed=1)
    x_test[0], y_test[4] = x[0], 9
    notes = _load(write_idx_folder(tmp_path, {"train": (x, y), "t10k": (x_test, y_test)}), seed=1).record.notes
    split = "train" if any("stand in train too" in note for note in notes) else "validation"
    assert f"1 of 5 test examples stand in {split} too, exactly equal" in notes
    assert "classes without a train example: 9" in notes


def test_one_class_alone_is_refused(tmp_path):
    x, y = grey_images(30)
    with pytest.raises(DataError, match=r"at least two classes(.|\n)*the class '4' alone"):
        load(str(write_idx_folder(tmp_path, {"train": (x, np.full_like(y, 4))})))


def test_too_few_images(tmp_path):
    with pytest.raises(DataError, match="at least one example"):
        load(str(write_idx_folder(tmp_path, {"train": grey_images(2)})))


# .npz


def test_npz_with_parts(tmp_path):
    x, y = grey_images(30)
    path = tmp_path / "set.npz"
    np.savez(path, x_train=x, y_train=y[:, np.newaxis], x_test=x[:7] // 2, y_test=y[:7])
    data_set = _load(path)
    assert data_set.name == "set"
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 27, "validation": 3, "test": 7}
    assert data_set.splits["test"].x.shape == (7, 4, 5, 1)
    np.savez(path, x_train=x, y_train=y, x_val=x[:4] // 3, y_val=y[:4], x_test=x[:7] // 2, y_test=y[:7])
    assert {name: len(part) for name, part in _load(path).splits.items()} == {"train": 30, "validation": 4, "test": 7}
    (tmp_path / "README.md").write_text("a folder with one archive is as good")
    assert _load(tmp_path).record.splits == _load(path).record.splits


def test_npz_of_floats_with_string_labels(tmp_path):
    x = np.random.default_rng(0).random((30, 4, 4, 3))
    np.savez(tmp_path / "set.npz", x=x, y=np.array(["dog", "cat", "eel"] * 10))
    data_set = _load(tmp_path / "set.npz")
    assert data_set.label_names == ("cat", "dog", "eel")
    assert data_set.image_shape == (4, 4, 3)
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 22, "validation": 2, "test": 6}
    row = np.flatnonzero((x.astype(np.float32) == data_set.splits["test"].x[0]).all(axis=(1, 2, 3)))
    assert ["dog", "cat", "eel"][row[0] % 3] == data_set.label_names[data_set.splits["test"].y[0]]


def test_npz_label_names(tmp_path):
    x, y = grey_images(30)
    np.savez(tmp_path / "a.npz", x=x, y=y, label_names=np.array(["red", "green", "blue", "none"]))
    data_set = _load(tmp_path / "a.npz")
    assert data_set.label_names == ("red", "green", "blue", "none")
    assert set(data_set.splits["train"].y.tolist()) == {0, 1, 2}
    np.savez(tmp_path / "b.npz", x=x, y=y, label_names=np.array(["red", "green"]))
    with pytest.raises(DataError, match="2 label_names and labels from 0 to 2"):
        load(str(tmp_path / "b.npz"))


X, Y = grey_images(30)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": X}, "with images"),
        ({"x": X}, "with x"),
        ({"x_train": X, "y_train": Y, "x_test": X}, "holds x_train, y_train"),
        ({"x": X, "y": Y[:9]}, "30 images in x and 9 labels in y"),
        ({"x": X.astype(np.float32) / 16, "y": Y}, "x / 255"),
        ({"x_train": X / 255, "y_train": Y, "x_test": X / 1.0, "y_test": Y}, "x_train is in 0 to 1"),
        ({"x": np.full((30, 4, 4), np.nan), "y": Y}, "nan"),
        ({"x": np.full((30, 4, 4), "a"), "y": Y}, "<U1"),
        ({"x": X[:0], "y": Y[:0]}, "one label for each image|at least one"),
        ({"x": X, "y": np.array([{}] * 30)}, "without pickled objects"),
    ],
)
def test_bad_npz(tmp_path, arrays, message):
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(DataError, match=message) as caught:
        load(str(tmp_path / "set.npz"))
    assert "set.npz" in str(caught.value)


BITS = X > 100


@pytest.mark.parametrize(
    ("x", "expected", "white", "note"),
    [
        (X, X / 255, 255, "x uint8: taken for pixels in 0 to 255; the largest is 255"),
        (X.astype(np.int64), X / 255, 255, "x int64: taken for pixels in 0 to 255; the largest is 255"),
        (X.astype(np.float64), X / 255, 255, "x float64: taken for pixels in 0 to 255; the largest is 255"),
        (X / 255, X / 255, 1, "x float64: taken for pixels in 0 to 1; the largest is 1"),
        (X / 510, X / 510, 1, "x float64: taken for pixels in 0 to 1; the largest is 0.5"),
        (BITS, BITS, 1, "x bool: taken for black and white"),
        (BITS.astype(np.int32), BITS, 1, "x int32: 0 and 1 alone, taken for black and white"),
    ],
)
def test_the_scale_of_arrays_is_told(tmp_path, x, expected, white, note):
    np.savez(tmp_path / "set.npz", x=x, y=Y)
    data_set = _load(tmp_path / "set.npz")
    assert note in data_set.record.notes
    assert data_set.stored_white == white
    x = np.concatenate([part.x[..., 0] for part in data_set.splits.values()])
    assert np.isclose(np.sort(x.ravel()), np.sort(np.ravel(expected))).all()
    assert data_set.splits["train"].x.dtype == np.float32


def test_a_dark_test_part_has_the_scale_of_its_training_part(tmp_path):
    np.savez(tmp_path / "set.npz", x_train=X, y_train=Y, x_test=np.minimum(X, 1), y_test=Y)
    data_set = _load(tmp_path / "set.npz")
    assert data_set.splits["test"].x.max() == np.float32(1 / 255)
    assert "x_train uint8, x_test uint8: taken for pixels in 0 to 255; the largest is 255" in data_set.record.notes


def test_parts_that_are_stored_in_two_scales(tmp_path):
    np.savez(tmp_path / "set.npz", x_train=X, y_train=Y, x_test=X / 255, y_test=Y)
    data_set = _load(tmp_path / "set.npz")
    assert np.array_equal(data_set.splits["test"].x[..., 0], (X / 255).astype(np.float32))
    assert data_set.stored_white is None


@pytest.mark.parametrize("cut", [0, 10, 200, -30])
def test_an_npz_file_that_is_none(tmp_path, cut):
    np.savez(tmp_path / "set.npz", x=X, y=Y)
    raw = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(raw[:cut])
    with pytest.raises(DataError, match=r"whole zip archive(.|\n)*set.npz"):
        load(str(tmp_path / "set.npz"))


@pytest.mark.parametrize(("at", "value"), [(10, 99), (8, 1), (6, 200)])
def test_an_npz_file_with_a_changed_byte_in_its_directory(tmp_path, at, value):
    """An unknown compression, an encrypted member, a zip version to come: zipfile refuses each in its own way."""
    np.savez(tmp_path / "set.npz", x=X, y=Y)
    raw = bytearray((tmp_path / "set.npz").read_bytes())
    directory = raw.index(b"PK\x01\x02")
    raw[directory + at] = value
    (tmp_path / "set.npz").write_bytes(raw)
    with pytest.raises(DataError, match=r"whole zip archive"):
        load(str(tmp_path / "set.npz"))


def test_two_archives_in_a_folder(tmp_path):
    np.savez(tmp_path / "a.npz", x=X, y=Y)
    np.savez(tmp_path / "b.npz", x=X, y=Y)
    with pytest.raises(DataError, match=r"one .npz file(.|\n)*a.npz(.|\n)*b.npz"):
        load(str(tmp_path))


# A folder per class


def _save_image(path, pixels) -> None:
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")
    path.parent.mkdir(parents=True, exist_ok=True)
    image.fromarray(pixels).save(path)


def test_class_folders(tmp_path):
    for i in range(12):
        _save_image(tmp_path / "pets" / ("cat" if i % 2 else "dog") / f"{i:02}.png", X[i])
    data_set = _load(tmp_path / "pets")
    assert data_set.label_names == ("cat", "dog")
    assert data_set.image_shape == (4, 5, 1)
    for part in data_set.splits.values():
        for x, y in zip(part.x, part.y, strict=True):
            i = int(np.flatnonzero((X[:12] == (x[..., 0] * 255).round()).all(axis=(1, 2)))[0])
            assert data_set.label_names[y] == ("cat" if i % 2 else "dog")


def test_class_folders_in_parts_with_colour(tmp_path):
    colour = np.stack([X[0], X[1], X[2]], axis=-1)
    for i in range(8):
        _save_image(tmp_path / "train" / "ab"[i % 2] / f"{i}.png", X[i])
    _save_image(tmp_path / "test" / "a" / "colour.png", colour)
    (tmp_path / "train" / "a" / "notes.txt").write_text("not an image")
    data_set = _load(tmp_path)
    assert data_set.image_shape == (4, 5, 3)
    assert np.array_equal((data_set.splits["test"].x[0] * 255).round(), colour)
    assert {name: len(part) for name, part in data_set.splits.items()} == {"train": 7, "validation": 1, "test": 1}
    assert "1 files that are no images were left out" in data_set.record.notes


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_transparent_pixels_are_drawn_over_white_and_told(tmp_path, mode):
    """Black ink whose shape is in the alpha channel alone; of a palette, whose first colour is transparent."""
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")
    for i in range(6):
        alpha = np.where(X[i] > 100, 255, 0).astype(np.uint8)
        bands = np.zeros((*X[i].shape, 4), np.uint8)
        bands[..., 3] = alpha
        drawn = image.fromarray(bands, "RGBA")
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        if mode == "P":
            palette = image.fromarray((alpha // 255).astype(np.uint8), "P")
            palette.putpalette([0] * 6)
            palette.save(folder / f"{i}.png", transparency=0)
        else:
            drawn.convert(mode).save(folder / f"{i}.png")
    data_set = _load(tmp_path)
    assert data_set.image_shape[2] == (1 if mode == "LA" else 3)
    assert "6 images with transparent pixels were drawn over white" in data_set.record.notes
    expected = {np.where(x > 100, 0, 1).astype(np.float32).tobytes() for x in X[:6]}
    assert {x[..., 0].tobytes() for part in data_set.splits.values() for x in part.x} <= expected


def test_an_opaque_alpha_channel_changes_nothing(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")
    for i in range(6):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        image.fromarray(X[i]).convert("LA").save(folder / f"{i}.png")
    data_set = _load(tmp_path)
    assert data_set.image_shape[2] == 1
    assert not any("white" in note for note in data_set.record.notes)


def test_hidden_files_and_folders_are_left_out_and_counted(tmp_path):
    for i in range(6):
        _save_image(tmp_path / "ab"[i % 2] / f"{i}.png", X[i])
    for hidden in ("a/._0.png", "__MACOSX/._1.png", ".ipynb_checkpoints/2.png", "b/Thumbs.db"):
        (tmp_path / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / hidden).write_bytes(b"")
    data_set = _load(tmp_path)
    assert data_set.label_names == ("a", "b")
    assert "4 hidden files were left out" in data_set.record.notes


def test_hidden_archives_and_idx_files_are_none(tmp_path):
    np.savez(tmp_path / "set.npz", x=X, y=Y)
    (tmp_path / "._set.npz").write_bytes(b"")
    assert _load(tmp_path).image_shape == (4, 5, 1)
    folder = write_idx_folder(tmp_path / "idx", {"train": (X, Y)})
    (folder / "._train-images-idx3-ubyte").write_bytes(b"")
    assert _load(folder).image_shape == (4, 5, 1)


def test_of_an_animation_the_first_frame_is_taken_and_told(tmp_path):
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")
    for i in range(6):
        folder = tmp_path / "ab"[i % 2]
        folder.mkdir(exist_ok=True)
        frames = [image.fromarray(X[i]), image.fromarray(X[i + 6])]
        frames[0].save(folder / f"{i}.gif", save_all=True, append_images=frames[1:])
    assert "of 6 files with more than one frame the first was taken" in _load(tmp_path).record.notes


def test_bad_image_files_are_named(tmp_path):
    for i in range(6):
        _save_image(tmp_path / "ab"[i % 2] / f"{i}.png", X[i])
    _save_image(tmp_path / "a" / "9.png", X[0][:2])
    with pytest.raises(DataError, match=r"one size(.|\n)*9.png"):
        load(str(tmp_path))
    for broken in (b"", b"not an image", (tmp_path / "a" / "0.png").read_bytes()[:-30]):
        (tmp_path / "a" / "9.png").write_bytes(broken)
        with pytest.raises(DataError, match=r"can be decoded(.|\n)*9.png"):
            load(str(tmp_path))
    _save_image(tmp_path / "a" / "9.png", X[0].astype(np.uint16) * 256)
    with pytest.raises(DataError, match=r"8 bits a channel(.|\n)*9.png"):
        load(str(tmp_path))


def test_images_without_class_folders(tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "1.png").write_bytes(b"")
    with pytest.raises(DataError, match="folder for each class"):
        load(str(tmp_path))


def test_image_files_without_pillow_name_the_package(tmp_path, monkeypatch):
    (tmp_path / "cat").mkdir()
    (tmp_path / "cat" / "1.png").write_bytes(b"")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(UnavailableError, match="pip install pillow"):
        load(str(tmp_path))
