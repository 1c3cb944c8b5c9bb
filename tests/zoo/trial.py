"""What kcost makes of a specimen, mode by mode: right, refused by name, wrong, or a traceback."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import keras
import numpy as np

from kcost.backends import driver
from kcost.backends.base import arrange
from kcost.core.conversion import ConversionCheckRequest, ConvertRequest
from kcost.core.errors import KcostError
from kcost.core.measuring import (
    FailureAnswer,
    MeasureAnswer,
    MeasureOperation,
    PrepareRequest,
    ReleaseRequest,
    RoundRequest,
)
from kcost.core.plan import INFERENCE_METHODS, CellSpec, Settings
from kcost.core.request import MeasureRequest
from kcost.models.loading import load_keras_file
from kcost.optimize.coverage import Coverage
from kcost.optimize.quantization import quantize
from kcost.worker import measure

from .specimens import Specimen
from .table import MODES, Row

if TYPE_CHECKING:
    from .conftest import ExportWorkers

SAME = 1e-6
"""Largest difference of outputs that the same layers compute in float32; beyond 1, in parts of the largest output."""


class Tolerances(NamedTuple):
    """How far a model's outputs may be from plain Keras's."""

    float32: float
    """Largest difference, as of SAME, where another program or backend computes them."""
    bfloat16: float
    """Root mean square of the difference, in parts of that of the outputs."""
    int8: float
    """The same."""


ONE_LAYER = Tolerances(float32=1e-5, bfloat16=2e-2, int8=5e-2)
DEEP = Tolerances(float32=1e-4, bfloat16=0.1, int8=0.25)
"""Of many layers with random weights, where roundings add up."""
MIXTURE = DEEP._replace(bfloat16=0.15)
"""Of Mixtral, whose router in bfloat16 sends some tokens to other experts, with other weights: 0.123 was seen."""

SETTINGS = Settings(rounds=1, round_s=1e-4, warmup_s=0, warmup_max_s=0)


class Shown(NamedTuple):
    """A specimen in files, with the outputs of plain Keras."""

    name: str
    layers: tuple[str, ...]
    """Names that a refusal may tell."""
    file: Path
    inputs: dict[str, np.ndarray]
    expected: list[np.ndarray]


class WrongError(Exception):
    """Other outputs than plain Keras has."""


def show(name: str, specimen: Specimen, folder: Path) -> Shown:
    """Saves a specimen, and what plain Keras answers."""
    file = folder / "model.keras"
    specimen.model.save(file)
    expected = outputs_of(specimen.model, specimen.inputs)
    np.savez(folder / "inputs.npz", **specimen.inputs)
    np.savez(folder / "expected.npz", *expected)
    (folder / "specimen.json").write_text(json.dumps({"name": name, "layers": specimen.layers}))
    return Shown(name, specimen.layers, file, specimen.inputs, expected)


def shown(folder: Path) -> Shown:
    """A specimen that `show` saved, perhaps in another process."""
    about = json.loads((folder / "specimen.json").read_text())
    with np.load(folder / "inputs.npz") as inputs, np.load(folder / "expected.npz") as expected:
        return Shown(**about, file=folder / "model.keras", inputs=dict(inputs), expected=list(expected.values()))


class Trial:
    """One specimen on this process's backend."""

    def __init__(
        self, subject: Shown, workers: ExportWorkers | None = None, tolerances: Tolerances = ONE_LAYER
    ) -> None:
        self.subject = subject
        self.tolerances = tolerances
        self.backend = keras.backend.backend()
        self.folder = subject.file.parent
        self.workers = workers

    def rows(self, modes: Iterable[str] = MODES) -> list[Row]:
        """How each mode ends."""
        return [self.row(mode) for mode in modes]

    def row(self, mode: str) -> Row:
        """How one mode ends: whatever is raised on the way is an outcome."""
        try:
            form, note = self._run(mode)
        except KcostError as error:
            named = any(layer in str(error) for layer in self.subject.layers)
            reason = str(error.rule if error.received is None else error.received).splitlines()[0]
            reason = reason.replace(f"{self.folder}/", "")
            return self._row(mode, "refused" if named else "wrong", "" if named else "refused without a name: ", reason)
        except WrongError as error:
            return self._row(mode, "wrong", "", str(error))
        except Exception as error:  # what is not one of kcost's own errors is what this looks for
            frames = traceback.extract_tb(error.__traceback__)
            own = [f"{Path(f.filename).name}:{f.lineno}" for f in frames if "kcost" in Path(f.filename).parts]
            reason = " ".join(str(error).split())[:300]
            return self._row(mode, "traceback", "", f"{type(error).__name__}: {reason} ({', '.join(own[-2:])})")
        return Row(self.subject.name, self.backend, mode, "right", form, note)

    def _row(self, mode: str, outcome: str, prefix: str, reason: str) -> Row:
        return Row(self.subject.name, self.backend, mode, outcome, "", prefix + reason)

    def _run(self, mode: str) -> tuple[str, str]:
        if mode == "load":
            self._agrees(outputs_of(load_keras_file(self.subject.file), self.subject.inputs), "float")
            return "float", ""
        if mode in ("float32", "bfloat16"):
            self._measured(mode)
            return ("float" if mode == "float32" else "bfloat16"), ""
        if mode.startswith("quantize "):
            return self._quantized(mode.removeprefix("quantize "))
        return self._exported(mode)

    def _agrees(self, actual: Sequence[np.ndarray], form: str, expected: Sequence[np.ndarray] | None = None) -> None:
        """Holds outputs against plain Keras's by what computed them: float, int8 or bfloat16."""
        expected = self.subject.expected if expected is None else expected
        if form == "float":
            agree(actual, expected, self.tolerances.float32)
        else:
            agree(actual, expected, mean=getattr(self.tolerances, form))

    def _measured(self, precision: str) -> None:
        """One bench round; in float32 with inputs that kcost makes up, as for a bare file."""
        outputs = self.folder / "outputs.npz"
        samples = self.folder / "inputs.npz"
        rows = len(next(iter(self.subject.inputs.values())))
        spec = CellSpec(
            model="specimen",
            model_sha256="0" * 64,
            backend=self.backend,
            device="cpu",
            precision=precision,
            batch=rows,
            phase="inference",
            method=INFERENCE_METHODS[self.backend][0],
            threads=1,
        )
        request = MeasureRequest(
            spec=spec,
            settings=SETTINGS,
            keras_file=self.subject.file,
            samples_file=None if precision == "float32" else samples,
            outputs_file=outputs,
        )
        try:
            measured(PrepareRequest(request=request))
            measured(RoundRequest(cell_id=spec.cell_id, round_s=1e-4))
            inputs = measure._subjects[spec.cell_id][1].batches[0]
            with np.load(outputs) as stored:
                of_backend = stored["outputs"][:rows]
        finally:
            measure.run(ReleaseRequest())
        plain = outputs_of(load_keras_file(self.subject.file), inputs)[0]
        self._agrees([of_backend], "float" if precision == "float32" else "bfloat16", [plain])

    def _quantized(self, mode: str) -> tuple[str, str]:
        model = load_keras_file(self.subject.file)
        calibration = self.subject.inputs if mode == "static" else None
        new, coverage = quantize(model, mode, calibration, measure=False)  # type: ignore[arg-type]  # one of the modes
        form, note = _form(new, coverage)
        outputs = outputs_of(new, self.subject.inputs)
        self._agrees(outputs, form)
        file = self.folder / f"{mode}.keras"
        new.save(file)
        agree(outputs_of(load_keras_file(file), self.subject.inputs), outputs)
        return form, note

    def _exported(self, mode: str) -> tuple[str, str]:
        assert self.workers is not None, "a trial that exports is given workers"
        file, form, note = self.subject.file, "float", ""
        if mode == "export int8":
            file = self.folder / "dynamic.keras"
            new, coverage = quantize(load_keras_file(self.subject.file), "dynamic", measure=False)
            form, note = _form(new, coverage)
            new.save(file)
        path, probes = self.folder / mode, self.folder / f"probes {mode}"
        path.mkdir()
        probes.mkdir()
        request = ConvertRequest(
            keras_file=file,
            runtime="saved_model",
            precision="float32",
            path=path,
            samples_file=self.folder / "inputs.npz",
            probes=probes,
        )
        written = self.workers.export.ask(request)
        self.workers.check.ask(
            ConversionCheckRequest(
                path=path,
                runtime=request.runtime,
                precision=request.precision,
                inputs=written.inputs,
                outputs=written.outputs,
                probes=written.probes,
            )
        )
        # Probes differ in the lengths of free axes; one has those of the specimen's own inputs.
        own = sorted(array.shape[1:] for array in self.subject.inputs.values())
        for written_probe in reversed(written.probes):
            with np.load(written_probe.file) as probe:
                if sorted(probe[f"input/{spec.name}"].shape[1:] for spec in written.inputs) == own:
                    answered = [probe[f"output/{spec.name}"] for spec in written.outputs]
                    self._agrees(answered, form, [y[: written_probe.batch] for y in self.subject.expected])
                    return form, note
        raise WrongError("no probe of the SavedModel has the lengths of the specimen's inputs")


