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

from kcost.core import environment
from kcost.core.artifact import SAMPLES, Model
from kcost.core.conversion import RUNTIMES, Runtime
from kcost.core.errors import InputError, KcostError
from kcost.core.plan import BACKENDS, Backend
from kcost.core.process import installed, require
from kcost.core.schema import write_bytes
from kcost.recommend.candidates import Candidate, Machine

if TYPE_CHECKING:
    from kcost.core.plan import Plan
    from kcost.recommend.drop import DropBound
    from kcost.recommend.measuring import Rescore
    from kcost.recommend.terms import Terms

RUN_FOLDER, MORE_FOLDER = "run", "more-examples"
DATA_FILE, MORE_DATA_FILE = "data.npz", "more-data.npz"

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


class MoreExamples(NamedTuple):
    """Examples that a lower precision is judged on where the first ones did not decide."""

    file: Path
    examples: int


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
        cores=here.cores,
        cpu_features=here.cpu_features,
        compiler=bool(shutil.which("g++") or shutil.which("clang++")),
    )


def scored_data(model: Model, data: str | None, out: Path, seed: int) -> Scored:
    """The data as cells take them: of a data set up to 256 test examples, drawn by the seed, written below `out`.

    Raises:
        InputError: texts for a model without a vocabulary, or an unknown data set.
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
    taken = _taken(model, loaded, seed, SAMPLES)
    if taken is not None:
        count, total = len(taken.rows), len(loaded.splits["test"])
        notices: tuple[str, ...] = (f"Scored on {count} of {total:,} test examples of {loaded.name}.",)
        if taken.pixels_guessed:
            notices += ("Pixels were fed in 0 to 1, as nothing says how the model takes them.",)
    elif model.samples_file is not None:
        notices = ("Texts were scored on the artifact's own held-out samples, which hold its tokens.",)
        return Scored(None, True, data, notices)
    else:
        raise InputError(
            "A model of texts is scored with its own vocabulary, which its artifact folder holds.",
            received=f"the bare file {model.keras_file}",
            remedy="Give the artifact folder, or an .npz file with the tokens of each input and `labels`.",
        )
    return Scored(_written(taken.arrays, out / DATA_FILE), True, data, notices)


class _Taken(NamedTuple):
    """Test examples as cells are fed them."""

    arrays: dict[str, np.ndarray]
    rows: np.ndarray
    """Their places in the split."""
    pixels_guessed: bool


def _taken(model: Model, loaded: Any, seed: int, count: int) -> _Taken | None:
    """So many test examples, drawn by the seed; more of them hold all that fewer do. None for texts."""
    from kcost.data import ArraySet, ImageSet
    from kcost.data.pixels import scaled

    chosen = np.sort(np.random.default_rng(seed).permutation(len(loaded.splits["test"]))[:count])
    if isinstance(loaded, ImageSet):
        remembered = None if model.artifact is None else model.artifact.pixels
        images = (loaded if remembered is None else scaled(loaded, remembered)).splits["test"]
        return _Taken({"x": images.x[chosen], "labels": images.y[chosen]}, chosen, remembered is None)
    if isinstance(loaded, ArraySet):
        rows = loaded.splits["test"]
        labels = {"labels" if not n or len(rows.y) == 1 else f"labels/{n}": y[chosen] for n, y in rows.y.items()}
        return _Taken({**{name or "x": x[chosen] for name, x in rows.x.items()}, **labels}, chosen, False)
    return None


def _written(arrays: dict[str, np.ndarray], file: Path) -> Path:
    """The file with these arrays; one that holds them already is left as it is."""
    content = io.BytesIO()
    np.savez(content, **arrays)  # type: ignore[arg-type]  # numpy types its own flag into **kwds
    if not file.is_file() or file.read_bytes() != content.getvalue():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, content.getvalue())
    return file.absolute()


def more_data(model: Model, scored: Scored, out: Path, seed: int, tell: Callable[[str], None]) -> MoreData:
    """Where more test examples than the first 256 come from, if the data have them."""

    def more(count: int) -> MoreExamples | None:
        if scored.file is not None and scored.name is None:
            rows = _rows_of(scored.file)
            return MoreExamples(scored.file, min(rows, count)) if rows > SAMPLES else None
        if scored.name is None and (model.artifact is None or model.artifact.dataset is None):
            return None
        from kcost import data as sets

        try:
            taken = _taken(model, sets.load(sets.chosen(model, scored.name)), seed, count)
        except KcostError as error:  # what is known stays: it can't tell
            tell(f"no more examples are at hand: {error.rule} Received: {error.received}.")
            return None
        if taken is None or len(taken.rows) <= SAMPLES:
            return None
        return MoreExamples(_written(taken.arrays, out / MORE_DATA_FILE), len(taken.rows))

    return more


def rescorer(folder: Path, plan: Plan, terms: Terms, more: MoreData, tell: Callable[[str], None]) -> Rescore:
    """Judges drops on more examples, below the folder of a recommendation."""
    from kcost.recommend.rescoring import rescored_drops
    from kcost.ship.convert import converted

    def rescore(candidates: Sequence[Candidate], count: int) -> dict[str, DropBound]:
        taken = more(count)
        if taken is None:
            return {}
        return rescored_drops(
            candidates, plan, terms, folder / RUN_FOLDER, folder / MORE_FOLDER,
            data=taken.file, count=taken.examples, converted=converted, tell=tell,
        )  # fmt: skip

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
