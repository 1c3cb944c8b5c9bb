"""What a proxy says of itself and of what it watches: the conclusion first, then what limits it."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import Field

from kcost.core.schema import VERSIONS, Record
from kcost.core.units import significant
from kcost.cost.invoice import Invoice
from kcost.serving.monitor.rollouts import RolloutState
from kcost.serving.monitor.settings import MonitorSettings
from kcost.serving.monitor.traffic import Traffic
from kcost.serving.monitor.watch import Watched, WatchedModel

LARGE_FAILED_SHARE = 0.01
FEW_LABELS = 100

Outcome = Literal["healthy", "drifted", "failing", "can't tell"]


class WatcherState(Record):
    """How the watching itself goes."""

    is_up: bool
    offered: int = Field(description="requests that were answered with 200 and given to the process that watches")
    dropped: int = Field(description="of these, not looked at: it had too much to do, or was not there")
    restarts: int


class MonitorReport(Record):
    """`kcost monitor URL --json`."""

    schema_: int = Field(default=VERSIONS["monitor"], alias="schema")
    outcome: Outcome
    conclusion: str
    limits: tuple[str, ...]
    upstream: str
    traffic: Traffic
    watcher: WatcherState | None = Field(description="None where there is nothing to watch but traffic")
    watched: Watched
    rollouts: tuple[RolloutState, ...] = Field(default=(), description="new versions beside old ones")
    invoice: Invoice


def make_monitor_report(
    upstream: str,
    settings: MonitorSettings,
    traffic: Traffic,
    watcher: WatcherState | None,
    watched: Watched,
    invoice: Invoice,
    rollouts: tuple[RolloutState, ...] = (),
    store_failed: str | None = None,
) -> MonitorReport:
    """Concludes from what is known.

    Args:
        store_failed: why counts of rollouts are not on disk.
    """
    outcome, sentence = _conclude(settings, traffic, watcher, watched)
    return MonitorReport(
        outcome=outcome,
        conclusion=sentence,
        limits=(*_rollout_limits(settings, rollouts, store_failed), *_limits(settings, watcher, watched)),
        upstream=upstream,
        traffic=traffic,
        watcher=watcher,
        watched=watched,
        rollouts=rollouts,
        invoice=invoice,
    )


def _conclude(
    settings: MonitorSettings, traffic: Traffic, watcher: WatcherState | None, watched: Watched
) -> tuple[Outcome, str]:
    drifted = [m for m in watched.models if m.drift.drifted]
    sentences = [_drift_sentence(m, settings) for m in drifted]
    if traffic.failed_share > LARGE_FAILED_SHARE:
        share = f"{traffic.failed_share:.1%} of the last minute's requests failed"
        return "failing", ". ".join([f"failing: {share}", *sentences])
    late = settings.p99_ms is not None and traffic.p99_ms is not None and traffic.p99_ms > settings.p99_ms
    if late:
        assert traffic.p99_ms is not None
        limit = f"p99 {significant(traffic.p99_ms)} ms, more than the {significant(settings.p99_ms or 0)} ms allowed"
        return "failing", ". ".join([f"failing: {limit}", *sentences])
    if drifted:
        return "drifted", ". ".join(sentences)
    if not traffic.requests:
        return "can't tell", "can't tell: no request came yet"
    if watcher is None or not settings.references:
        return "can't tell", "can't tell of drift: the proxy was given no reference; requests are answered"
    unseen = [m for m in watched.models if not m.drift.windows]
    if len(unseen) == len(watched.models):
        rows = max((m.drift.rows for m in watched.models), default=0)
        return "can't tell", f"can't tell yet: {rows:,} of the first window's {settings.window_rows:,} rows are there"
    names = ", ".join(m.name for m in watched.models if m.drift.windows)
    windows = sum(m.drift.windows for m in watched.models)
    return "healthy", f"healthy: no drift of {names} in {windows:,} windows, requests are answered"


def _drift_sentence(model: WatchedModel, settings: MonitorSettings) -> str:
    first, *rest = model.drift.drifted
    more = f" and {len(rest)} more" if rest else ""
    chance = first.false_alarm_probability
    sure = f"a false alarm at most {chance_text(chance)} of the time"
    price = ""
    if model.drift.cost is not None and settings.usd_per_error:
        usd = model.drift.cost.usd_per_month
        price = f"; expected errors cost {_more(usd.value, '$')} a month"
        price += f" (95%: {_signed(usd.low, '$')} to {_signed(usd.high, '$')})"
    elif model.drift.cost is not None:
        extra = model.drift.cost.extra_errors_per_million
        price = f"; {_more(extra.value)} expected errors a million"
        price += f" (95%: {_signed(extra.low)} to {_signed(extra.high)})"
    moved = f"{first.name} was {first.reference}, is {first.now}"
    return f"drifted: {model.name}: {moved}{more} ({sure}){price}"


def chance_text(probability: float) -> str:
    """A chance; below a millionth of a millionth digits say nothing.

    Examples:
        >>> chance_text(0.0123), chance_text(1e-80)
        ('0.01', '1e-12')
    """
    return f"{max(probability, 1e-12):.1g}"


def _signed(value: float, unit: str = "") -> str:
    """A number that may be below 0, in three digits."""
    return f"{'-' if value < 0 else ''}{unit}{significant(abs(value))}"


def _more(value: float, unit: str = "") -> str:
    return f"{unit}{significant(abs(value))} {'less' if value < 0 else 'more'}"


def rollout_sentence(state: RolloutState) -> str:
    """What is to be done with a new version, how sure that is, and which gate it hangs on."""
    rollout, counts = state.rollout, state.rollout.counts
    sentence = f"{rollout.decision}: version {state.version} of {state.model}, {state.kind} of "
    sentence += "what the server chooses" if state.stable is None else f"version {state.stable}"
    if state.stopped:
        sentence += ", is asked no more"
    sentence += f" ({at_least(rollout.probability)} that all gates hold, {counts.requests:,} requests"
    if rollout.decision == "promote":
        return f"{sentence}; wrong {at_most(rollout.wrong_promotion)} of the time, however often one looks)"
    if rollout.decision == "roll back":
        wrong = f"wrong {at_most(rollout.wrong_roll_back)} of the time"
        return f"{sentence}; {rollout.weakest_first[0]} breaks its limit, {wrong})"
    return f"{sentence}; {rollout.weakest_first[0]} is open: {rollout.holds[rollout.weakest_first[0]]:.1%})"


def at_least(probability: float) -> str:
    """A lower bound in percent; nothing is sure.

    Examples:
        >>> at_least(0.99999), at_least(0.9876)
        ('at least 99.9%', 'at least 98.7%')
    """
    return f"at least {min(99.9, math.floor(probability * 1000) / 10):.1f}%"


def at_most(probability: float) -> str:
    """An upper bound in percent.

    Examples:
        >>> at_most(1e-9), at_most(0.0123)
        ('at most 0.1%', 'at most 1.3%')
    """
    return f"at most {max(0.1, math.ceil(probability * 1000) / 10):.1f}%"


def _rollout_limits(
    settings: MonitorSettings, rollouts: tuple[RolloutState, ...], store_failed: str | None
) -> list[str]:
    limits = [
        f"{r.model}: requests that name no version are answered by the largest that the server has: say which is stable"
        for r in rollouts
        if r.stable is None
    ]
    if rollouts and settings.rollouts.file is None:
        limits.append("counts of rollouts begin anew with the proxy: monitor.toml names no file for them ([rollouts])")
    if store_failed is not None:
        after = "after a restart the proxy goes on from the file of before"
        limits.append(f"counts of rollouts are not stored for now, {after}: {store_failed}")
    return limits


def _limits(settings: MonitorSettings, watcher: WatcherState | None, watched: Watched) -> list[str]:
    limits = []
    if watcher is not None:
        if not watcher.is_up:
            limits.append("the process that watches is not there: requests go on, drift is not seen until it is back")
        if watcher.restarts:
            limits.append(f"the process that watches began anew {watcher.restarts} time(s): its tests did, too")
        if watcher.dropped:
            limits.append(f"sampled: {watcher.dropped:,} of {watcher.offered:,} requests were not looked at: busy")
    if watched.samples_failed is not None:
        limits.append(f"samples are not stored any more: {watched.samples_failed}")
    if watched.unreadable:
        limits.append(
            f"{watched.unreadable:,} of {watched.requests:,} requests could not be read: {watched.unreadable_because}"
        )
    for model in watched.models:
        if model.drift.drifted and model.live is None:
            limits.append(
                f"{model.name}: errors are taken from confidence: where it is sure and wrong, labels alone show it"
            )
        if model.live is not None and model.live.rows < FEW_LABELS:
            limits.append(f"{model.name}: labels of {model.live.rows:,} rows alone")
    if any(model.drift.windows for model in watched.models):
        limits.append("rows are taken as exchangeable: one client's repeats, or night after day, count as drift")
    if settings.references and not settings.usd_per_error:
        limits.append("no price of an error was given (--usd-per-error): drift is told in errors, not in dollars")
    return limits
