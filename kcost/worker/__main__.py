"""Entry point of a worker: `python -m kcost.worker JOB`, a request a line in, an answer a line out."""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import signal
import sys
from typing import Any

from kcost.core.errors import KcostError, WorkerError
from kcost.core.jobs import JOBS, Job, error_line
from kcost.core.process import ANSWER_FD_VARIABLE
from kcost.core.unforeseen import logged, place_of
from kcost.worker.isolate import OTHERS, hide

PR_SET_PDEATHSIG = 1
"""Linux, man 2 prctl."""


def main(name: str) -> int:
    """Answers requests to the job of that name until standard input closes."""
    job = JOBS[name]
    _end_with_parent()
    backend = os.environ["KERAS_BACKEND"].replace("numpy", "fake")
    hide(OTHERS[backend])
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(os.environ["OMP_NUM_THREADS"])])
    with os.fdopen(int(os.environ[ANSWER_FD_VARIABLE]), "wb", buffering=0) as answers:
        for line in sys.stdin.buffer:
            answers.write(answer_to(job, line))
    # The interpreter's last collections would walk all that a framework made, for a second, while the parent waits.
    gc.freeze()
    return 0


def _end_with_parent() -> None:
    """Has the kernel end this process when the parent ends, however that may be."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")


def answer_to(job: Job[Any, Any], line: bytes) -> bytes:
    """The answer to one request, or the error in its place, both as lines."""
    try:
        request = job.read_request(line)
        return job.answer_line(importlib.import_module(job.module).run(request))
    except KcostError as error:
        return error_line(error)
    except Exception as error:  # every other failure is reported with its place, never lost
        rule = f"The job {job.name!r} runs to its end."
        return error_line(WorkerError(rule, received=place_of(error), remedy=logged(error), cause="unforeseen"))


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1]))
    except KeyboardInterrupt:
        sys.exit(130)  # the parent, which was interrupted too, says so
    except Exception as error:
        print(f"error: a worker did not start: {place_of(error)}. {logged(error)}", file=sys.stderr)  # noqa: T201
        sys.exit(2)