def measured(request: MeasureOperation) -> MeasureAnswer:
    """The measuring worker's answer; a failure of the cell's own is raised."""
    answer = measure.run(request)
    if isinstance(answer, FailureAnswer):
        raise RuntimeError(f"{answer.status}: {answer.reason}")
    return answer


def outputs_of(model: keras.Model, inputs: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """The outputs of a model that is called as Keras's users do; bfloat16 as float32."""
    own = driver(keras.backend.backend())
    if own.name == "jax":  # which would compile each operation by itself
        return own.to_host(own.compile_forward(model, "jit")(dict(inputs)))
    return own.to_host(model(arrange(model, dict(inputs)), training=False))


def agree(
    actual: Sequence[np.ndarray], expected: Sequence[np.ndarray], largest: float = SAME, *, mean: float | None = None
) -> None:
    """Raises WrongError where outputs differ by more than a tolerance; what is no float has to be the same.

    Args:
        largest: of the differences; beyond 1, in parts of the largest output.
        mean: in place of it, of the root mean square of the differences, in parts of that of the outputs.
    """
    if [a.shape for a in actual] != [a.shape for a in expected]:
        raise WrongError(f"shapes {[a.shape for a in actual]} where plain Keras has {[a.shape for a in expected]}")
    for one, other in zip(actual, expected, strict=True):
        if other.dtype.kind != "f" or one.dtype.kind != "f":
            if not np.array_equal(one, other):
                raise WrongError(f"{int((one != other).sum())} of {other.size} values are others than plain Keras's")
            continue
        difference = np.abs(one.astype(np.float64) - other)
        if mean is None:
            error, allowed = float(difference.max(initial=0)) / max(1.0, float(np.abs(other).max(initial=0))), largest
        else:
            size = float(np.sqrt(np.mean(np.square(other, dtype=np.float64))))
            error, allowed = float(np.sqrt(np.mean(np.square(difference)))) / (size or 1.0), mean
        if not error <= allowed:  # a NaN is never within
            raise WrongError(f"off by {error:.3g}, where {allowed:g} is allowed")


def _form(model: keras.Model, coverage: Coverage) -> tuple[str, str]:
    """What became of the layers, and why those that did not change did not."""
    notes = "; ".join(dict.fromkeys(change.what for change in coverage.skipped))
    if any("int8" in change.what for change in coverage.changed):
        return "int8", notes
    if any("bfloat16" in change.what for change in coverage.changed):
        return "bfloat16", notes
    rounded = any(layer.compute_dtype == "bfloat16" for layer in model._flatten_layers())
    return ("bfloat16" if rounded else "float"), notes
