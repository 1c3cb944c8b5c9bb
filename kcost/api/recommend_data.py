"""What a recommendation reads before it measures: the machine, and the data in the form that cells are scored on."""

from __future__ import annotations

import importlib.util
import io
import shutil
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from pydantic import ValidationError

from kcost.core import environment
from kcost.core.artifact import SAMPLES, Model
from kcost.core.chosen_rows import chosen_rows
from kcost.core.conversion import RUNTIMES, Runtime
from kcost.core.errors import InputError, KcostError
from kcost.core.jobs import EXAMPLES
from kcost.core.plan import BACKENDS, Backend
from kcost.core.process import installed, require, run_job
from kcost.core.request import ExamplesAnswer, ExamplesRequest
from kcost.core.schema import Record, write_bytes
from kcost.recommend.candidates import Candidate, Machine

if TYPE_CHECKING:
    from kcost.core.plan import Plan
    from kcost.recommend.drop import DropBound
    from kcost.recommend.measuring import Rescore
    from kcost.recommend.terms import Terms

RUN_FOLDER, MORE_FOLDER = "run", "more-examples"
DATA_FILE, MORE_DATA_FILE = "data.npz", "more-data.npz"
EXAMPLES_LOG = "examples.log"

NEEDED: dict[Runtime, tuple[str, ...]] = {
    "saved_model": ("tensorflow",),
    "litert": ("ai_edge_litert",),
    "onnx": ("onnxruntime", "onnx", "onnxscript"),
    "openvino": ("openvino",),
}
"""Runtime -> modules that converting to it and running it import."""

DATA_SET_KEYS = frozenset({"x_train", "x_test", "y_train", "y_test", "x", "y"})
"""Arrays of an .npz file that is a data set in parts; any other is what cells are fed, as of a plan's `data`."""


MoreData = Callable[[int], "MoreExamples | None"]
"""Gives a file with at most so many test examples as cells are fed them; None where there are no more than before."""

Take = Callable[[str | None, int, Path], ExamplesAnswer]
"""Has a worker write at most so many test examples of a data set as the model takes them; None: its artifact's."""


class MoreExamples(NamedTuple):
    """Examples that a lower precision is judged on where the first ones did not decide."""

    file: Path
    examples: int
    rows: np.ndarray | None = None
    """Their places in the test split, ascending; None for arrays as they are fed."""


class Scored(NamedTuple):
    """What cells are scored on."""

    file: Path | None
    """None: the artifact's own samples, or made-up ones."""
    labelled: bool
    name: str | None
    """Of a data set that kcost loads; None for arrays as they are fed."""
    notices: tuple[str, ...]


def this_machine(wanted: Sequence[str]) -> Machine:
    """What of this machine decides the candidates. Imports no framework.

    Raises:
        UnavailableError: a backend that is wanted is unknown, or not installed.
    """
    for backend in wanted:
        require(backend)
    here = environment.collect()
    present: list[Backend] = [b for b in BACKENDS if installed(b)]
    return Machine(
        backends=(*present, *(("fake",) if "fake" in wanted else ())),
        runtimes=tuple(r for r in RUNTIMES if all(importlib.util.find_spec(m) is not None for m in NEEDED[r])),
        cores=here.default_threads,
        cpu_features=here.cpu_features,
        compiler=bool(shutil.which("g++") or shutil.which("clang++")),
    )


def taker(model: Model, backend: Backend, seed: int, log: Path) -> Take:
    """Has a worker of a backend write examples; what it prints goes into the log."""
    source = model.keras_file.parent if model.artifact is not None else model.keras_file

    def take(data: str | None, count: int, file: Path) -> ExamplesAnswer:
        log.parent.mkdir(parents=True, exist_ok=True)
        file.parent.mkdir(parents=True, exist_ok=True)
        request = ExamplesRequest(model=source.absolute(), data=data, count=count, seed=seed, file=file.absolute())
        return run_job(EXAMPLES, backend, request, log=log)

    return take


