"""The command line: parse, one call, print. The answer goes to standard output, all else to standard error.

Exit codes: 0 done; 1 a gate failed; 2 wrong usage, bad input, or an error that nobody foresaw; 3 something asked for is
not there.
"""

from __future__ import annotations

import io
import sys
from typing import NoReturn

# Importing a module of commands adds them to the application.
from kcost.cli import (  # noqa: F401
    costing,
    inventory,
    measuring,
    models,
    monitoring,
    next_dollar,
    probing,
    projecting,
    recommend,
    risk,
    serving,
    shipping,
)
from kcost.cli.shared import app, tell


def main() -> NoReturn:
    """The console script. Every error becomes a message and an exit code; the traceback of one that kcost did not raise
    on purpose goes to a log."""
    from kcost.core.errors import KcostError

    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # under LANG=C a name with an accent is no reason to end
    try:
        app(standalone_mode=True)
    except KcostError as error:
        tell(f"error: {error}")
        sys.exit(error.exit_code)
    except KeyboardInterrupt:  # the command has said what stays
        sys.exit(130)
    except Exception as error:
        from kcost.core.unforeseen import logged, place_of

        message = f"error: kcost did not foresee this: {place_of(error)}. {logged(error)}"
        tell(message)
        sys.exit(2)
    sys.exit(0)
