"""Lists the devices that a backend sees."""

from __future__ import annotations

import os

from kcost.backends import driver
from kcost.core.request import DevicesAnswer, DevicesRequest


def run(request: DevicesRequest) -> DevicesAnswer:
    """Answers with the backend's version and its devices by kind."""
    backend = driver(os.environ["KERAS_BACKEND"])
    return DevicesAnswer(
        version=backend.version(), devices={kind: tuple(names) for kind, names in backend.devices().items()}
    )
