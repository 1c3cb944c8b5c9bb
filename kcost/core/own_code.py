"""Modules of the user's own: what `module:function` names, and the classes that a user vouches for."""

from __future__ import annotations

import importlib
import os
import sys
from types import ModuleType

from kcost.core.errors import InputError, in_a_line

CLASSES_VARIABLE = "KCOST_CLASSES"
"""Names the modules, with commas between them, whose classes and functions a model file may need."""


def named_modules() -> tuple[str, ...]:
    """The modules that the user vouches for, in the order given; none without the variable."""
    return tuple(name.strip() for name in os.environ.get(CLASSES_VARIABLE, "").split(",") if name.strip())


def import_module(name: str, rule: str, source: str) -> ModuleType:
    """Imports a module that is installed, or lies in the folder where kcost was started.

    Args:
        rule: what was expected, for the message.
        source: what the user gave, for the message.

    Raises:
        InputError: there is no such module, or importing it raises.
    """
    if (here := os.getcwd()) not in sys.path:  # noqa: PTH109 -- sys.path holds strings
        sys.path.insert(0, here)
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:  # importing it runs the user's own code
        cause = f"it raised {in_a_line(error)}"
        if isinstance(error, ModuleNotFoundError) and f"{name}.".startswith(f"{error.name}."):
            cause = f"there is no module {error.name!r}"
        raise InputError(
            rule,
            received=f"{source}: {cause}",
            remedy="Start kcost in the folder that holds the module, or install the package.",
        ) from error
