"""Small files for tests of the readers."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def idx_bytes(array: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, array.ndim]) + b"".join(size.to_bytes(4, "big") for size in array.shape)
    return header + array.astype(np.uint8).tobytes()


def write_idx_folder(folder: Path, parts: dict[str, tuple[np.ndarray, np.ndarray]], compress: bool = True) -> Path:
    """Writes MNIST-named files; the keys of `parts` are "train" and "t10k"."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, (x, y) in parts.items():
        for name, array in ((f"{prefix}-images-idx3-ubyte", x), (f"{prefix}-labels-idx1-ubyte", y)):
            raw = idx_bytes(array)
            if compress:
                (folder / f"{name}.gz").write_bytes(gzip.compress(raw))
            else:
                (folder / name).write_bytes(raw)
    return folder


def grey_images(count: int, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Random uint8 images of 4x5 pixels, and labels that go round the classes."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (count, 4, 5), dtype=np.uint8), np.arange(count) % classes


def conll(*sentences: str, separator: str = "\t") -> str:
    """A CoNLL text from sentences written as "Ada/B-PER went/O"."""
    lines = [[token.rsplit("/", 1) for token in sentence.split(" ")] for sentence in sentences]
    return "".join("".join(f"{token}{separator}{tag}\n" for token, tag in rows) + "\n" for rows in lines)


TEN = tuple(f"Ada/B-PER saw/O house/O number/O {i}/O ./O" for i in range(10))
"""Ten sentences, enough to be cut into three parts."""
