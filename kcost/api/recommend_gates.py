"""The gates of the user on a recommendation: on what the winner itself answers and takes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from kcost.api.recommend_data import RUN_FOLDER, MoreExamples, Scored, Take, test_examples
from kcost.api.recommend_pricing import PricedRun
from kcost.api.run_evidence import evidence_of_run
from kcost.core.artifact import Model
from kcost.core.errors import InputError, KcostError

if TYPE_CHECKING:
    from kcost.core.plan import Backend, Plan
    from kcost.core.predictions import Predictions, SplitPredictions
    from kcost.cost.traffic import Traffic
    from kcost.recommend.candidates import Candidate, Listed
    from kcost.recommend.rescoring import Answered
    from kcost.recommend.variants import MadeVariant
    from kcost.risk.gates import Gates, Verdict
    from kcost.risk.report import RiskReport
    from kcost.risk.slices import Columns

RISK_FOLDER, WINNER_RISK_FOLDER, CARD_FILE = "risk", "risk-of-winner", "card.md"
CLASSES = ("multiclass", "binary", "tags")

GATES_FOLDER, GATES_DATA_FILE = "answers-for-gates", "data-for-gates.npz"

MOST_JUDGED = 5
"""Ways that gates are judged on, one after the other: each answers thousands of examples."""

MEMORY_GATE = "max_memory_mib"
MEASURED_GATES = ("max_p99_ms", "max_usd_per_million", MEMORY_GATE)
"""Of the winner as it is served, and of its cell. They refuse no way: the ranking begins with the cheapest, and all
of it holds --p99-ms."""

AnswersOf = Callable[["Candidate"], "tuple[Answered, MoreExamples] | None"]
"""Has a way answer test examples, with every number of its output; None where it cannot."""


class Winner(NamedTuple):
    """The way that gates are judged on."""

    candidate: Candidate
    cell_id: str
    run_model: str
    """The name of its model in the run."""
    version: MadeVariant | None
    """The cheaper version of the model that it runs; None for the model as it is."""
    is_exact: bool
    """Whether it answers as the model does in float32."""

    @property
    def is_model_as_it_is(self) -> bool:
        """Whether what it runs is the model itself, with the answers of float32."""
        return self.is_exact and self.version is None


class Assessed(NamedTuple):
    """What is known of the model's risk."""

    report: RiskReport | None
    """None without labels, or where it could not be made."""
    failed_because: str | None
    notices: tuple[str, ...]


def refuse_gates_without_data(model: Model, scored: Scored, gates: Path | str | None) -> None:
    """Raises InputError before anything is measured where gates could not be judged after it."""
    named = scored.name is not None or (model.artifact is not None and model.artifact.dataset is not None)
    if gates is None or named:
        return
    raise InputError(
        "Gates are judged on a data set with labels, its training and validation examples among them.",
        received=f"{gates}, and "
        + ("no --data" if scored.file is None else f"{scored.file}, which holds what cells are fed"),
        remedy="Name a data set with --data: an .npz with x_train, y_train, x_test and y_test, for one.",
    )


def assessed(
    model: Model,
    scored: Scored,
    folder: Path,
    gates: Path | str | None,
    run: Path,
    card: bool,
    backend: Backend | None = None,
) -> Assessed:
    """The risk report of the model as it is, and its card, where the model and the data have what these rest on.

    Args:
        run: of the recommendation.
        card: to be written.
        backend: that predicts; None takes the first that is installed.
    """
    if gates is None and not (card and scored.labelled and (scored.name is not None or model.artifact is not None)):
        return Assessed(None, None, ())
    from kcost.api.risk import assess_risk
    from kcost.api.risk_card import write_card

    source = model.keras_file.parent if model.artifact is not None else model.keras_file
    risk = folder / RISK_FOLDER
    try:
        report = assess_risk(
            source, data=scored.name, gates=gates, out=risk, run=_ranking(run, model, gates), backend=backend
        )
    except KcostError as error:  # the measured answer stands
        why = f"{error.rule} Received: {error.received}."
        return Assessed(None, why, () if gates is not None else (f"No card: {error.rule}",))
    notices: tuple[str, ...] = ()
    if card:
        path = folder / CARD_FILE
        if path.exists():
            notices = (f"{path} was kept as it is: `kcost card verify` says whether it is still true.",)
        else:
            write_card(source, path, risk=risk)
    return Assessed(report, None, notices)


