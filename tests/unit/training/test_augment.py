from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from kcost.training.augment import (
    DIGIT_SETS,
    ROTATION_DEGREES,
    SHIFT_FRACTION,
    augment,
    augmentation,
    flip_warning,
    rotate_and_shift,
)


def images(count: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(0).random((count, *shape), dtype=np.float32)


@pytest.mark.parametrize("shape", [(8, 8, 1), (28, 28, 1), (9, 14, 3)])
@pytest.mark.parametrize(("degrees", "down", "right"), [(10, 0, 0), (-7.5, 0, 0), (0, 1.25, -0.5), (6, -2, 0.75)])
def test_it_is_scipys_rotation_then_shift(
    shape: tuple[int, int, int], degrees: float, down: float, right: float
) -> None:
    x = images(2, *shape)
    moved = rotate_and_shift(x, np.deg2rad([degrees, 0]), np.array([down, 0]), np.array([right, 0]))
    # One affine map, so that scipy interpolates once as well: a point of the result, less the shift, turned back.
    middle = (np.array(shape[:2]) - 1) / 2
    cos, sin = np.cos(np.deg2rad(degrees)), np.sin(np.deg2rad(degrees))
    turn = np.array([[cos, sin], [-sin, cos]])
    offset = middle - turn @ (middle + np.array([down, right]))
    for channel in range(shape[2]):
        plane = x[0, ..., channel]
        expected = ndimage.affine_transform(plane, turn, offset, order=1, mode="grid-constant")
        np.testing.assert_allclose(moved[0, ..., channel], expected, atol=1e-5)
        if not (down or right):
            rotated = ndimage.rotate(plane, degrees, reshape=False, order=1, mode="grid-constant")
            np.testing.assert_allclose(moved[0, ..., channel], rotated, atol=1e-5)
    np.testing.assert_array_equal(moved[1], x[1])  # no turn and no shift is no change


def test_whole_pixels_move_exactly_and_zeros_come_in() -> None:
    x = images(1, 6, 5, 1) + 0.5
    moved = rotate_and_shift(x.clip(0, 1), np.zeros(1), np.array([2.0]), np.array([-1.0]))
    np.testing.assert_array_equal(moved[0, 2:, :-1], x.clip(0, 1)[0, :-2, 1:])
    assert not moved[0, :2].any()
    assert not moved[0, :, -1].any()


@pytest.mark.parametrize("flip", [False, True])
def test_shape_dtype_and_range_stay_and_the_images_given_are_not_touched(flip: bool) -> None:
    x = np.ones((50, 8, 8, 3), np.float32)
    kept = x.copy()
    moved = augment(x, np.random.default_rng(1), flip=flip)
    assert moved.shape == x.shape
    assert moved.dtype == np.float32
    assert moved.min() >= 0
    assert moved.max() <= 1
    np.testing.assert_array_equal(x, kept)


def test_a_point_moves_no_further_than_the_limits_say() -> None:
    size, count = 41, 400
    x = np.zeros((count, size, size, 1), np.float32)
    x[:, 20, 30] = 1  # ten pixels to the right of the centre
    moved = augment(x, np.random.default_rng(0), flip=False)[..., 0].astype(float)
    mass = moved.sum(axis=(1, 2))
    down = (moved * np.arange(size)[:, None]).sum(axis=(1, 2)) / mass - 20
    right = (moved * np.arange(size)).sum(axis=(1, 2)) / mass - 30
    reach = SHIFT_FRACTION * size
    turned = 10 * np.sin(np.deg2rad(ROTATION_DEGREES))
    assert reach < np.abs(down).max() <= reach + turned + 0.5
    assert np.abs(right).max() <= reach + 0.5
    assert abs(down.mean()) < 0.5


def test_about_half_are_mirrored_and_only_when_asked() -> None:
    x = np.zeros((300, 21, 21, 1), np.float32)
    x[:, 10, 17] = 1
    for flip, low, high in ((False, 0, 0), (True, 0.4, 0.6)):
        moved = augment(x, np.random.default_rng(0), flip=flip)
        on_the_left = (moved[:, :, :10].sum(axis=(1, 2, 3)) > 0).mean()
        assert low <= on_the_left <= high


def test_draws_depend_on_seed_epoch_and_batch() -> None:
    x, y = images(4, 8, 8, 1), np.arange(4)
    first, labels = augmentation(3, flip=False)(x, y, 1, 2)
    np.testing.assert_array_equal(first, augmentation(3, flip=False)(x, y, 1, 2)[0])
    np.testing.assert_array_equal(labels, y)
    for seed, epoch, index in ((4, 1, 2), (3, 2, 2), (3, 1, 3)):
        assert np.abs(np.asarray(augmentation(seed, flip=False)(x, y, epoch, index)[0]) - first).max() > 0.01
    with pytest.raises(TypeError, match="token_ids"):
        augmentation(0, flip=False)({"token_ids": y}, y, 0, 0)


def test_mirrored_digits_bring_a_warning() -> None:
    for name in DIGIT_SETS:
        assert name in str(flip_warning(name))
    assert flip_warning("fashion_mnist") is None


def test_strength_0_leaves_rotation_and_shift_out() -> None:
    x = np.random.default_rng(0).random((4, 9, 8, 1), np.float32)
    np.testing.assert_allclose(augment(x, np.random.default_rng(1), flip=False, strength=0.0), x, atol=1e-6)


def test_a_smaller_strength_moves_less() -> None:
    x = np.zeros((64, 21, 21, 1), np.float32)
    x[:, 10, 10] = 1
    weak, strong = (augment(x, np.random.default_rng(1), flip=False, strength=s) for s in (0.3, 1.0))
    assert weak[:, 10, 10].mean() > 2 * strong[:, 10, 10].mean()
