"""What this machine can do, whatever model runs on it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from kcost.core.progress import OnProgress, silent

if TYPE_CHECKING:
    from kcost.core.plan import Backend
    from kcost.core.probe import Probe


def run_probe(
    out: Path | str,
    *,
    backend: Backend | None = None,
    seconds: float = 120.0,
    on_progress: OnProgress = silent,
) -> Probe:
    """Measures products by dtype and size, memory bandwidth and what a call costs, at 1 to all threads, on the CPU.

    Args:
        out: the JSON file to write.
        backend: None takes KERAS_BACKEND, else the first that is installed.
        seconds: of all, at most 120.

    Raises:
        InputError: seconds out of range.
        UnavailableError: the backend is not installed.
        WorkerError: nothing could be measured.
        StorageError: the file cannot be written.
    """
    from kcost.bench.probe import probe
    from kcost.core.process import chosen_backend, require

    return probe(chosen_backend() if backend is None else require(backend), Path(out), seconds, on_progress)
