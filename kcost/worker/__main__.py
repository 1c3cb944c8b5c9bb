"""Entry point of a worker: `python -m kcost.worker JOB`, a request a line in, an answer a line out."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

from kcost.core.errors import KcostError, WorkerError
from kcost.core.process import ANSWER_FD_VARIABLE
from kcost.worker import JOBS
from kcost.worker.isolate import OTHERS, hide

PR_SET_PDEATHSIG = 1
"""Linux, man 2 prctl."""


def main(job: str) -> int:
    """Answers requests until standard input closes."""
    _end_with_parent()
    backend = os.environ["KERAS_BACKEND"].replace("numpy", "fake")
    hide(OTHERS[backend])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ["OMP_NUM_THREADS"])])
    with os.fdopen(int(os.environ[ANSWER_FD_VARIABLE]), "wb", buffering=0) as answers:
        for line in sys.stdin.buffer:
            answers.write(json.dumps(_answer(job, json.loads(line))).encode() + b"\n")
    return 0


def _end_with_parent() -> None:
    """Has the kernel end this process when the parent ends, however that may be."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def _answer(job: str, request: dict[str, Any]) -> dict[str, Any]:
    try:
        answer: dict[str, Any] = importlib.import_module(JOBS[job]).run(request)
        return answer
    except KcostError as error:
        return {"error": error.as_dict()}
    except Exception as error:  # every other failure is reported with its place, never lost
        traceback.print_exc()
        place = traceback.extract_tb(error.__traceback__)[-1]
        told = str(error).strip().splitlines()
        reason = f"{type(error).__name__}: {told[0] if told else ''} ({Path(place.filename).name}:{place.lineno})"
        return {"error": WorkerError(f"The job {job!r} ran to its end.", received=reason).as_dict()}


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
