"""Arrays in named parts with a header, as one npz file."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kcost.core import schema
from kcost.core.schema import Record


def write_npz(path: Path, header: Record, parts: Mapping[str, Any], fields: Sequence[str]) -> None:
    """Writes the fields of each part that are not None as `PART/FIELD`, and the header as JSON, atomically.

    Compressed zip entries of numpy carry no time: the same arrays give the same bytes, and so the same hash.

    Raises:
        StorageError: it cannot be written.
    """
    arrays = {
        f"{name}/{field}": value
        for name, part in parts.items()
        for field in fields
        if (value := getattr(part, field)) is not None
    }
    content = io.BytesIO()
    np.savez_compressed(content, header=np.array(header.model_dump_json()), **arrays)
    schema.write_bytes(path, content.getvalue())
