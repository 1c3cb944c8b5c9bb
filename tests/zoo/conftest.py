"""The zoo on whichever backend KERAS_BACKEND names, in a process that sees no other framework.

Run as `KERAS_BACKEND=jax python -m pytest tests/zoo`; `make test` does it for each.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from kcost.core.conversion import ConversionCheckAnswer, ConversionCheckRequest, ConvertAnswer, ConvertRequest
from kcost.core.jobs import CHECK_CONVERSION, CONVERT
from kcost.core.process import Worker, worker_environment
from testing.one_backend import BACKEND, INSTALLED, backend, same_seed  # noqa: F401 -- fixtures, and hides the others

if TYPE_CHECKING:
    from .table import Row
    from .trial import Trial

ROWS_FOLDER = "KCOST_ZOO_ROWS"
"""Names a folder that takes what each mode ended with, a file a backend: docs/layers.md is made of these."""


class ExportWorkers(NamedTuple):
    """What writes SavedModels and what checks them."""

    export: Worker[ConvertRequest, ConvertAnswer]
    check: Worker[ConversionCheckRequest, ConversionCheckAnswer]


@pytest.fixture(scope="session", autouse=True)
def _started() -> None:
    """A worker tells its backend how many threads it has before anything is computed."""
    from kcost.core.measuring import StartRequest
    from kcost.worker import measure

    measure.run(StartRequest())
    # Measuring ends with a collection, which then has only what a test made to look through.
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ExportWorkers]:
    """What writes SavedModels and what reads them, each in a process of its own."""
    if "tensorflow" not in INSTALLED:
        pytest.skip("a SavedModel is written by TensorFlow, which is not installed")
    with (tmp_path_factory.mktemp("logs") / "log").open("wb") as log, contextlib.ExitStack() as stack:
        yield ExportWorkers(
            stack.enter_context(Worker(CONVERT, "tensorflow", threads=1, log=log)),
            stack.enter_context(Worker(CHECK_CONVERSION, "fake", threads=1, log=log)),
        )


@pytest.fixture(scope="session")
def record() -> Iterator[Callable[[Row], None]]:
    """Keeps rows for docs/layers.md where KCOST_ZOO_ROWS is set."""
    folder = os.environ.get(ROWS_FOLDER)
    if folder is None:
        yield lambda row: None
        return
    with (Path(folder) / f"{BACKEND}.jsonl").open("a", encoding="utf-8") as file:
        yield lambda row: print(json.dumps(row._asdict()), file=file, flush=True)


@pytest.fixture(scope="session")
def made_by(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], Path]:
    """The folder of a specimen that another backend makes: all of its kind are made at once."""
    from .specimens import TABLE

    folders: dict[str, Path] = {}

    def make(by: str, name: str) -> Path:
        if by not in INSTALLED:
            pytest.skip(f"{by} makes it, which is not installed")
        if by not in folders:
            folders[by] = tmp_path_factory.mktemp(f"made-by-{by}")
            home = str(tmp_path_factory.mktemp(f"keras-{by}"))
            subprocess.run(
                [sys.executable, "-m", "tests.zoo.make", str(folders[by]), *TABLE],
                env=worker_environment(by, 1, home),  # type: ignore[arg-type]
                check=True,
                capture_output=True,
            )
        return folders[by] / name

    return make


@pytest.fixture
def trial_of(
    tmp_path: Path, made_by: Callable[[str, str], Path], request: pytest.FixtureRequest
) -> Callable[[str, bool], Trial]:
    """A trial of a layer's specimen; a `whole` one exports too."""

    def make(name: str, whole: bool) -> Trial:
        from .specimens import MadeElsewhereError, NotMadeError, layer_specimen
        from .table import backends_of
        from .trial import Trial, show, shown

        try:
            specimen = layer_specimen(name)
            if BACKEND == "jax" and not whole and not specimen.model.weights:
                pytest.skip("nothing to quantize, and jax compiles each model: left to the whole form")
            subject = show(name, specimen, tmp_path)
        except NotMadeError as error:
            pytest.skip(str(error))
        except MadeElsewhereError as error:
            shutil.copytree(made_by(error.backend, name), tmp_path, dirs_exist_ok=True)
            subject = shown(tmp_path)
        exports = whole and BACKEND in backends_of("export")
        return Trial(subject, request.getfixturevalue("workers") if exports else None)

    return make
