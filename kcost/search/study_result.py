"""From a study to the result that is shown."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from kcost.core.artifact import Score
from kcost.core.pareto import pareto_front
from kcost.cost.estimate import CostEstimate
from kcost.search.request import SearchRequest
from kcost.search.result import Importance, SearchResult, TrialRecord
from kcost.search.space import COST_PARAMETERS, Parameter
from kcost.search.states import state_of
from kcost.search.storage import require_optuna, shown_url, storage_url

MIN_TRIALS = 12
"""Completed trials from which on importances are told: the best quarter then has three."""

BEST_PART = 0.25


def read_result(study: Any, request: SearchRequest, space: tuple[Parameter, ...]) -> SearchResult:
    """The study as it stands."""
    frozen = study.get_trials(deepcopy=False)
    trials = tuple(r for t in frozen if (r := _record(t)) is not None)
    complete = [t for t in trials if t.state == "complete"]
    best = max(complete, key=lambda t: (t.reached.value, -t.cost.usd), default=None)
    return SearchResult(
        study=study.study_name,
        storage=shown_url(storage_url(request)),
        family=request.family,
        data=request.data,
        backend=request.backend,
        objective=request.objective,
        trials_asked=request.trials,
        space=space,
        fixed=request.identity()["settings"],
        trials=trials,
        pareto=tuple(t.number for t in front_of(complete)),
        best=None if best is None else best.number,
        cheapest_as_good=None if best is None else cheapest_as_good(complete, best).number,
        importances=_importances(study, request, complete),
        notices=tuple(_notices(frozen)),
    )


def _record(trial: Any) -> TrialRecord | None:
    state = state_of(trial)
    if state is None:
        return None
    attributes = trial.user_attrs
    reason = None
    if state in ("pruned", "failed"):
        reason = attributes.get("reason")
    elif state == "stopped":
        reason = attributes.get("stopped", "its process ended, or was stopped, before the trial did")
    complete = state == "complete"
    return TrialRecord(
        number=trial.number,
        state=state,
        params=trial.params,
        reason=reason,
        score=Score.model_validate(attributes["score"]) if complete else None,
        predicted=CostEstimate.model_validate(attributes["predicted"]) if complete else None,
        measured_as=attributes["measured_as"] if complete else None,
        artifact=attributes["artifact"] if complete else None,
        host=attributes.get("host"),
        seconds=trial.duration.total_seconds() if trial.duration is not None else None,
    )


def front_of(complete: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The complete trials that no other one equals or beats in both score and cost, the cheapest first."""
    by_number = sorted(complete, key=lambda t: t.number)
    return pareto_front(by_number, lambda t: t.cost.usd, lambda t: t.reached.value)


def cheapest_as_good(complete: Sequence[TrialRecord], best: TrialRecord) -> TrialRecord:
    """The cheapest trial whose score lies within the 95% interval of the best one's; the better one of equals."""
    as_good = [t for t in complete if t.reached.value >= best.reached.low]
    return min(as_good, key=lambda t: (t.cost.usd, -t.reached.value, t.number))


def _importances(study: Any, request: SearchRequest, complete: Sequence[TrialRecord]) -> tuple[Importance, ...]:
    """PED-ANOVA for each objective: unlike fANOVA it needs no scikit-learn, which only backends bring along."""
    if len(complete) < MIN_TRIALS:
        return ()
    optuna = require_optuna()
    searched = list(complete[0].params)
    # What predictions cost depends on the architecture alone: to the rest, chance would give a share.
    costly = [n for n in searched if request.objective == "training" or n in COST_PARAMETERS["inference"]]
    importances = []
    trials = study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.COMPLETE,))
    for index, sign, name, params in ((0, -1.0, "score", searched), (1, 1.0, "cost", costly)):
        if len({t.values[index] for t in trials}) == 1:
            continue  # nothing differs, so nothing explains it
        evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=BEST_PART)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that a low target is taken for better, which it is here
            shares = optuna.importance.get_param_importances(
                study, evaluator=evaluator, params=params, target=lambda t, i=index, s=sign: s * t.values[i]
            )
        importances.append(Importance(objective=name, shares=dict(sorted(shares.items(), key=lambda kv: -kv[1]))))
    return tuple(importances)


def _notices(trials: Sequence[Any]) -> list[str]:
    complete = [t for t in trials if state_of(t) == "complete"]
    lines = list(dict.fromkeys(notice for t in complete for notice in t.user_attrs["notices"]))
    for name in dict.fromkeys(t.user_attrs["synthetic_data"] for t in complete if "synthetic_data" in t.user_attrs):
        lines.append(f"synthetic-data: The data, {name}, is synthetic: scores on it say nothing of real data.")
    machines = {t.user_attrs["environment_id"] for t in complete}
    if len(machines) > 1:
        lines.append(
            f"several-machines: Costs were measured in {len(machines)} environments ({', '.join(sorted(machines))}); "
            "those of different ones do not compare. Bench the models that matter on one machine."
        )
    if any(t.user_attrs["predicted"]["basis"] == "simulated" for t in complete):
        lines.append("simulated: Step times were made up, not measured.")
    return lines
