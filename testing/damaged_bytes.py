"""Messages that are nearly valid."""

from __future__ import annotations

import random


def bytes_changed(rng: random.Random, whole: bytes) -> bytes:
    """One or two bytes changed, or a few cut out or put in: of binary messages, much of which still can be read."""
    body = bytearray(whole)
    for _ in range(rng.randint(1, 2)):
        at = rng.randrange(len(body))
        if rng.random() < 0.8:
            body[at] = rng.randrange(256)
        else:
            body[at : at + rng.randint(0, 4)] = rng.randbytes(rng.randint(0, 4))
    return bytes(body)
