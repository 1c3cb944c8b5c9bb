"""Cheaper versions of a model for its recommendation: which can be made, and making them."""

from __future__ import annotations

import shutil
from pathlib import Path

from kcost.api.inventory import prices
from kcost.api.recommend_data import Scored
from kcost.core import environment, schema
from kcost.core.artifact import Model, open_model
from kcost.core.jobs import OPTIMIZE
from kcost.core.keras_file import read_members
from kcost.core.plan import Backend
from kcost.core.process import run_job
from kcost.core.request import OptimizeRequest, checked
from kcost.recommend.bounds import BYTES_A_WEIGHT, Work
from kcost.recommend.candidates import MAKING_S
from kcost.recommend.flops import flops_of_convolutions, flops_per_example, weights_of_products
from kcost.recommend.making import Make
from kcost.recommend.variants import VARIANTS, MadeVariant, Variant

VARIANTS_FOLDER = "variants"

EPOCHS = 3
"""Of fine-tuning."""

START_S = 20.0
"""Of a worker, and of answering the test split before and after."""


def work_of(keras_file: Path) -> Work:
    """What a forward pass has to do, as the file tells it."""
    config = read_members(keras_file)[0]
    weights = weights_of_products(config)
    weight_bytes = int(weights * BYTES_A_WEIGHT["float32"])
    return Work(float(flops_per_example(config)), weight_bytes, float(flops_of_convolutions(config)))


def variants_of(model: Model, scored: Scored) -> tuple[tuple[Variant, ...], str]:
    """The versions that can be made of a model: all, or none with the reason."""
    if scored.file is not None and scored.name is None:
        return (), "--data holds what cells are fed, and no training data: name a data set"
    if scored.name is None and (model.artifact is None or model.artifact.dataset is None):
        return (), "no labelled training data: name a data set with --data"
    return VARIANTS, ""


def making_seconds(model: Model) -> float:
    """What making a version takes, from what an epoch of the model's training took; a guess where that is not known."""
    steps = () if model.artifact is None else model.artifact.steps
    epochs_s = [s.cost.wall_s / int(s.settings["epochs"]) for s in steps if s.cost and s.settings.get("epochs")]
    return START_S + EPOCHS * epochs_s[0] if epochs_s else MAKING_S


def made_variants(model: Model, folder: Path) -> dict[str, MadeVariant]:
    """The versions that lie in the folder of a recommendation, of this very file of the model, by variant."""
    made = {}
    for variant in VARIANTS:
        path = folder / VARIANTS_FOLDER / f"{variant.slug}.json"
        if path.is_file():
            version = schema.read("variant", path, MadeVariant)
            if version.of_sha256 == model.sha256 and (folder / version.folder).is_dir():
                made[variant.name] = version
    return made


def maker(model: Model, scored: Scored, folder: Path, backend: Backend, seed: int) -> Make:
    """Makes versions below the folder of a recommendation, in workers of a backend."""

    def make(variant: Variant, timeout_s: float) -> MadeVariant:
        source = model.keras_file.parent if model.artifact is not None else model.keras_file
        relative = Path(VARIANTS_FOLDER) / variant.slug
        out = folder / relative
        shutil.rmtree(out, ignore_errors=True)  # of another file of the model
        match = prices().closest(environment.collect())
        name = f"{model.name}-{variant.slug}"
        values = {
            "model": source.absolute(),
            "out": out.absolute(),
            "name": name,
            "data": scored.name,
            "prune": variant.prune,
            "quantize": variant.quantize,
            "epochs": EPOCHS,
            "seed": seed,
            "usd_per_hour": match.usd_per_hour,
            "usd_basis": match.why,
        }
        request = checked(OptimizeRequest, {k: v for k, v in values.items() if v is not None})
        out.parent.mkdir(parents=True, exist_ok=True)
        answer = run_job(OPTIMIZE, backend, request, log=folder / VARIANTS_FOLDER / f"{variant.slug}.log",
                         timeout_s=timeout_s)  # fmt: skip
        work = work_of(open_model(out).keras_file)
        made = MadeVariant(
            variant=variant.name,
            of_sha256=model.sha256,
            model=name,
            folder=str(relative),
            score=answer.drop,
            flops_per_example=work.flops_per_example,
            weight_bytes=work.weight_bytes,
        )
        schema.write(folder / VARIANTS_FOLDER / f"{variant.slug}.json", made)
        return made

    return make
