"""The verb `recommend`: from a model, traffic and limits to one decision, and its price when something changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from kcost.api.recommend_after import exported, projected_to
from kcost.api.recommend_data import (
    EXAMPLES_LOG,
    RUN_FOLDER,
    Scored,
    has_more,
    more_data,
    rescorer,
    scored_data,
    taker,
    this_machine,
)
from kcost.api.recommend_gates import (
    answers_for_gates,
    assessed,
    card_of_another,
    chosen_under_gates,
    refuse_gates_without_data,
)
from kcost.api.recommend_pricing import PricedRun, here, terms_of
from kcost.api.recommend_variants import made_variants, maker, making_seconds, variants_of, work_of
from kcost.api.recommend_watch import VERDICT_FILE, read_recommendation
from kcost.api.risk import read_gates
from kcost.core import schema
from kcost.core.artifact import Model, open_model, refuse_unwritable
from kcost.core.errors import InputError
from kcost.core.keras_file import inspect_keras_file
from kcost.core.plan import Backend, Device
from kcost.core.process import chosen_backend, require
from kcost.core.progress import OnProgress, silent
from kcost.core.saved_policy import saved_policy

if TYPE_CHECKING:
    from kcost.core.probe import Probe
    from kcost.cost.placements import Placement
    from kcost.recommend.answer import Recommendation, Request
    from kcost.recommend.candidates import Listed
    from kcost.recommend.drop import DropBound
    from kcost.recommend.measuring import Tell
    from kcost.recommend.spent import Spent
    from kcost.recommend.variants import MadeVariant
    from kcost.risk.gates import Verdict

PAGE_FILE = "verdict.html"
MINUTES = 20.0
DEVICES: tuple[Device, ...] = ("cpu", "gpu", "tpu")
SEED = 0


def run_recommend(
    model: Path | str,
    *,
    data: str | None = None,
    qps: float | None = None,
    daily: Sequence[float] | None = None,
    weekly: Sequence[float] | None = None,
    log: Path | str | None = None,
    p99_ms: float,
    max_drop: float = 0.01,
    provider: str | None = None,
    region: str | None = None,
    instance: str | None = None,
    prices_file: Path | str | None = None,
    minutes: float = MINUTES,
    thorough: bool = False,
    variants: bool = True,
    probe: Path | str | None = None,
    gates: Path | str | None = None,
    out: Path | str | None = None,
    export: Path | str | None = None,
    backends: Sequence[str] = (),
    batches: Sequence[int] = (1, 8, 32),
    device: Device = "cpu",
    to: Sequence[str] = (),
    assumptions: Mapping[str, float | bool | None] | None = None,
    card: bool = True,
    seed: int = SEED,
    on_progress: OnProgress = silent,
    tell: Tell = lambda _: None,
) -> Recommendation:
    """Which way of running a model to take under some traffic and limits, what it costs, and what the doubt costs.

    What is measured is stored below `out`: the same call goes on from there. Ctrl-C ends it with the best so far.

    Args:
        model: an artifact folder or a .keras file.
        data: a data set by name or path, or an .npz file with an array for each input and `labels`; None takes the
            samples of the artifact.
        qps, daily, weekly, log: the traffic, exactly one, as of `kcost.estimate_budget`.
        p99_ms: most that the p99 from arrival to answer may be.
        max_drop: most that the score may drop below float32, as a fraction; held against a one-sided 95% bound.
        minutes: to spend on measuring.
        thorough: get everything ready that can win at all, in the place of what is expected to save 5% of the cost.
        variants: make the model cheaper as well, where a bound says that this can win: with half of its units, and with
            Keras's layers in int8. It needs a data set with labelled training data.
        probe: a file of `kcost probe`, of this machine; its peaks bound what a step takes, in the place of those on
            paper.
        gates: a TOML file of limits, as `kcost.assess_risk` takes it.
        out: folder of verdict.json, the page, the run and the card; None takes `recommend` in an artifact folder, or
            `NAME-recommend` beside a file.
        export: folder for TensorFlow Serving that is made of the model.
        backends: to try; empty for all that are installed.
        to: instances or accelerators that the winner is projected to.
        assumptions: as of `kcost.estimate_budget`.
        card: write a model card, where the data have labels and the model answers with classes.
        tell: told first figures and the best so far, as sentences.

    Raises:
        InputError: bad input.
        UnavailableError: a backend is not installed.
        StorageError: `out` cannot be written to.

    Examples:
        >>> limits = {"qps": 20, "p99_ms": 500, "minutes": 1}
        >>> verdict = kcost.run_recommend("digits-cnn", **limits, backends=["torch"], out="verdict", card=False)
        >>> verdict.outcome in ("decided", "can't tell", "same bill", "measured beside other work")
        True
    """
    from kcost.api.costing import traffic_of
    from kcost.cost.assumptions import assume
    from kcost.recommend.answer import Request
    from kcost.recommend.bounds import Work
    from kcost.recommend.measuring import Measuring
    from kcost.recommend.one_plan import plan_of
    from kcost.recommend.schedule import WORTH_TRYING
    from kcost.report.recommend_page import render_recommendation
    from kcost.ship.convert import converted

    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError("Minutes to measure are a positive number.", received=minutes, remedy="Such as --minutes 20.")
    if device not in DEVICES:
        raise InputError(
            f"A device is one of {', '.join(DEVICES)}.", received=device, remedy="Leave --device out for cpu."
        )
    for backend in backends:
        require(backend)
    opened = open_model(model)
    if "fake" not in backends:
        inspect_keras_file(opened.keras_file)
    limits = None if gates is None else read_gates(Path(gates))
    given = {name: value for name, value in (assumptions or {}).items() if value is not None}
    assumed = assume(given, dict.fromkeys(given, "as asked"))
    folder = _folder(opened) if out is None else Path(out)
    request = Request(
        model=str(Path(model).absolute()),
        model_sha256=opened.sha256,
        data=data,
        traffic=traffic_of(qps, daily, weekly, log),
        assumed=assumed,
        p99_ms=_positive(p99_ms),
        max_drop=_share(max_drop),
        provider=provider,
        region=region,
        instance=instance,
        prices_file=None if prices_file is None else str(Path(prices_file).absolute()),
        minutes=minutes,
        thorough=thorough,
        variants=variants,
        probe=None if probe is None else str(Path(probe).absolute()),
        backends=tuple(backends),
        batches=tuple(sorted(set(batches))),
        device=device,
        gates=None if gates is None else str(Path(gates).absolute()),
        seed=seed,
    )
    terms = terms_of(request)
    terms.book.closest(here(), provider, region, instance)  # a price that is not there is told before minutes go by
    refuse_unwritable(folder)
    probed = None if probe is None else _probe(Path(probe))
    take = None if "fake" in request.backends else taker(opened, _first_backend(request), seed, folder / EXAMPLES_LOG)
    scored = scored_data(opened, data, folder, seed, take)
    refuse_gates_without_data(opened, scored, gates)
    listed = _list(request, opened, scored)
    tell(f"{len(listed.candidates)} ways to try, {len(listed.left_out)} left out; {minutes:g} minutes")
    plan = plan_of(model, listed.candidates, data=scored.file, seed=seed)
    made = made_variants(opened, folder) if variants else {}
    measuring = Measuring(
        listed.candidates,
        plan,
        terms,
        folder / RUN_FOLDER,
        work=Work(0.0) if "fake" in request.backends else work_of(opened.keras_file),
        seconds=60 * minutes,
        worth=0.0 if thorough else WORTH_TRYING,
        converted=converted,
        make=maker(opened, scored, folder, listed.candidates[0].backend, seed),
        making_s=making_seconds(opened),
        rescore=(
            rescorer(folder, plan, terms, more_data(opened, scored, folder, seed, tell, take), tell)
            if has_more(opened, scored)
            else None
        ),
        rescored=_rescored_before(folder, opened, data),
        made=made,
        probe=probed,
        tell=tell,
        on_progress=on_progress,
    )
    spent = measuring.spend()
    first = None if take is None else _first_backend(request)
    known = assessed(opened, scored, folder, gates, folder / RUN_FOLDER, card and not spent.interrupted, first)
    answers_of = answers_for_gates(opened, scored, folder, seed, measuring.plan, take, tell)

    def priced_without(refused: Mapping[str, str]) -> PricedRun:
        return PricedRun.of(folder, listed, terms, limits, measuring.made, measuring.rescored, refused)

    gated = chosen_under_gates(
        priced_without, listed, measuring.made, known, opened, scored, folder, limits, gates, answers_of, terms.traffic
    )
    priced = gated.priced
    best = None if priced.priced is None else priced.priced.ranked[0]
    projected, more = projected_to(folder, measuring.plan, priced.run, priced.judged, best, to, request)
    about_card = card_of_another(priced, listed, measuring.made, known, folder)
    all_notices = (*scored.notices, *measuring.undecidable_notices, *known.notices, *gated.notices, *about_card, *more)
    versions = tuple(measuring.made.values())
    answer = _answer(request, opened, listed, priced, spent, gated.verdicts, all_notices, projected, versions)
    answer = answer.model_copy(update={"rescored": measuring.rescored, "refused_by_gates": gated.refused})
    if export is not None:
        sentence = exported(_served(opened, answer, folder), Path(export), answer, folder / RUN_FOLDER)
        answer = answer.model_copy(update={"notices": (*answer.notices, sentence)})
    schema.write(folder / VERDICT_FILE, answer)
    page = render_recommendation(answer, known.report, priced.judged.verdict, priced.run.environments)
    schema.write_bytes(folder / PAGE_FILE, page)
    return answer


def _list(request: Request, model: Model, scored: Scored) -> Listed:
    from kcost.recommend.candidates import list_candidates

    machine = this_machine(request.backends)
    fake = "fake" in machine.backends
    texts = () if fake else inspect_keras_file(model.keras_file).text_inputs
    refused = None if not texts else f"it takes text ({', '.join(texts)}), which no converter of kcost knows"
    possible, why_not = variants_of(model, scored) if request.variants else ((), "left out by --no-variants")
    wanted: tuple[Backend, ...] = request.backends  # type: ignore[assignment]  # `this_machine` checked them
    return list_candidates(
        machine,
        wanted=wanted,
        device=request.device,  # type: ignore[arg-type]  # a plan checks it
        batches=request.batches,
        calibration=scored.file is not None or model.samples_file is not None,
        saved_policy=None if fake else saved_policy(model.keras_file),
        refused=refused,
        model=model.name,
        variants=possible,
        no_variants=why_not,
    )


def _first_backend(request: Request) -> Backend:
    """The one that a worker beside the measuring runs on."""
    return request.backends[0] if request.backends else chosen_backend()  # type: ignore[return-value]  # checked


def _served(model: Model, answer: Recommendation, folder: Path) -> Model:
    """The model that is exported: the cheaper version where one wins."""
    variant = next((c.variant for c in answer.candidates if c.name == answer.winner), None)
    version = next((v for v in answer.variants if v.variant == variant), None)
    return model if version is None else open_model(folder / version.folder)


def _rescored_before(folder: Path, model: Model, data: str | None) -> dict[str, DropBound]:
    """What an earlier answer in the folder judged on more examples, of this very file of the model and these data."""
    if not (folder / VERDICT_FILE).is_file():
        return {}
    before = read_recommendation(folder)
    same = (before.request.model_sha256, before.request.data) == (model.sha256, data)
    return before.rescored if same else {}


def _probe(path: Path) -> Probe:
    from kcost.core.probe import Probe

    try:
        probe = schema.read("probe", path, Probe)
    except OSError as error:
        raise InputError(
            "A probe is a file of `kcost probe`.",
            f"{path}: {error.strerror}",
            "Write one: kcost probe --out probe.json.",
        ) from error
    machine = here()
    if (probe.environment.cpu_model, probe.environment.cores) != (machine.cpu_model, machine.cores):
        raise InputError(
            "A probe that bounds is one of this machine.",
            received=f"{probe.environment.cores} cores of {probe.environment.cpu_model}",
            remedy="Probe this one: kcost probe --out probe.json.",
        )
    return probe


def recommendation_folder(model: Path | str) -> Path:
    """Where a recommendation goes that names no folder. Raises ArtifactError for no model."""
    return _folder(open_model(model))


def _folder(model: Model) -> Path:
    if model.artifact is not None:
        return model.keras_file.parent / "recommend"
    return model.keras_file.with_name(f"{model.keras_file.stem}-recommend")


def _positive(p99_ms: float) -> float:
    if not (math.isfinite(p99_ms) and p99_ms > 0):
        raise InputError("A p99 limit is a positive number of milliseconds.", received=p99_ms, remedy="Such as 50.")
    return p99_ms


def _share(max_drop: float) -> float:
    if not 0 <= max_drop <= 1:
        raise InputError("A drop of the score is a fraction of 1.", max_drop, "Such as --max-drop 0.01.")
    return max_drop


def _answer(
    request: Request,
    model: Model,
    listed: Listed,
    made: PricedRun,
    spent: Spent,
    gates: tuple[Verdict, ...],
    notices: tuple[str, ...],
    projected: tuple[Placement, ...],
    versions: tuple[MadeVariant, ...],
) -> Recommendation:
    from kcost.recommend.composing import compose

    return compose(
        request,
        model.name,
        listed,
        made.judged,
        made.priced,
        spent,
        gates=gates,
        notices=notices,
        projected=projected,
        made=versions,
        made_at=datetime.now(UTC).isoformat(timespec="seconds"),
        none_because=made.none_because,
    )
