"""What this machine can do, whatever model runs on it."""

from __future__ import annotations

from collections.abc import Sequence
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
    threads: Sequence[int] | None = None,
    on_progress: OnProgress = silent,
) -> Probe:
    """Measures products by dtype and size, memory bandwidth and what a call costs, at 1 to all threads, on the CPU.

    Args:
        out: the JSON file to write.
        backend: None takes KERAS_BACKEND, else the first that is installed.
        seconds: of all, at most 120.
        threads: numbers of threads; None takes 1, all (or as many as a CPU quota allows), and at most two between.

    Raises:
        InputError: seconds out of range, or more threads than this process has cores.
        UnavailableError: the backend is not installed.
        WorkerError: nothing could be measured.
        StorageError: the file cannot be written.
    """
    from kcost.bench.probe import probe
    from kcost.core.process import chosen_backend, require

    chosen = chosen_backend() if backend is None else require(backend)
    return probe(chosen, Path(out), seconds, on_progress, threads)
