"""The conversions that cells of runtimes are measured on: each is made once in a call, and a failure is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, cast

from kcost.bench.pool import CellFailure
from kcost.core.artifact import SAMPLES_FILE, Model
from kcost.core.conversion import Runtime, RuntimePrecision
from kcost.core.errors import KcostError, StorageError, UnavailableError, WorkerError
from kcost.core.job_threads import JobThreads
from kcost.core.plan import CellSpec
from kcost.core.request import MeasureRequest

Converted = Callable[[Model, Runtime, RuntimePrecision, Path], Path]
"""Converts a model for a runtime into a folder below the last argument, where it is not there yet."""

CONVERTED_FOLDER = "converted"
"""Of a run folder: what its models were converted to."""


class _Wanted(NamedTuple):
    """A conversion that a cell is measured on."""

    model: str
    runtime: Runtime
    precision: RuntimePrecision


class Conversions:
    """What the models of a run were converted to.

    Args:
        models: by name.
        cache: the folder that they lie below.
        converted: makes one; without it none can be made.
        tell: told what is made, as it begins.
    """

    def __init__(
        self, models: Mapping[str, Model], cache: Path, converted: Converted | None, tell: Callable[[str], None]
    ) -> None:
        self._models, self._cache, self._converted, self._tell = models, cache, converted, tell
        self._made: dict[_Wanted, Path | CellFailure] = {}

    def applied_to(self, request: MeasureRequest) -> MeasureRequest:
        """A request with the converted file in the place of the model's, made where that is to be done; of a cell that
        needs none the same.

        Raises:
            CellFailure: the model cannot be converted for the cell's runtime.
            StorageError: the conversion cannot be written.
        """
        wanted = _wanted_by(request.spec)
        if wanted is None:
            return request
        if wanted not in self._made:
            self._made[wanted] = self._make(wanted)
        made = self._made[wanted]
        if isinstance(made, CellFailure):
            raise made
        # Without real samples those that the conversion was checked on are measured on.
        samples = request.samples_file or made / SAMPLES_FILE
        return request.model_copy(update={"keras_file": made, "samples_file": samples})

    @contextmanager
    def made_meanwhile(self, specs: Iterable[CellSpec], at_once: int) -> Iterator[None]:
        """Makes what these cells need, `at_once` at the same time, while the block runs; leaving it waits for them.

        Leaving it by an error, or by a user's interrupt, ends those that run. So does an error that is no failure of a
        conversion, such as a full disk.
        """
        every = dict.fromkeys(wanted for spec in specs if (wanted := _wanted_by(spec)) is not None)
        with JobThreads(at_once) as threads:
            futures = {wanted: threads.submit(self._make, wanted) for wanted in every}
            yield
            for future in as_completed(futures.values()):
                future.result()
            self._made |= {wanted: future.result() for wanted, future in futures.items()}

    def _make(self, wanted: _Wanted) -> Path | CellFailure:
        """The folder of the conversion, or why there is none: that is kept, as other cells would meet the same."""
        self._tell(f"converting {wanted.model} for {wanted.runtime} in {wanted.precision}")
        try:
            if self._converted is None:
                raise UnavailableError(
                    "A runtime measures a converted model.", f"{wanted.runtime}, and nothing that converts"
                )
            model = self._models[wanted.model]
            return self._converted(model, wanted.runtime, wanted.precision, self._cache).absolute()
        except StorageError:
            raise
        except WorkerError as error:
            return CellFailure("crash", str(error))
        except KcostError as error:
            return CellFailure("unsupported", str(error))


def _wanted_by(spec: CellSpec) -> _Wanted | None:
    """What is converted for a cell; None where nothing is."""
    if spec.runtime is None:
        return None
    return _Wanted(spec.model, spec.runtime, cast(RuntimePrecision, spec.precision))  # `expand` gives it no other
