# ruff: noqa: RUF001
"""Texts and images that an export's signatures are checked and warmed up with."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

import numpy as np

TEXTS = (
    "Barack Obama was born in Honolulu, Hawaii, on August 4, 1961.",
    "Müller zahlt 3,50 € in Köln – groß wie STRASSE/Straße!",
    "Zażółć gęślą jaźń; don't e-mail anna_b@example.com [SEP]",
    "Москва — столица России, а Санкт-Петербург нет.",
    "Ο Οδυσσεύς έφτασε στη Θεσσαλονίκη.",
    "東京都は日本の首都です。北京是中国的首都。",
    "서울은 대한민국의 수도이다.",
    "नई दिल्ली भारत की राजधानी है।",
    "القاهرة عاصمة مِصْرَ، می‌خواهم",
    "กรุงเทพมหานคร 👩‍👩‍👧 👍🏽 cafe\u0301",
)
"""In several scripts: what is cut otherwise in one of them is found out."""

SEED = 0


def made_up_images(count: int, shape: Sequence[int]) -> np.ndarray:
    """Images of random bytes, shape (count, *shape), uint8."""
    return np.random.default_rng(SEED).integers(0, 256, (count, *shape), np.uint8)


def png(image: np.ndarray) -> bytes:
    """A PNG file of an image, uint8 of shape (height, width, 1 or 3). Source: https://www.w3.org/TR/png-3/

    Raises:
        ValueError: another number of channels.
    """
    height, width, channels = image.shape
    if channels not in (1, 3):
        raise ValueError(f"An image has 1 or 3 channels. Received: {channels}")
    header = struct.pack(">IIBBBBB", width, height, 8, 0 if channels == 1 else 2, 0, 0, 0)
    lines = np.concatenate([np.zeros((height, 1), np.uint8), image.reshape(height, -1)], axis=1)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes())), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, content) for kind, content in chunks)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
