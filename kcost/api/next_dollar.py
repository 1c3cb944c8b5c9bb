"""From trained models to what a point of score costs by each way to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.api.inventory import prices
from kcost.core.errors import InputError

if TYPE_CHECKING:
    from kcost.core.artifact import Artifact, Model
    from kcost.cost.next_dollar import NextDollar
    from kcost.cost.score_routes import Price, Trained

NOT_OF_THE_RECIPE = frozenset(
    {"seed", "name", "data", "labels", "epochs", "most_epochs", "size", "init", "teacher", "teacher_sha256"}
    | {"teacher_parameters", "teacher_usd", "distill", "tensorboard", "prune_above", "repair"}
)
"""Settings that say which group a model is in, or that change nothing of it; all others are its recipe."""


def next_dollar(
    artifacts: Sequence[Path | str],
    *,
    gain: float | None = None,
    usd_per_label: float | None = None,
    annotator_usd_per_hour: float | None = None,
    label_seconds: float | None = None,
    redundancy: float | None = None,
    run: Path | str | None = None,
    qps: float | None = None,
    horizon_days: float = 365.0,
    prices_file: Path | str | None = None,
    seed: int | None = None,
) -> NextDollar:
    """What a point of score costs by more labels, a bigger model, longer training and distilling, and which is the
    cheapest.

    Args:
        artifacts: folders that `kcost train` made on the same data, each with its score of the same test examples. The
            first is the model that there is; the others show what other sizes, seeds, epochs and teachers give.
        gain: of the score, as a part of 1; None is 0.01, a point.
        usd_per_label: price of a labelled example.
        annotator_usd_per_hour: in its place, what an annotator costs; the seconds are `label_seconds`, else those of
            entities in tweets (`kcost.cost.labelling`).
        label_seconds: of one person for one example.
        redundancy: persons to an example; None is 2, as in the Broad Twitter Corpus.
        run: a run folder in which these models were measured, for what serving a bigger one costs; with `qps`.
        qps: requests a second.
        horizon_days: that serving is paid for.
        prices_file: a price book of your own, for the run.
        seed: of the draws.

    Raises:
        InputError: no artifact, one that was not trained by kcost or changed after, artifacts of other data or another
            test split, two prices of a label, or a number outside its range.
        ArtifactError: a folder that is no artifact.

    Examples:
        >>> answer = kcost.next_dollar(["digits-cnn"], usd_per_label=0.05)
        >>> answer.outcome, len(answer.routes)
        ('no way', 4)
    """
    from kcost.core.artifact import open_model
    from kcost.cost.next_dollar import SEED, next_dollar as decide
    from kcost.cost.score_routes import POINT

    if not artifacts:
        raise InputError(
            "What a point costs is told by trained models.", received="none", remedy="Name artifact folders."
        )
    artifacts = list({Path(folder).resolve(): folder for folder in artifacts}.values())
    models = [open_model(folder) for folder in artifacts]
    abouts = [_trained_by_kcost(model) for model in models]
    _refuse_other_tests(abouts)
    serving = {} if run is None else _serving_usd(Path(run), qps, horizon_days, prices_file)
    evidence = [_evidence(str(f), a, serving) for f, a in zip(artifacts, abouts, strict=True)]
    notes = [] if run is None else [_serving_note(run, qps, horizon_days, evidence)]
    return decide(
        evidence,
        score_name=abouts[0].scores[0].name,
        label_price=_label_price(abouts[0], usd_per_label, annotator_usd_per_hour, label_seconds, redundancy),
        gain=POINT if gain is None else gain,
        notes=[*_notes(abouts), *notes],
        seed=SEED if seed is None else seed,
    )


def _trained_by_kcost(model: Model) -> Artifact:
    about = model.artifact
    what = None
    if about is None:
        what = "a bare .keras file, of whose training nothing is known"
    elif [step.kind for step in about.steps] != ["train"]:
        what = f"one that came by {', '.join(step.kind for step in about.steps) or 'no step'}"
    elif about.dataset is None or not about.scores or about.parameters is None:
        what = "one without data, parameters or a score"
    elif about.steps[0].cost is None or about.steps[0].cost.usd is None:
        what = "one that does not say what its training cost"
    if about is None or what is not None:
        raise InputError(
            "Evidence is a model as `kcost train` made it, with its score and its cost.",
            received=f"{model.name}: {what}",
            remedy="Leave it out, or train it with kcost.",
        )
    return about


def _refuse_other_tests(abouts: Sequence[Artifact]) -> None:
    """Scores of other examples, or of another kind, say nothing of each other."""

    def test(about: Artifact) -> tuple[str, str]:
        assert about.dataset is not None
        return about.scores[0].name, about.dataset.splits["test"].sha256

    other = next((a for a in abouts if test(a) != test(abouts[0])), None)
    if other is not None:
        raise InputError(
            "Scores are held against each other on the same test examples.",
            received=f"{_data(abouts[0])} and {_data(other)}",
            remedy="Train with --labels N, which leaves the test split whole, and not with --limit.",
        )


def _data(about: Artifact) -> str:
    assert about.dataset is not None
    return f"{about.name}: {about.scores[0].name} on {about.scores[0].count:,} of {about.dataset.name}"


def _evidence(folder: str, about: Artifact, serving: Mapping[str, float]) -> Trained:
    from kcost.cost.score_routes import Trained

    step = about.steps[0]
    settings = step.settings
    assert about.dataset is not None
    assert about.parameters is not None
    assert step.cost is not None
    assert step.cost.usd is not None
    splits = about.dataset.splits
    return Trained(
        name=Path(folder).name,
        labels=splits["train"].count + splits["validation"].count,
        parameters=about.parameters,
        size=str(settings.get("init") or settings.get("size") or "the smallest size"),
        most_epochs=int(settings.get("most_epochs", settings["epochs"])),
        epochs=int(settings["epochs"]),
        recipe=tuple(sorted((name, str(value)) for name, value in settings.items() if name not in NOT_OF_THE_RECIPE)),
        teacher_parameters=settings.get("teacher_parameters"),
        teacher_usd=settings.get("teacher_usd"),
        usd=step.cost.usd,
        score=about.scores[0].value,
        serving_usd=serving.get(about.model_sha256),
    )


def _notes(abouts: Sequence[Artifact]) -> list[str]:
    first = abouts[0]
    assert first.dataset is not None
    score, cost = first.scores[0], first.steps[0].cost
    notes = [
        f"The test split of {first.dataset.name} alone leaves {score.value:.4f} between {score.low:.4f} and "
        f"{score.high:.4f} (95%, {score.count:,} {score.unit})."
    ]
    if first.dataset.synthetic:
        notes.append(f"Synthetic: {first.dataset.name} was made up, so these scores say nothing of real data.")
    if cost is not None:
        notes.append(f"Training is priced by its seconds. {cost.usd_basis}")
    return notes


def _label_price(
    about: Artifact,
    usd_per_label: float | None,
    usd_per_hour: float | None,
    seconds: float | None,
    redundancy: float | None,
) -> Price | None:
    from kcost.cost.labelling import Labelling, labelling_cost
    from kcost.cost.score_routes import Price

    for name, value in (
        ("usd_per_label", usd_per_label),
        ("annotator_usd_per_hour", usd_per_hour),
        ("label_seconds", seconds),
        ("redundancy", redundancy),
    ):
        if value is not None and not 0 < value < float("inf"):
            raise InputError("A price, seconds and persons are positive numbers.", received=f"{name} = {value}")
    if usd_per_label is not None and usd_per_hour is not None:
        raise InputError(
            "A label has one price.",
            received="one for each label, and one by the hour",
            remedy="Give --usd-per-label or --annotator-usd-per-hour.",
        )
    if usd_per_label is not None:
        return Price(usd_per_label, usd_per_label, usd_per_label, "as asked")
    if usd_per_hour is None:
        return None
    entities = about.task == "token-classification"
    if seconds is None and not entities:
        raise InputError(
            "What a label costs by the hour takes the seconds of a label.",
            received=f"{about.task}, for which no seconds are known",
            remedy="Give --label-seconds, or --usd-per-label.",
        )
    types = {name[2:] for name in about.label_names if name != "O"}
    job = labelling_cost(
        Labelling(
            items=1,
            redundancy=2.0 if redundancy is None else redundancy,
            questions=max(1, len(types)) if seconds is None else 1,
            seconds=seconds,
            usd_per_hour=usd_per_hour,
        )
    )
    return Price(job.usd, job.low, job.high, job.derivation)


def _serving_usd(run: Path, qps: float | None, days: float, prices_file: Path | str | None) -> dict[str, float]:
    """SHA-256 of a model -> USD of serving it over the days as its cheapest valid cell was measured."""
    from kcost.bench.store import RunStore
    from kcost.cost.verdict import conclude, prices_for

    if qps is None or not (0 < qps < float("inf") and 0 < days < float("inf")):
        raise InputError(
            "Serving is paid for positive traffic over positive days.",
            received=f"qps = {qps}, horizon_days = {days}",
            remedy="Such as --qps 200 beside --run.",
        )
    store = RunStore(run)
    loaded = store.load()
    verdict = conclude(loaded, prices_for(loaded, prices(prices_file).checked()), store.read_outputs)
    millions = qps * 86_400 * days / 1e6
    by_name = {entry.name: entry.sha256 for entry in loaded.index.models}
    serving: dict[str, float] = {}
    for ranking in verdict.rankings:
        usable = [cost.usd for c, cost in ranking.priced if c.rank is not None]
        if ranking.phase == "inference" and not ranking.apart and usable:
            serving[by_name[ranking.model]] = min(usable) * millions
    return serving


def _serving_note(run: Path | str, qps: float | None, days: float, evidence: Sequence[Trained]) -> str:
    count = sum(one.serving_usd is not None for one in evidence)
    return (
        f"Serving is {qps:g} requests a second for {days:g} days at the cheapest cell of {run} with no idle time, for "
        f"{count} of {len(evidence)} models."
    )


def write_next_dollar_page(answer: NextDollar, path: Path | str) -> None:
    """Writes what a point costs as one self-contained HTML page, with the learning curve.

    Raises:
        StorageError: the file cannot be written.

    Examples:
        >>> answer = kcost.next_dollar(["digits-cnn"], usd_per_label=0.05)
        >>> kcost.write_next_dollar_page(answer, "next.html")
    """
    from kcost.core.schema import write_bytes
    from kcost.report.next_dollar_page import render_next_dollar

    write_bytes(Path(path), render_next_dollar(answer))
