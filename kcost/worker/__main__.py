"""Entry point of a worker: `python -m kcost.worker JOB`, a request a line in, an answer a line out."""

from __future__ import annotations

import ctypes
import importlib
import json
import os
import signal
import sys
from typing import Any

from kcost.core.errors import KcostError, WorkerError
from kcost.core.process import ANSWER_FD_VARIABLE
from kcost.core.unforeseen import logged, place_of
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
            answers.write(_answer(job, line) + b"\n")
    return 0


def _end_with_parent() -> None:
    """Has the kernel end this process when the parent ends, however that may be."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def _answer(job: str, line: bytes) -> bytes:
    """The answer to one request, both as JSON."""
    try:
        answer: dict[str, Any] = importlib.import_module(JOBS[job]).run(json.loads(line))
        return json.dumps(answer).encode()
    except KcostError as error:
        return json.dumps({"error": error.as_dict()}).encode()
    except Exception as error:  # every other failure is reported with its place, never lost
        unforeseen = WorkerError(f"The job {job!r} runs to its end.", received=place_of(error), remedy=logged(error))
        return json.dumps({"error": unforeseen.as_dict()}).encode()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)  # the parent, which was interrupted too, says so
    except Exception as error:
        print(f"error: a worker did not start: {place_of(error)}. {logged(error)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