def _ranking(run: Path, model: Model, gates: Path | str | None) -> Path | None:
    """The run, where it ranks the model: else it is no evidence."""
    if gates is None:
        return None
    try:
        evidence_of_run(run, model.name)
    except KcostError:  # the gates on time, dollars and memory say that they can't tell
        return None
    return run


def verdicts_on(
    winner: Winner | None,
    known: Assessed,
    model: Model,
    scored: Scored,
    folder: Path,
    run: Path,
    limits: Gates,
    gates: Path | str,
    answers_of: AnswersOf,
) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:
    """Each gate, of the winner where it can be, and what is to be said of how they were judged.

    Args:
        winner: None where nothing is priced: then the model as it is is judged.
    """
    from kcost.risk.gates import no_evidence

    report = known.report
    if report is None:
        because = known.failed_because or "no report"
        return tuple(no_evidence(n, _limit(limits, n), because) for n in limits.limits), ()
    if winner is None:
        return report.verdicts, ()
    if winner.version is not None:
        return _of_version(winner, report, model, scored, folder, run, limits, gates)
    return _of_way(winner, report, model, scored, folder, run, limits, answers_of)


class Gated(NamedTuple):
    """The ranking as the gates leave it."""

    priced: PricedRun
    verdicts: tuple[Verdict, ...]
    notices: tuple[str, ...]
    refused: dict[str, str]
    """Way -> the gate that it fails, where the model as it is does not."""


def chosen_under_gates(
    priced_without: Callable[[Mapping[str, str]], PricedRun],
    listed: Listed,
    made: Mapping[str, MadeVariant],
    known: Assessed,
    model: Model,
    scored: Scored,
    folder: Path,
    limits: Gates | None,
    gates: Path | str | None,
    answers_of: AnswersOf,
    traffic: Traffic,
) -> Gated:
    """The ranking whose first way fails no gate that the model as it is holds.

    A way that does is refused, and the next one is judged, in the order of their cost.

    Args:
        priced_without: prices what was measured, without some ways.
        made: the cheaper versions of the model, by variant.
        traffic: that they are priced for.
    """
    from kcost.recommend.served_gates import served_verdicts
    from kcost.risk.decide import failures_first

    refused: dict[str, str] = {}
    run = folder / RUN_FOLDER
    priced = priced_without(refused)
    if limits is None or gates is None:
        return Gated(priced, (), (), refused)
    failing = set() if known.report is None else {v.gate for v in known.report.verdicts if v.answer == "fail"}
    verdicts: tuple[Verdict, ...] = ()
    notices: tuple[str, ...] = ()
    for _ in range(MOST_JUDGED):
        winner = _winner(priced, listed, made)
        verdicts, notices = verdicts_on(winner, known, model, scored, folder, run, limits, gates, answers_of)
        if priced.priced is not None:
            served = served_verdicts(limits, priced.priced.ranked[0], traffic)
            verdicts = failures_first(served.get(v.gate, v) for v in verdicts)
        own = [
            v.gate for v in verdicts if v.answer == "fail" and v.gate not in failing and v.gate not in MEASURED_GATES
        ]
        if winner is None or not own or winner.is_model_as_it_is:
            break
        refused[winner.candidate.name] = (
            f"it fails {', '.join(own)} on its own answers, which the model as it is does not"
        )
        priced = priced_without(refused)
    return Gated(priced, verdicts, notices, refused)


