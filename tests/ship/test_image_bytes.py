"""Files of images that a graph reads, held against what kcost's data reading makes of them with Pillow."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from kcost.core.errors import InputError
from kcost.core.pixels import UNIT
from kcost.data.image_files import read_class_folders
from kcost.data.images import build_image_set
from kcost.data.pixels import scaled, values_of_bytes
from kcost.runtimes.saved_model import SavedModelSession
from kcost.worker.convert.serving_probes import png
from tests.ship.image_models import FORMS, HEIGHT, WIDTH

JPEG = {"quality": 90, "subsampling": 0}


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory):
    """A session of a graph that reads images."""
    out = tmp_path_factory.mktemp("images") / "graph"
    command = [sys.executable, "-m", "tests.ship.image_models", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    with SavedModelSession(out, threads=1, signature=None, strings=True) as session:
        for name in FORMS:
            session.bind(name)
        yield session


def read(reader: SavedModelSession, form: str, files: list[bytes]) -> np.ndarray:
    strings = np.empty(len(files), object)
    strings[:] = files
    return reader.run_signature(form, {"image_bytes": strings})["images"]


def by_training(files: list[bytes], form: str, folder: Path) -> np.ndarray:
    """The images as kcost loads a folder of them, in the scale of the model."""
    channels, pixels, dtype = FORMS[form]
    (folder / "a").mkdir(parents=True)
    (folder / "z").mkdir()
    for i, content in enumerate(files):
        (folder / "a" / f"{i:03}.png").write_bytes(content)
    # A second class, whose images settle whether the folder is of grey ones.
    other = np.full((HEIGHT, WIDTH, channels), 7, np.uint8)
    for i in range(len(files) + 9):
        (folder / "z" / f"{i}.png").write_bytes(png(other + np.uint8(i)))
    raw, names, _ = read_class_folders({"train": folder})
    assert raw["train"].x.shape == (2 * len(files) + 9, HEIGHT, WIDTH, channels)
    loaded = build_image_set(raw, names, name="x", source="x", licence="x")
    made = scaled(loaded, pixels, dtype)
    # The splits are shuffled: each image is looked up by its bytes as they were read.
    known = {}
    for split, images in made.splits.items():
        for before, after in zip(loaded.splits[split].x, images.x, strict=True):
            known[np.rint(before * 255).astype(np.uint8).tobytes()] = after
    return np.stack([known[raw["train"].x[i].tobytes()] for i in range(len(files))])


def saved(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(mode: str, seed: int = 0) -> Image.Image:
    """Pixels at random, smooth enough that a JPEG has all kinds of blocks."""
    random = np.random.default_rng(seed)
    bands = {"1": 1, "L": 1, "LA": 2, "RGB": 3, "RGBA": 4, "CMYK": 4}[mode]
    pixels = random.integers(0, 256, (HEIGHT, WIDTH, bands), np.uint8)
    if mode == "1":
        return Image.fromarray(pixels[..., 0]).convert("1")
    return Image.fromarray(pixels[..., 0] if bands == 1 else pixels, mode)


def chunks(header: bytes, lines: np.ndarray, *more: tuple[bytes, bytes]) -> bytes:
    """A PNG file of lines of bytes, which Pillow does not write."""
    packed = np.concatenate([np.zeros((len(lines), 1), np.uint8), lines], axis=1).tobytes()
    parts = ((b"IHDR", header), *more, (b"IDAT", zlib.compress(packed)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(c)) + k + c + struct.pack(">I", zlib.crc32(k + c)) for k, c in parts
    )


def few_bits(depth: int, colour: int = 0, *more: tuple[bytes, bytes]) -> bytes:
    bytes_of_line = -(-WIDTH * depth // 8)
    lines = np.random.default_rng(depth).integers(0, 256, (HEIGHT, bytes_of_line), np.uint8)
    return chunks(struct.pack(">IIBBBBB", WIDTH, HEIGHT, depth, colour, 0, 0, 0), lines, *more)


PALETTE = (b"PLTE", bytes(range(12)))

GREY_FILES = {
    "png L": saved(picture("L")),
    "png LA": saved(picture("LA")),
    "png 1": saved(picture("1")),
    "png L with one transparent grey": saved(picture("L"), transparency=picture("L").getpixel((0, 0))),
    "png of 2 bits": few_bits(2),
    "png of 4 bits": few_bits(4),
    "jpeg L": saved(picture("L"), "JPEG", **JPEG),
    "jpeg L progressive": saved(picture("L"), "JPEG", progressive=True, quality=40),
}
COLOUR_FILES = {
    "png RGB": saved(picture("RGB")),
    "png RGBA": saved(picture("RGBA")),
    "png RGB with one transparent colour": saved(picture("RGB"), transparency=picture("RGB").getpixel((0, 0))),
    "png P": saved(picture("RGB").quantize(16)),
    "png P of 4 bits": saved(picture("RGB").quantize(16), bits=4),
    "png P of 2 bits, transparent": few_bits(2, 3, PALETTE, (b"tRNS", bytes([0, 100, 255]))),
    "png P, transparent": saved(picture("RGB").quantize(16), transparency=bytes(range(0, 160, 10))),
    "jpeg 4:4:4": saved(picture("RGB"), "JPEG", **JPEG),
    "jpeg 4:2:2": saved(picture("RGB"), "JPEG", quality=75, subsampling=1),
    "jpeg 4:2:0": saved(picture("RGB"), "JPEG", quality=30, subsampling=2),
    "jpeg progressive": saved(picture("RGB"), "JPEG", progressive=True, quality=60),
    "jpeg that says it lies on its side": saved(
        picture("RGB"),
        "JPEG",
        exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08"
        b"\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x06\x00\x00\x00\x00\x00\x00",
    ),
}


@pytest.mark.parametrize("name", GREY_FILES)
def test_grey_files_are_read_as_in_training(reader: SavedModelSession, tmp_path: Path, name: str) -> None:
    file = GREY_FILES[name]
    np.testing.assert_array_equal(read(reader, "grey", [file]), by_training([file], "grey", tmp_path))


@pytest.mark.parametrize("name", [*COLOUR_FILES, *GREY_FILES])
def test_files_are_read_in_colour_as_in_training(reader: SavedModelSession, tmp_path: Path, name: str) -> None:
    file = (COLOUR_FILES | GREY_FILES)[name]
    for form in ("colour", "scaled", "whole"):
        wanted = by_training([file], form, tmp_path / form)
        answer = read(reader, form, [file])
        assert answer.dtype == wanted.dtype
        np.testing.assert_array_equal(answer, wanted)


@settings(max_examples=60, deadline=None)
@given(arrays.arrays(np.uint8, (HEIGHT, WIDTH, 4)), st.sampled_from(["RGBA", "RGB"]))
def test_any_pixels(reader: SavedModelSession, pixels: np.ndarray, mode: str) -> None:
    image = Image.fromarray(pixels, "RGBA").convert(mode)
    white = Image.new("RGBA", image.size, (255, 255, 255, 255))
    wanted = np.asarray(Image.alpha_composite(white, image.convert("RGBA")).convert("RGB"))
    np.testing.assert_array_equal(read(reader, "whole", [saved(image)])[0], wanted)


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.uint8, (HEIGHT, WIDTH, 3)),
    st.integers(1, 100),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
)
def test_any_jpeg(reader: SavedModelSession, pixels: np.ndarray, quality: int, sampling: int, slowly: bool) -> None:
    file = saved(Image.fromarray(pixels), "JPEG", quality=quality, subsampling=sampling, progressive=slowly)
    wanted = np.asarray(Image.open(io.BytesIO(file)))
    np.testing.assert_array_equal(read(reader, "whole", [file])[0], wanted)


def test_a_batch_is_its_images(reader: SavedModelSession) -> None:
    files = list((COLOUR_FILES | GREY_FILES).values())
    together = read(reader, "scaled", files)
    for file, image in zip(files, together, strict=True):
        np.testing.assert_array_equal(read(reader, "scaled", [file])[0], image)
    assert read(reader, "scaled", []).shape == (0, HEIGHT, WIDTH, 3)


LARGE = Image.new("RGB", (WIDTH + 1, HEIGHT))

REFUSED = {
    "another size": ("colour", saved(LARGE), "6 pixels high and 5 wide"),
    "another size, jpeg": ("colour", saved(LARGE, "JPEG"), "6 pixels high and 5 wide"),
    "colours for grey": ("grey", COLOUR_FILES["png RGB"], "It has colours"),
    "a palette for grey": ("grey", COLOUR_FILES["png P"], "It has colours"),
    "a jpeg of colours for grey": ("grey", COLOUR_FILES["jpeg 4:4:4"], "It has colours"),
    "16 bits": ("grey", saved(Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint16))), "8 bits a channel"),
    "CMYK": ("colour", saved(picture("CMYK"), "JPEG"), "three colours"),
    "a transparent grey of 2 bits": ("grey", few_bits(2, 0, (b"tRNS", b"\x00\x01")), "2 or 4 bits"),
    "GIF": ("colour", saved(picture("RGB"), "GIF"), "a PNG or a JPEG"),
    "BMP": ("colour", saved(picture("RGB"), "BMP"), "a PNG or a JPEG"),
    "nothing": ("colour", b"", "a PNG or a JPEG"),
    "text": ("colour", b"hello", "a PNG or a JPEG"),
    "a cut PNG": ("colour", COLOUR_FILES["png RGB"][:-30], "PNG"),
    "a PNG's beginning": ("colour", COLOUR_FILES["png RGB"][:20], "cut short"),
    "a cut JPEG": ("colour", COLOUR_FILES["jpeg 4:4:4"][:-30], "JPEG"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(reader: SavedModelSession, name: str) -> None:
    form, file, message = REFUSED[name]
    with pytest.raises(InputError, match=message):
        read(reader, form, [file])


def test_the_values_of_bytes_are_those_of_training() -> None:
    assert values_of_bytes(UNIT).tolist() == (np.arange(256).astype(np.float32) / np.float32(255)).tolist()
    assert values_of_bytes(FORMS["whole"][1], "uint8").tolist() == list(range(256))