def scored_data(model: Model, data: str | None, out: Path, seed: int, take: Take | None = None) -> Scored:
    """The data as cells take them: of a data set up to 256 test examples, drawn by the seed, written below `out`.

    Args:
        take: for what only the loaded model tells: the scale of its pixels, and the pieces of texts. Without it pixels
            are taken for 0 to 1.

    Raises:
        InputError: texts for a model without a vocabulary, data of another task or shape, or an unknown data set.
        DataError: the data cannot be read.
        StorageError: `out` cannot be written to.
    """
    if data is None:
        own = model.samples_file is not None
        none_told: tuple[str, ...] = (
            () if own else ("No data were given: inputs are made up, so that no score was judged, only agreement.",)
        )
        return Scored(None, own, None, none_told)
    path = Path(data)
    if path.suffix == ".npz" and path.is_file() and not _is_data_set(path):
        return Scored(path.absolute(), _has_labels(path), None, ())
    from kcost import data as sets

    sets.refuse_unknown(data)
    if model.artifact is not None and model.samples_file is not None and not _is_other(model, data):
        return Scored(None, True, data, ())
    loaded = sets.load(data)
    _refuse_texts_without_vocabulary(model, loaded)
    taken = _taken(model, data, loaded, seed, SAMPLES, out / DATA_FILE, take)
    scale = "" if taken.pixels is None else f" {taken.pixels}."
    notice = f"Scored on {taken.examples} of {taken.total:,} test {taken.unit} of {loaded.name}.{scale}"
    return Scored((out / DATA_FILE).absolute(), True, data, (notice,))


def _refuse_texts_without_vocabulary(model: Model, loaded: Any) -> None:
    from kcost.data import TagSet, TextSet

    if model.artifact is None and isinstance(loaded, TagSet | TextSet):
        raise InputError(
            "A model of texts is scored with its own vocabulary, which its artifact folder holds.",
            received=f"the bare file {model.keras_file}",
            remedy="Give the artifact folder, or an .npz file with the tokens of each input and `labels`.",
        )


class _Taken(NamedTuple):
    """Test examples that were written as cells are fed them."""

    examples: int
    total: int
    unit: str
    pixels: str | None
    """What is to be said of the scale of their pixels."""


def _taken(model: Model, name: str, loaded: Any, seed: int, count: int, file: Path, take: Take | None) -> _Taken:
    """Writes so many test examples, drawn by the seed; more of them hold all that fewer do.

    Arrays, and images in a scale that the artifact remembers, need no worker.
    """
    from kcost.data import ArraySet, ImageSet
    from kcost.data.pixels import scaled

    remembered = None if model.artifact is None else model.artifact.pixels
    in_here = isinstance(loaded, ArraySet) or (
        isinstance(loaded, ImageSet) and (take is None or remembered is not None)
    )
    if not in_here:
        if take is None:
            raise InputError("Texts are cut by a worker.", f"{loaded.name} and no backend", "Name one with --backends.")
        made = _once(model, name, loaded, seed, count, file, take)
        return _Taken(made.written, made.total, made.unit, made.pixels)
    total = len(loaded.splits["test"])
    chosen = chosen_rows(total, count, seed)
    if isinstance(loaded, ImageSet):
        images = (loaded if remembered is None else scaled(loaded, remembered)).splits["test"]
        _write(file, {"x": images.x[chosen], "labels": images.y[chosen]})
        guess = "Pixels were fed in 0 to 1, as nothing says how the model takes them" if remembered is None else None
        return _Taken(len(chosen), total, "examples", guess)
    rows = loaded.splits["test"]
    labels = {"labels" if not n or len(rows.y) == 1 else f"labels/{n}": y[chosen] for n, y in rows.y.items()}
    _write(file, {**{name or "x": x[chosen] for name, x in rows.x.items()}, **labels})
    return _Taken(len(chosen), total, "examples", None)


class _Written(Record):
    """What a file of examples holds, beside it: the same need not be written again."""

    model_sha256: str
    seed: int
    count: int
    answer: ExamplesAnswer


