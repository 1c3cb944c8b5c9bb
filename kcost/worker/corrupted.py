"""Stores what a model answers on test examples as they are, under changes of a stated strength, and under attack."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from kcost import data
from kcost.core.artifact import open_model
from kcost.core.errors import UnavailableError
from kcost.core.predictions import PredictionsHeader, SplitPredictions, write_predictions
from kcost.core.request import ATTACKED, CLEAN, AttackRequest, CorruptRequest, PredictAnswer
from kcost.data.corruptions import conditions_for, corrupted, sample_of_test
from kcost.models.loading import load_keras_file
from kcost.training.adversarial import PerturbedModel
from kcost.worker.model_and_data import Opened, on_data
from kcost.worker.predict import OutputsOf, answered, class_names, entity_types, plainly, refuse_unlabelled
from kcost.worker.progress import counted
from kcost.worker.robustness import attacked_point, mean_length


def run(request: CorruptRequest) -> PredictAnswer:
    """Predicts the test split under each condition, and writes the file that the request names: a split a condition.

    Raises:
        InputError: the model answers with no classes, or the data have no labels for it.
        GateError: an answer is NaN or infinite.
    """
    about = open_model(request.model)
    whole = data.load(data.chosen(about, request.data), limit=request.limit)
    read = sample_of_test(whole, request.examples)
    model = load_keras_file(about.keras_file)
    clean = on_data(about, model, read, request.answer, request.pixels)
    refuse_unlabelled(clean.task)
    types = entity_types(clean.task)

    notes: tuple[str, ...] = ()
    conditions = conditions_for(read)
    passes = 1 + len(conditions) + len(ATTACKED)
    with counted(passes * len(clean.task.labels("test")), clean.task.unit) as of_pass:

        def answers(opened: Opened, outputs_of: OutputsOf, name: str) -> SplitPredictions:
            count = of_pass(f"predicting {name}")
            return answered(outputs_of, opened.task, "test", request.batch_size, None, types, count)

        splits = {CLEAN: answers(clean, plainly(model), CLEAN)}
        for condition in conditions:
            changed = on_data(about, model, corrupted(read, condition), request.answer, request.pixels)
            splits[condition] = answers(changed, plainly(model), condition)
        try:
            splits |= {name: answers(clean, outputs_of, name) for name, outputs_of in _attacks(clean, request)}
        except UnavailableError as error:  # what can be attacked is a matter of the model; the rest stands without it
            notes = (f"not attacked: {error.rule} Received: {error.received}",)
    header = PredictionsHeader(
        model=about.name,
        model_sha256=about.sha256,
        backend=os.environ["KERAS_BACKEND"],
        dataset=whole.record,
        label_names=class_names(clean.task.label_names, splits[CLEAN].log_probabilities.shape[1]),
        entity_types=types,
        kind=clean.task.answers.main.kind,
        answer=clean.task.answers.main,
        place=clean.task.answers.main_place,
        unit=clean.task.unit,
        limit=request.limit,
        train_examples=0,
        choice=request.answer,
        pixels=request.pixels,
        notes=notes,
    )
    write_predictions(request.file, header, splits)
    return PredictAnswer(dataset=whole.record, answers=clean.task.answers)


def _attacks(opened: Opened, request: CorruptRequest) -> Iterator[tuple[str, OutputsOf]]:
    """Each attack by name. Its size is a share of white, or of the mean length of a text's embedded tokens.

    Raises:
        UnavailableError: the model has no place where it can be attacked.
    """
    task = opened.task
    perturbed = PerturbedModel(opened.model, task.answers.main, task.is_text, task.pixels)
    unit = mean_length(perturbed, task, request.batch_size) if task.is_text else 1.0
    for name, (method, share) in ATTACKED.items():
        attack = AttackRequest(model=request.model, epsilons=(share * unit,), attack=method)

        def outputs_of(inputs: object, labels: np.ndarray, place: int, attack: AttackRequest = attack) -> np.ndarray:
            rng = np.random.default_rng((attack.seed, place))
            point = attacked_point(perturbed, perturbed.points(inputs), inputs, labels, attack, attack.epsilons[0], rng)
            return perturbed.predict(point, inputs)

        yield name, outputs_of