def card_of_another(
    priced: PricedRun, listed: Listed, made: Mapping[str, MadeVariant], known: Assessed, folder: Path
) -> tuple[str, ...]:
    """That the card is of the model as it is, where there is a card and what runs answers otherwise."""
    winner = _winner(priced, listed, made)
    path = folder / CARD_FILE
    if winner is None or winner.is_model_as_it_is or known.report is None or not path.exists():
        return ()
    return (f"{path} is of {known.report.model} as it is, in float32; what runs is {winner.candidate.name}.",)


def _winner(priced: PricedRun, listed: Listed, made: Mapping[str, MadeVariant]) -> Winner | None:
    """The first of a ranking, with the cell that it is served by."""
    if priced.priced is None:
        return None
    best = priced.priced.ranked[0]
    candidate = next(c for c in listed.candidates if c.name == best.name)
    cells = [c.spec for c in priced.run.measured(phase="inference") if candidate.has(c.spec)]
    spec = next((s for s in cells if s.batch == best.batch_limit), cells[0])
    version = None if candidate.variant is None else made.get(candidate.variant)
    return Winner(candidate, spec.cell_id, spec.model, version, best.drop is None)


def answers_for_gates(
    model: Model,
    scored: Scored,
    folder: Path,
    seed: int,
    plan: Plan,
    take: Take | None,
    tell: Callable[[str], None],
) -> AnswersOf:
    """Has a way answer up to 4,096 test examples of the data set, below the folder of a recommendation."""
    from kcost.recommend.measuring import MOST_SCORED
    from kcost.recommend.rescoring import MoreAnswers, answers_of as answered
    from kcost.ship.convert import converted

    def answers_of(candidate: Candidate) -> tuple[Answered, MoreExamples] | None:
        try:
            examples = test_examples(model, scored, folder / GATES_DATA_FILE, seed, MOST_SCORED, take)
        except KcostError as error:
            tell(f"no examples for the gates: {error.rule} Received: {error.received}.")
            return None
        more = MoreAnswers(
            *(plan, folder / RUN_FOLDER, folder / GATES_FOLDER), examples.file, examples.examples, converted, tell
        )
        made = answered(candidate, more)
        return None if made is None else (made, examples)

    return answers_of


def _of_version(
    winner: Winner, report: RiskReport, model: Model, scored: Scored, folder: Path, run: Path, limits: Gates,
    gates: Path | str,
) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:  # fmt: skip
    """Of a cheaper version of the model: another artifact, which is assessed as any model is."""
    from kcost.api.risk import assess_risk

    assert winner.version is not None
    source = model.keras_file.parent if model.artifact is not None else model.keras_file
    version = folder / winner.version.folder
    try:
        own = assess_risk(
            version, data=scored.name, gates=gates, against=source, out=folder / WINNER_RISK_FOLDER,
            backend=report.evidence.backend,  # type: ignore[arg-type]  # as it was checked then
        )  # fmt: skip
    except KcostError as error:
        return report.verdicts, (f"The gates are judged on the model as it is: {error.rule}",)
    notice = f"The gates are judged on the version {winner.version.variant} of the model."
    return _with_measured(own, own.verdicts, winner, run, limits), (notice,)


