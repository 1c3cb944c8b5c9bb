"""Lists the devices that a backend sees."""

from __future__ import annotations

import os
from typing import Any

from kcost.backends import driver


def run(request: dict[str, Any]) -> dict[str, Any]:
    """Answers with the backend's version and its devices by kind."""
    found = driver(os.environ["KERAS_BACKEND"])
    return {"version": found.version(), "devices": found.devices()}
