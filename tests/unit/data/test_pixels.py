import numpy as np
import pytest

from kcost.core.errors import DataError
from kcost.core.pixels import UNIT, Pixels
from kcost.data import load
from kcost.data.pixels import pixels_of, scaled

from .files import grey_images, write_idx_folder

X, Y = grey_images(60)


@pytest.fixture
def images(tmp_path):
    return load(str(write_idx_folder(tmp_path, {"train": (X, Y), "t10k": (X[:20], Y[:20])})))


def test_images_are_loaded_in_0_to_1(images):
    assert images.pixels == UNIT
    assert images.stored_white == 255


def test_bytes_come_back_exactly(images):
    fed = scaled(images, pixels_of(images, "0-255", "as a test says"))
    assert np.array_equal(fed.splits["test"].x[..., 0], X[:20].astype(np.float32))
    assert fed.splits["test"].x.dtype == np.float32
    whole = scaled(images, fed.pixels, "uint8")
    assert np.array_equal(whole.splits["test"].x[..., 0], X[:20])
    assert whole.splits["test"].x.dtype == np.uint8
    assert images.splits["test"].x.max() <= 1


def test_the_record_says_the_scale_and_keeps_the_hashes(images):
    fed = scaled(images, pixels_of(images, "0-255", "as a test says"))
    assert fed.record.notes[-1] == "pixels: 0-255, as a test says"
    assert fed.record.splits == images.record.splits
    assert fed.pixels.range == (0, 255)


def test_mean_and_deviation_are_those_of_the_training_split(images):
    pixels = pixels_of(images, "mean-std", "as a test says")
    train = images.splits["train"].x.astype(np.float64)
    fed = scaled(images, pixels).splits
    assert np.allclose(fed["test"].x, (images.splits["test"].x - train.mean()) / train.std(), atol=1e-5)
    assert fed["train"].x.mean() == pytest.approx(0, abs=1e-4)
    assert fed["train"].x.std() == pytest.approx(1, abs=1e-4)
    assert str(pixels) == (
        f"pixels: mean-std, (x - {train.mean():.4f}) / {train.std():.4f} for x in 0 to 1, as a test says"
    )


def test_as_is_is_what_the_files_hold(tmp_path, images):
    assert pixels_of(images, "as-is", "").factor == 255
    np.savez(tmp_path / "unit.npz", x=X / 255, y=Y)
    assert pixels_of(load(str(tmp_path / "unit.npz")), "as-is", "").factor == 1
    np.savez(tmp_path / "two.npz", x_train=X, y_train=Y, x_test=X / 255, y_test=Y)
    with pytest.raises(DataError, match="stored in one scale"):
        pixels_of(load(str(tmp_path / "two.npz")), "as-is", "")


def test_one_grey_alone_has_no_deviation(tmp_path):
    np.savez(tmp_path / "grey.npz", x=np.full((30, 4, 4), 7, np.uint8), y=Y[:30])
    with pytest.raises(DataError, match=r"are all 0\.027"):
        pixels_of(load(str(tmp_path / "grey.npz")), "mean-std", "")


def test_the_text_of_each_scale():
    assert str(UNIT) == "pixels: 0-1, as kcost reads images"
    sixteen = Pixels(scale="as-is", factor=16, why="as told")
    assert str(sixteen) == "pixels: as-is, 0 to 16 as the data have them, as told"
