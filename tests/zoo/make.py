"""Makes specimens in a process of its own: `KERAS_BACKEND=... python -m tests.zoo.make FOLDER NAME ...`.

A name that is made on another backend, or nowhere, is left out.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from kcost.worker.isolate import OTHERS, hide


def main(folder: Path, names: list[str]) -> None:
    from .specimens import MadeElsewhereError, NotMadeError, layer_specimen
    from .trial import show

    for name in names:
        try:
            specimen = layer_specimen(name)
        except (MadeElsewhereError, NotMadeError):
            continue
        (folder / name).mkdir()
        show(name, specimen, folder / name)


if __name__ == "__main__":
    hide(OTHERS[os.environ["KERAS_BACKEND"]])
    main(Path(sys.argv[1]), sys.argv[2:])
