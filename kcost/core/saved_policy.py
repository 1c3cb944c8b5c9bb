"""The dtype policy that a `.keras` file was saved under, read without a framework."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from kcost.core.keras_file import CONFIG_MEMBER

POLICY_CLASSES = ("DTypePolicy", "QuantizedDTypePolicy", "QuantizedFloat8DTypePolicy")
MIXED = "mixed_"
QUANTIZED = "_from_"
"""Between the mode and the policy that a quantized layer came from, as in `int8_from_mixed_bfloat16`."""

FLOATS = frozenset({"float16", "bfloat16", "float64", "mixed_float16", "mixed_bfloat16"})
"""Policies in floating point other than float32."""


def saved_policy(keras_file: Path) -> str | None:
    """The dtype policies of a model's layers other than float32, such as `mixed_float16`; None where all are float32.

    Layers in float32 beside others do not count: a mixed model has its last layer in float32 by Keras's own advice.
    Policies of quantized layers count where what they were quantized from is none of float32. None also for a file
    that is no `.keras` archive.
    """
    try:
        with zipfile.ZipFile(keras_file) as archive:
            config = json.loads(archive.read(CONFIG_MEMBER))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError):
        return None  # whoever loads it says what is wrong with it
    return " and ".join(sorted({p for p in _policies(config) if p.rpartition(QUANTIZED)[2] in FLOATS})) or None


def _policies(config: Any) -> Iterator[str]:
    """The names of all dtype policies at or below a node of a config."""
    nodes = [config]
    while nodes:
        node = nodes.pop()
        if isinstance(node, list):
            nodes += node
        elif isinstance(node, dict):
            name = node["config"].get("name") if isinstance(node.get("config"), dict) else None
            if node.get("class_name") in POLICY_CLASSES and isinstance(name, str):
                yield name
            elif isinstance(dtype := node.get("dtype"), str) and dtype.startswith(MIXED):
                yield dtype  # files of the first releases of Keras 3 name it alone
            nodes += [value for key, value in node.items() if key != "compile_config"]
