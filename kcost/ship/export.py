"""Exports a model to a folder that TensorFlow Serving serves, and proves that it still says the same.

    OUT/models.config, OUT/docker-compose.yaml      what starts the server
    OUT/NAME/VERSION/saved_model.pb, variables/     the model
    OUT/NAME/VERSION/assets.extra/                  requests that the server warms up with
    OUT/NAME/VERSION/RUNTIME/conversion.json, ...   the model for another runtime, which `kcost serve --backend` serves
    OUT/NAME/VERSION/export.json                    where it came from, and what was checked

It is written and checked as every conversion is (ship/convert.py). The version appears when all of this went well, in
one step, or not at all.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from kcost.core import schema
from kcost.core.artifact import Model, TensorSpec, new_folder, sha256_of
from kcost.core.conversion import (
    CONVERTED_IN,
    IMAGE_SIGNATURE,
    TEXT_SIGNATURE,
    LeftOut,
    OutputTemperature,
    Runtime,
    RuntimePrecision,
    ServingRequest,
    Tagging,
    require_precision,
)
from kcost.core.errors import InputError, StorageError, storage
from kcost.core.process import require
from kcost.core.progress import OnProgress, in_steps, silent
from kcost.core.serving import Batching
from kcost.ship.convert import convert, write_checked
from kcost.ship.export_report import REPORT_FILE, Beside, ExportReport
from kcost.ship.monitoring_files import REFERENCE_FILE
from kcost.ship.server_files import COMPOSE_FILE, SERVING_IMAGE, SERVING_VERSION, VERSION_BATCHING, version_batching
from kcost.ship.server_folder import write_server_files
from kcost.ship.version_labels import refuse_label

WARM_UP_BATCHES = (1, 8)
"""Batch sizes of the requests that a server warms up with, where nobody says what is in use."""

_LARGEST_VERSION = (1 << 63) - 1


def export(
    model: Model,
    out: Path,
    name: str,
    version: int,
    *,
    portable: bool = False,
    warm_up_batches: Sequence[int] = WARM_UP_BATCHES,
    batching: Batching | None = None,
    labels: Sequence[str] = (),
    temperature: OutputTemperature | None = None,
    to: Mapping[Runtime, RuntimePrecision] | None = None,
    watching: Mapping[str, str] | None = None,
    log: Path | None = None,
    on_progress: OnProgress = silent,
) -> ExportReport:
    """Exports a model as `out`/`name`/`version` and lists it in `out`/models.config.

    Args:
        model: functional or Sequential, with a free batch axis and dense inputs.
        out: holds any number of models; it is made where it is not there.
        name: letters, digits, `_` and `-`; what requests call the model.
        version: a positive integer; TensorFlow Serving serves the largest one.
        portable: public operations of TensorFlow only. int8 encoder blocks are slower then, and run on servers
            without oneDNN or x86, too.
        warm_up_batches: batch sizes of the requests that the server answers before it serves the version.
        batching: how the server puts requests together; None: not at all. Their batch sizes are warmed up, too.
        labels: that name this version in models.config, such as `stable`.
        temperature: that probabilities are put at; what is checked is the model with it.
        to: runtimes that the model is converted to as well, each with its precision, in folders of the version.
        watching: path below `out` -> text, of alert rules and dashboards for what the proxy tells.
        log: takes what the processes print; None keeps it until they end well.
        on_progress: told of each step as it begins: a file is written, and then checked.

    Raises:
        InputError: a name, version or batch size of another form.
        UnavailableError: tensorflow is not installed, or what a runtime of `to` needs, or it has no such precision.
        ArtifactError: the model cannot be loaded or exported.
        StorageError: the version is there already, or `out` cannot be written to.
        GateError: the SavedModel does not give the model's outputs. Nothing is left behind.
    """
    out = Path(out)
    _refuse_name(name, version)
    batches = _sorted_batches((*warm_up_batches, *(() if batching is None else batching.allowed_batch_sizes)))
    for label in labels:
        refuse_label(label)
    require("tensorflow")
    for runtime, precision in (to or {}).items():
        require_precision(runtime, precision)
        require(CONVERTED_IN[runtime])
    total = 2 * (1 + len(to or {}))
    target = out / name / str(version)
    _refuse_existing(target)
    with _locked(out, name):
        _refuse_existing(target)  # again, now that nobody else exports here
        _remove_drafts(target)
        with new_folder(target) as draft:
            report = _write_and_check(
                *(model, draft, name, version, portable, batches, batching, temperature, to or {}, log),
                in_steps(on_progress, total),
            )
            schema.write(draft / REPORT_FILE, report)
        try:
            warnings = write_server_files(out, name, version, labels, watching)
        except BaseException:
            shutil.rmtree(target)
            raise
    on_progress(total, total, f"done: {target}")
    return report.model_copy(update={"warnings": (*report.warnings, *warnings)})


def _write_and_check(
    model: Model,
    draft: Path,
    name: str,
    version: int,
    portable: bool,
    warm_up_batches: tuple[int, ...],
    batching: Batching | None,
    temperature: OutputTemperature | None,
    to: Mapping[Runtime, RuntimePrecision],
    log: Path | None,
    tell: Callable[[str], None],
) -> ExportReport:
    serving, left_out = _serving_request(model, name, warm_up_batches)
    written, checked = write_checked(
        model,
        "saved_model",
        "float32",
        draft.absolute(),
        portable=portable,
        temperature=temperature,
        serving=serving,
        log=log,
        tell=tell,
    )
    if batching is not None and (reason := _not_batched(written.inputs)) is not None:
        batching, left_out = None, (*left_out, LeftOut(what=VERSION_BATCHING, reason=reason))
    if batching is not None:
        schema.write_bytes(draft / VERSION_BATCHING, version_batching(batching).encode())
    reference, warning = _reference(model)
    if reference is not None:
        schema.write_bytes(draft / REFERENCE_FILE, reference)
    beside = []
    for runtime, precision in to.items():
        made = convert(model, runtime, precision, draft / runtime, temperature=temperature, log=log, tell=tell)
        beside.append(
            Beside(
                runtime=runtime,
                precision=precision,
                file=f"{runtime}/{made.file}",
                file_bytes=made.file_bytes,
                relative_error=made.relative_error,
            )
        )
    tensorflow_version = written.versions["tensorflow"]
    return ExportReport(
        name=name,
        version=version,
        model=model.name,
        model_sha256=model.sha256,
        inputs=_specs(written.inputs),
        outputs=_specs(written.outputs),
        checks=checked.checks,
        weights_bytes=written.weights_bytes,
        keras_version=written.versions["keras"],
        tensorflow_version=tensorflow_version,
        library_version=checked.runtime_version,
        serving_image=SERVING_IMAGE,
        files={str(p.relative_to(draft)): sha256_of(p) for p in sorted(draft.rglob("*")) if p.is_file()},
        created_at=datetime.now(UTC).isoformat(timespec="seconds"),
        internal_operations=written.internal_operations,
        signatures=() if checked.serving is None else checked.serving.signatures,
        left_out=(*left_out, *written.serving.left_out),
        warm_up_batches=written.serving.warm_up_batches,
        peak_bytes=None if checked.serving is None else checked.serving.peak_bytes,
        batching=batching,
        beside=tuple(beside),
        temperature=None if temperature is None else temperature.value,
        warnings=(
            *_warnings(tensorflow_version),
            *_operation_warnings(written.internal_operations, written.int8_operations, written.plain_blocks),
            *warning,
        ),
    )


def _reference(model: Model) -> tuple[bytes | None, tuple[str, ...]]:
    """What live traffic is held against, where the artifact has one of this very model; else what to do about it."""
    file = model.keras_file.parent / REFERENCE_FILE
    if model.artifact is None or not file.is_file():
        return None, ()
    content = file.read_bytes()
    try:
        fits = json.loads(content)["model_sha256"] == model.sha256
    except (ValueError, TypeError, KeyError):
        fits = False
    if fits:
        return content, ()
    text = f"{file} is of another model and was left out: kcost monitor reference makes it anew."
    return None, (text,)


def _serving_request(
    model: Model, name: str, warm_up_batches: tuple[int, ...]
) -> tuple[ServingRequest, tuple[LeftOut, ...]]:
    """What the model takes beside arrays as far as its artifact says, and what the artifact says too little for."""
    about = model.artifact
    plain = ServingRequest(name=name, warm_up_batches=warm_up_batches)
    if about is not None and about.task == "image-classification":
        if about.pixels is None:
            return plain, (LeftOut(what=IMAGE_SIGNATURE, reason="an artifact that does not say how it takes pixels"),)
        return plain.model_copy(update={"pixels": about.pixels}), ()
    if about is not None and about.task == "token-classification":
        if about.training is None or not about.label_names:
            return plain, (LeftOut(what=TEXT_SIGNATURE, reason="an artifact without its tags or its training"),)
        tagging = Tagging(
            folder=model.keras_file.parent.absolute(),
            tag_names=about.label_names,
            max_length=int(about.training.settings["max_length"]),
        )
        return plain.model_copy(update={"tagging": tagging}), ()
    return plain, ()


def _sorted_batches(batches: Sequence[int]) -> tuple[int, ...]:
    if not batches or min(batches) < 1:
        raise InputError(
            "A server warms up with requests of at least one row.",
            received=", ".join(map(str, batches)) or "no batch size",
            remedy=f"Name batch sizes from 1 on; without any they are {', '.join(map(str, WARM_UP_BATCHES))}.",
        )
    return tuple(sorted(set(batches)))


def _specs(tensors: Sequence[TensorSpec]) -> tuple[TensorSpec, ...]:
    """What a server is asked for: names in the signature, not those in Keras."""
    return tuple(TensorSpec(name=t.name, shape=t.shape, dtype=t.dtype) for t in tensors)


def _operation_warnings(
    internal: Sequence[str], int8: Sequence[str], plain: Sequence[tuple[str, str]]
) -> tuple[str, ...]:
    """Warns of a graph that other builds refuse or other CPUs run wrongly, and of blocks that could be faster."""
    warnings = []
    if internal:
        warnings.append(
            f"The graph uses {', '.join(internal)}, which TensorFlow has where it is built with oneDNN for x86 (its "
            "wheels are). A server of another kind refuses to load it: export a portable version for that one."
        )
    if int8:
        warnings.append(
            f"Its int8 products ({', '.join(int8)}) are exact on CPUs with VNNI or AMX alone. Elsewhere a server "
            "answers wrongly and says nothing, but for `kcost serve`, which refuses the model: export a portable "
            "version for such machines."
        )
    if plain:
        layer, reason = plain[0]
        warnings.append(f"{len(plain)} fused layers are in their plain, slower form, {layer!r} among them: {reason}.")
    return tuple(warnings)


def _warnings(tensorflow_version: str) -> tuple[str, ...]:
    """Warns where the server is older than the TensorFlow that wrote the graph."""
    written, served = ([int(part) for part in v.split(".")[:2]] for v in (tensorflow_version, SERVING_VERSION))
    if written <= served:
        return ()
    return (
        f"TensorFlow {tensorflow_version} wrote the model, and TensorFlow Serving {SERVING_VERSION} is older: it may "
        f"refuse the graph. Set a later image in {COMPOSE_FILE}, or export with tensorflow=={SERVING_VERSION}.",
    )


def _refuse_name(name: str, version: int) -> None:
    if re.fullmatch(r"[A-Za-z0-9_-]+", name) is None:
        raise InputError(
            "The name of a served model is made of letters, digits, `_` and `-`.",
            received=repr(name),
            remedy="It becomes a folder and a part of the URL: /v1/models/NAME:predict",
        )
    if isinstance(version, bool) or not isinstance(version, int) or not 1 <= version <= _LARGEST_VERSION:
        raise InputError(
            "The version of a served model is a positive integer.",
            received=repr(version),
            remedy="TensorFlow Serving serves the largest version that it finds.",
        )


def _refuse_existing(target: Path) -> None:
    if target.exists():
        versions = [int(p.name) for p in target.parent.iterdir() if p.name.isdecimal()]
        raise StorageError(
            "kcost never overwrites a version: a server may be serving it.",
            received=f"{target}, which is there already",
            remedy=f"Export it as version {max(versions) + 1}, or remove that one first.",
        )


@contextlib.contextmanager
def _locked(out: Path, name: str) -> Iterator[None]:
    """Makes the folders and keeps other exports out; takes back the folders that stayed empty after a failure."""
    made = [folder for folder in (out / name, out, *out.parents) if not folder.exists()]
    try:
        with storage(out):
            (out / name).mkdir(parents=True, exist_ok=True)
            handle = os.open(out, os.O_RDONLY)
        try:
            with storage(out):
                fcntl.flock(handle, fcntl.LOCK_EX)
            yield
        finally:
            os.close(handle)
    except BaseException:
        for folder in made:
            with contextlib.suppress(OSError):  # not empty: somebody else put something there meanwhile
                folder.rmdir()
        raise


def _remove_drafts(target: Path) -> None:
    """Removes what an export of the same version left that was killed: the lock says that none is running."""
    for draft in target.parent.glob(f".{target.name}.*"):
        shutil.rmtree(draft)


def _not_batched(inputs: Sequence[TensorSpec]) -> str | None:
    """Why requests to a model are not put together by TensorFlow Serving; None where they can be."""
    free = [tensor.name for tensor in inputs if None in tensor.shape[1:]]
    if not free:
        return None
    return (
        f"{', '.join(free)} of free lengths, which the server would make alike by repeating the first value: padding "
        "would become tokens"
    )
