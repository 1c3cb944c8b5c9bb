"""The models that a plan names: opened before anything starts, the cells over them, and what a run keeps of each."""

from __future__ import annotations

import zipfile
from pathlib import Path

from kcost.core.artifact import Model, Step, open_model, sha256_of
from kcost.core.errors import InputError
from kcost.core.keras_file import inspect_keras_file
from kcost.core.plan import CellSpec, Plan, Settings, expand
from kcost.core.process import require
from kcost.core.request import MeasureRequest
from kcost.core.result import ModelEntry
from kcost.core.saved_policy import saved_policy


def open_models(plan: Plan) -> dict[str, Model]:
    """The models of a plan by name, with its data in the place of their own samples where it names some.

    Raises:
        ArtifactError: a model is not there, is damaged, or holds what is never loaded: told before a framework starts.
        InputError: two have one name, or the data are no npz file.
    """
    for backend in plan.backends:
        require(backend)
    data = None if plan.data is None else _data_file(plan.data)
    models: dict[str, Model] = {}
    for path in plan.models:
        model = open_model(path).model_copy(update={"data_file": data})
        if model.name in models:
            raise InputError(
                "The models of a run have different names.",
                received=f"{models[model.name].keras_file} and {model.keras_file}, both named {model.name!r}",
                remedy="Train with another --name, or rename the .keras file.",
            )
        models[model.name] = model
    if "fake" not in plan.backends:  # whose model files are no archives
        for model in models.values():
            inspect_keras_file(model.keras_file)
    return models


def _data_file(name: str) -> Path:
    path = Path(name)
    if not (path.is_file() and zipfile.is_zipfile(path)):
        raise InputError(
            "Data to measure on are an npz file: an array for each input, by its name, and `labels` where known.",
            received=f"{path}, which is {'another file' if path.is_file() else 'not there'}",
            remedy="Write one: numpy.savez(FILE, **{name: array of rows}, labels=class numbers).",
        )
    return path.absolute()


def specs_of(plan: Plan, models: dict[str, Model]) -> tuple[CellSpec, ...]:
    """The cells of a plan over the models that `open_models` gave. Raises PlanError as `expand` does."""
    data = next((m.data_file for m in models.values()), None)
    digest = None if data is None else sha256_of(data)
    return expand(plan, {n: m.sha256 for n, m in models.items()}, digest, saved_policies(models))


def saved_policies(models: dict[str, Model]) -> dict[str, str]:
    """The dtype policies of those models that were saved under another than float32."""
    return {name: policy for name, m in models.items() if (policy := saved_policy(m.keras_file)) is not None}


def request_for(spec: CellSpec, model: Model, settings: Settings, folder: Path) -> MeasureRequest:
    """What a worker needs to get a cell ready; it writes what the model answers into `folder`."""
    return MeasureRequest(
        spec=spec,
        outputs=() if spec.backend == "fake" else model.output_facts(),
        settings=settings,
        keras_file=model.keras_file.absolute(),
        samples_file=model.samples_file.absolute() if model.samples_file else None,
        outputs_file=(folder / f"{spec.cell_id}.npz").absolute(),
    )


def entry_of(model: Model) -> ModelEntry:
    """What the index of a run keeps of a model."""
    about = model.artifact
    data = about.dataset if about else None
    trained = about.training if about else None
    own = model.data_file
    once_s, epoch_s = _beside_steps(trained)
    return ModelEntry(
        name=model.name,
        path=str(model.keras_file),
        sha256=model.sha256,
        task=model.task,
        dataset=own.name if own else data.name if data else None,
        synthetic_data=False if own else data.synthetic if data else True,
        label_names=about.label_names if about else (),
        train_examples=data.splits["train"].count if data and "train" in data.splits else None,
        train_epochs=int(trained.settings["epochs"]) if trained and "epochs" in trained.settings else None,
        train_once_s=once_s,
        train_epoch_s=epoch_s,
        data_sha256=None if own is None else sha256_of(own),
    )


def _beside_steps(trained: Step | None) -> tuple[float | None, float | None]:
    """Seconds of a training before its steps, and of an epoch beside them; None where nobody measured them, or where
    the training was cut short and what was measured is of its last part alone."""
    if trained is None or trained.cost is None or not trained.cost.parts_s:
        return None, None
    if any(what.startswith("resumed") for what in trained.changed):
        return None, None
    parts_s, epochs = trained.cost.parts_s, int(trained.settings["epochs"])
    return parts_s["reading"] + parts_s["starting"], (parts_s["evaluating"] + parts_s["saving"]) / max(1, epochs)
