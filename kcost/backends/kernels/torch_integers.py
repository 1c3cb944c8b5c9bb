"""Whether oneDNN's integer products run on this machine, and are exact, on PyTorch."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import torch

from kcost.core.cpu_instructions import no_int8_cpu
from kcost.core.errors import in_a_line

ZERO_POINT = 128
"""oneDNN takes activations as unsigned bytes: int8 + 128."""


def other_machine(what: str) -> str | None:
    """Why integer `what` (products, convolutions) are not even tried here; None where they are."""
    if torch.cuda.is_available():
        return f"PyTorch's integer {what} run on CPU only"
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return f"oneDNN's integer {what} were measured on x86 CPUs only, not on {platform.machine()}"
    return None


def inexact(what: str, trial: Callable[[], Any], exact: int) -> str | None:
    """Why a trial shows that integer `what` can't be used; None where all that it gives equals `exact`.

    Without VNNI, pairs of products are summed in 16 bits and are cut off: a trial of extremes shows it.
    """
    try:
        sums = trial()
    except (AttributeError, RuntimeError) as error:
        return f"this PyTorch has no oneDNN integer {what}: {in_a_line(error)}"
    if bool((sums == exact).all()):
        return None
    return f"{no_int8_cpu() or 'this build of oneDNN does not use VNNI'}: integer {what} are cut off at 16 bits"