def _of_way(
    winner: Winner, report: RiskReport, model: Model, scored: Scored, folder: Path, run: Path, limits: Gates,
    answers_of: AnswersOf,
) -> tuple[tuple[Verdict, ...], tuple[str, ...]]:  # fmt: skip
    """Of a way of running the model: its own answers where these are not float32's."""
    from kcost.api.risk_data import columns_of
    from kcost.api.risk_predictions import load_for
    from kcost.core.predictions import read_predictions
    from kcost.risk.decide import Measured, decide
    from kcost.risk.other_answers import FROM_ANSWERS, answered_otherwise

    of_answers_wanted = set(FROM_ANSWERS) & set(limits.limits)
    if not of_answers_wanted:
        return _with_measured(report, report.verdicts, winner, run, limits), ()
    predictions = read_predictions(folder / RISK_FOLDER / report.evidence.predictions_file)
    columns: Columns = columns_of(load_for(model, scored.name, None), predictions)
    test: SplitPredictions | None = predictions.splits["test"]
    notices: tuple[str, ...] = ()
    if not winner.is_exact:
        test = _own_answers(predictions, winner, answers_of)
        if test is None:
            notices = (
                f"The gates are judged on the model as it is: {winner.candidate.name} could not answer for them.",
            )
        else:
            names = ", ".join(n for n in limits.limits if n in of_answers_wanted)
            count = f"{len(test):,} of {len(predictions.splits['test']):,} test {report.unit}"
            notices = (f"Judged on the answers of {winner.candidate.name} to {count}: {names}; the rest on float32.",)
    if test is None:
        return _with_measured(report, report.verdicts, winner, run, limits), notices
    own = decide(answered_otherwise(report, predictions, test, columns, limits), limits, Measured())
    of_answers = {v.gate: v for v in own.verdicts if v.gate in FROM_ANSWERS}
    verdicts = tuple(of_answers.get(v.gate, v) for v in report.verdicts)
    return _with_measured(report, verdicts, winner, run, limits), notices


def _with_measured(
    report: RiskReport, verdicts: tuple[Verdict, ...], winner: Winner, run: Path, limits: Gates
) -> tuple[Verdict, ...]:
    """The verdicts, with that on memory of the winner's own cell."""
    from kcost.risk.decide import Measured, decide, failures_first

    if MEMORY_GATE not in limits.limits:
        return failures_first(verdicts)
    try:
        measured = Measured(**evidence_of_run(run, winner.run_model, winner.cell_id))
    except KcostError:  # these can't tell
        measured = Measured(not_measured_because="the run does not rank the winner's cell: kcost report says why")
    own = {v.gate: v for v in decide(report, limits, measured).verdicts}
    return failures_first(own[v.gate] if v.gate == MEMORY_GATE else v for v in verdicts)


def _own_answers(predictions: Predictions, winner: Winner, answers_of: AnswersOf) -> SplitPredictions | None:
    """What the winner answers to test examples, as the model's own answers are stored; None where it cannot."""
    from kcost.risk.other_answers import taken

    made = answers_of(winner.candidate)
    if made is None:
        return None
    answered, examples = made
    if answered.answer.kind not in CLASSES or examples.rows is None:
        return None
    own = split_of(answered, examples.rows, predictions.header.entity_types)
    same = taken(predictions.splits["test"], own.examples)
    return own if np.array_equal(same.labels, own.labels) else None


def split_of(answered: Answered, examples: np.ndarray, types: tuple[str, ...]) -> SplitPredictions:
    """Stored answers of a cell as risk takes them.

    Args:
        examples: their places in the test split, shape (n,).
        types: of entities, of a tagger.
    """
    from kcost.core.answer_scores import decided, predictions_of
    from kcost.core.entities import UNSEEN_LABELS, tags_of_words
    from kcost.core.predictions import SplitPredictions, log_probabilities_of
    from kcost.core.scores import typed_sentence_counts

    numbers, labels = answered.arrays["scored_outputs"], answered.arrays["labels"]
    logs = log_probabilities_of(answered.answer, numbers)
    predicted = decided(answered.answer, predictions_of(answered.answer, numbers)).astype(np.int64)
    counts = None
    if answered.answer.kind == "tags":
        unseen = answered.arrays.get(UNSEEN_LABELS, np.zeros((len(labels), 0), np.int32))
        counts = typed_sentence_counts(*tags_of_words(labels, predicted, unseen, answered.label_names), types)
    else:
        labels = labels.reshape(len(labels))
    known = labels >= 0
    return SplitPredictions(
        labels=labels[known].astype(np.int64),
        predicted=predicted[known],
        log_probabilities=logs[known],
        rows=np.nonzero(known)[0].astype(np.int64),
        examples=np.asarray(examples, np.int64),
        entity_counts=counts,
    )


def _limit(limits: Gates, name: str) -> float | str:
    value = getattr(limits, name)
    return ", ".join(value) if isinstance(value, tuple) else value
