"""Threads that wait for jobs of workers, beside what the main thread does; a stop of that one ends them, too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_of_this_thread = threading.local()
"""`threads`: the JobThreads that this thread is one of; nothing in other threads."""


class JobThreads:
    """Some threads for functions that run jobs. Use it as a context manager: leaving the block waits for all of them.

    Leaving it by an error, or by a user's interrupt, kills the workers of the jobs that run, and begins no other. The
    threads themselves cannot be ended, and the interpreter would wait at its end for as long as a worker takes.
    """

    def __init__(self, most: int) -> None:
        self._executor = ThreadPoolExecutor(most, initializer=self._begin)
        self._lock = threading.Lock()
        self._kills: list[Callable[[], None]] = []
        self._stopped = False

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Has one of the threads call the function."""
        return self._executor.submit(function, *args, **kwargs)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if kind is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            with self._lock:
                self._stopped = True
                for kill in self._kills:
                    kill()
        self._executor.shutdown()

    def _begin(self) -> None:
        _of_this_thread.threads = self

    @contextmanager
    def killed_at_a_stop(self, kill: Callable[[], None]) -> Iterator[None]:
        """See the function of this name."""
        with self._lock:
            self._kills.append(kill)
            if self._stopped:  # between two jobs of one function
                kill()
        try:
            yield
        finally:
            with self._lock:
                self._kills.remove(kill)


@contextmanager
def killed_at_a_stop(kill: Callable[[], None]) -> Iterator[None]:
    """Has a stop of the threads, where this is one of `JobThreads`, call `kill` while the block runs.

    Args:
        kill: ends what the block waits for, and does not wait itself.
    """
    threads: JobThreads | None = getattr(_of_this_thread, "threads", None)
    if threads is None:
        yield
        return
    with threads.killed_at_a_stop(kill):
        yield
