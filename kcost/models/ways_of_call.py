"""In which way a model is called at this moment."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

_OWN = ContextVar("kcost_own_call", default=False)

_PREDICTS = frozenset(("predict", "predict_on_batch"))


@contextmanager
def own_call() -> Iterator[None]:
    """Within it, models are called by kcost, which knows what the way costs: nobody is told to take another."""
    token = _OWN.set(True)
    try:
        yield
    finally:
        _OWN.reset(token)


def is_own_call() -> bool:
    """Whether what runs now runs within `own_call`."""
    return _OWN.get()


def is_in_predict() -> bool:
    """Whether what runs now was called by the `predict` of a Keras model, directly or while this traces a program.

    A layer is not told who calls it. What stands on the stack tells: about a microsecond.
    """
    frame = inspect.currentframe()
    while frame is not None:
        if frame.f_code.co_name in _PREDICTS and str(frame.f_globals.get("__name__")).partition(".")[0] == "keras":
            return True
        frame = frame.f_back
    return False