def _once(model: Model, name: str, loaded: Any, seed: int, count: int, file: Path, take: Take) -> ExamplesAnswer:
    """What a worker wrote into a file, now or in an earlier call."""
    index = file.with_suffix(".json")
    if file.is_file() and index.is_file():
        try:
            before = _Written.model_validate_json(index.read_bytes())
        except ValidationError:  # cut short, or of another version: made again
            before = None
        wanted = (model.sha256, seed, count, loaded.record.splits)
        if before is not None and wanted == (
            *(before.model_sha256, before.seed, before.count),
            before.answer.dataset.splits,
        ):
            return before.answer
    made = take(name, count, file)
    write_bytes(
        index, _Written(model_sha256=model.sha256, seed=seed, count=count, answer=made).model_dump_json().encode()
    )
    return made


def _write(file: Path, arrays: dict[str, np.ndarray]) -> None:
    """Writes a file with these arrays; one that holds them already is left as it is."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # numpy types its own flag into **kwds
    if not file.is_file() or file.read_bytes() != content.getvalue():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content.getvalue())


def has_more(model: Model, scored: Scored) -> bool:
    """Whether there may be more test examples than cells are fed."""
    if scored.file is not None and scored.name is None:
        return _rows_of(scored.file) > SAMPLES
    return scored.name is not None or (model.artifact is not None and model.artifact.dataset is not None)


def more_data(
    model: Model, scored: Scored, out: Path, seed: int, tell: Callable[[str], None], take: Take | None = None
) -> MoreData:
    """Where more test examples than the first 256 come from, if the data have them."""

    def more(count: int) -> MoreExamples | None:
        if not has_more(model, scored):
            return None
        if scored.file is not None and scored.name is None:
            return MoreExamples(scored.file, min(_rows_of(scored.file), count))
        from kcost import data as sets

        file = (out / MORE_DATA_FILE).absolute()
        try:
            name = sets.chosen(model, scored.name)
            loaded = sets.load(name)
            if len(loaded.splits["test"]) <= SAMPLES:
                return None
            taken = _taken(model, name, loaded, seed, count, file, take)
        except KcostError as error:  # what is known stays: it can't tell
            tell(f"no more examples are at hand: {error.rule} Received: {error.received}.")
            return None
        return MoreExamples(file, taken.examples, chosen_rows(taken.total, count, seed))

    return more


def test_examples(model: Model, scored: Scored, file: Path, seed: int, count: int, take: Take | None) -> MoreExamples:
    """Writes so many test examples of the data set of a recommendation, with their places in the split.

    Raises:
        KcostError: there is no data set, or it cannot be fed to the model.
    """
    from kcost import data as sets

    name = sets.chosen(model, scored.name)
    taken = _taken(model, name, sets.load(name), seed, count, file.absolute(), take)
    return MoreExamples(file.absolute(), taken.examples, chosen_rows(taken.total, count, seed))


def rescorer(folder: Path, plan: Plan, terms: Terms, more: MoreData, tell: Callable[[str], None]) -> Rescore:
    """Judges drops on more examples, below the folder of a recommendation."""
    from kcost.recommend.rescoring import MoreAnswers, rescored_drops
    from kcost.ship.convert import converted

    def rescore(candidates: Sequence[Candidate], count: int) -> dict[str, DropBound]:
        taken = more(count)
        if taken is None:
            return {}
        answers = MoreAnswers(
            plan, folder / RUN_FOLDER, folder / MORE_FOLDER, taken.file, taken.examples, converted, tell
        )
        return rescored_drops(candidates, terms, answers)

    return rescore


def _rows_of(file: Path) -> int:
    with np.load(file) as arrays:
        return len(arrays[arrays.files[0]])


def _names_of(path: Path) -> set[str]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name.removesuffix(".npy") for name in archive.namelist()}
    except zipfile.BadZipFile as error:
        rule = "Data are an .npz file or a data set."
        raise InputError(rule, f"{path}: {error}", "Name another with --data.") from error


def _is_data_set(path: Path) -> bool:
    return bool({name.partition("/")[0] for name in _names_of(path)} & DATA_SET_KEYS)


def _has_labels(path: Path) -> bool:
    return any(name.partition("/")[0] == "labels" for name in _names_of(path))


def _is_other(model: Model, data: str) -> bool:
    """Whether data are others than those that the artifact's samples are of."""
    record = None if model.artifact is None else model.artifact.dataset
    return record is None or (record.name != data and record.source != str(Path(data).absolute()))
