"""New versions beside old ones: which version a request goes to, what was seen of each, and what follows from it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import quote

from pydantic import Field

from kcost.core.errors import in_a_line
from kcost.core.schema import Record
from kcost.risk.rollout import Decision, Rollout, RolloutCounts, judge_rollout
from kcost.serving.monitor.rollout_store import Key, RolloutStore, StoredRollout
from kcost.serving.monitor.settings import CanarySettings, Kind, MonitorSettings, ShadowSettings
from kcost.serving.routes import Route

JUDGE_S = 1.0
"""Between two judgements, but for failures of a canary: each of these is judged at once."""

_SHARED_OUT = ("predict", "classify", "regress", "infer")
Headers = list[tuple[bytes, bytes]]


class TimedAnswer(NamedTuple):
    """What a version answered, and what that took."""

    status: int
    headers: Headers
    body: bytes
    latency_ns: int
    """From when the request was sent to the server until its answer was there."""
    machine_ns: float
    """Of the machine's time, as the invoice shares it out."""


class Choice(NamedTuple):
    """The version that a request goes to."""

    resource: Route
    path: bytes
    fallback: Route | None
    """What answers where this version does not; None where no other is asked."""


class RolloutState(Record):
    """A new version beside the old one."""

    model: str
    kind: Kind
    version: int
    stable: int | None = Field(description="None where the server chooses the version of requests that name none")
    share: float
    stopped: bool = Field(description="it is rolled back: the canary is asked no more")
    unclear: int = Field(description="requests that neither version answered: they say nothing of either")
    new_usd_per_million: float | None = Field(
        default=None, description="of requests that both answered; None before there is one"
    )
    old_usd_per_million: float | None = None
    rollout: Rollout


class _Tally:
    """What was counted of one new version. Agreement is counted by the process that watches, which reads answers."""

    def __init__(self, model: str, kind: Kind, settings: ShadowSettings) -> None:
        self.model = model
        self.kind: Kind = kind
        self.settings = settings
        self.seen: dict[str, Any] = RolloutCounts().model_dump()
        self.agreement = RolloutCounts()
        self.unclear = 0
        self.announced: Decision = "can't tell"
        self.judge()

    @property
    def key(self) -> Key:
        return self.model, self.kind, self.settings.version, self.settings.stable

    def go_on_from(self, stored: StoredRollout) -> None:
        """Counts on from what was stored."""
        self.seen, self.agreement = stored.counts.model_dump(), stored.agreement
        self.unclear, self.announced = stored.unclear, stored.announced
        self.judge()

    def stored(self) -> StoredRollout:
        model, kind, version, stable = self.key
        return StoredRollout(
            model=model,
            kind=kind,
            version=version,
            stable=stable,
            counts=RolloutCounts(**self.seen),
            agreement=self.agreement,
            unclear=self.unclear,
            announced=self.announced,
        )

    def judge(self) -> None:
        self.judged = judge_rollout(RolloutCounts(**self.seen).plus(self.agreement), self.settings)
        self.stopped = self.kind == "canary" and self.judged.decision == "roll back"

    def count(self, **more: float) -> None:
        """Adds to the counts; but what comes in late changes no decision that was acted on."""
        if not self.stopped:
            for name, value in more.items():
                self.seen[name] += value

    def pair(self, old: TimedAnswer, new: TimedAnswer) -> None:
        log_ratio = math.log(max(1, new.latency_ns) / max(1, old.latency_ns))
        new_s, old_s = new.machine_ns / 1e9, old.machine_ns / 1e9
        self.count(pairs=1, log_ratio_sum=log_ratio, log_ratio_squares=log_ratio**2, new_s=new_s, old_s=old_s)
        self.count(new_squares=new_s**2, old_squares=old_s**2, products=new_s * old_s)


class Rollouts:
    """The shadows and canaries of a proxy.

    Where there is a store, what is told of them, figures and decisions, is on disk before: a proxy that is killed goes
    on from there. A canary is stopped at once all the same.

    Args:
        settings: what the user said.
        agreement: served name -> what the process that watches counted: rows, and those answered otherwise.
        tell: told of each decision, and of each that is no more.
        clock: seconds that never go back.
        store: holds the counts of proxies before this one; None where they are in memory alone.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        agreement: Callable[[], Mapping[str, RolloutCounts]],
        tell: Callable[[RolloutState], None],
        clock: Callable[[], float] = time.monotonic,
        store: RolloutStore | None = None,
    ) -> None:
        rollouts: list[tuple[str, Kind, ShadowSettings]] = [(name, "shadow", s) for name, s in settings.shadow.items()]
        rollouts += [(name, "canary", s) for name, s in settings.canary.items()]
        self._tallies = {model: _Tally(model, kind, rollout) for model, kind, rollout in rollouts}
        self._agreement = agreement
        self._tell = tell
        self._clock = clock
        self._random = random.Random(settings.seed)
        self._judged_s = -math.inf
        self._store = store
        self._storing = asyncio.Lock()
        self.store_failed: str | None = None
        """Why the counts of now are not on disk; None where they are, or are in memory alone."""
        self.due = asyncio.Event()
        """Set where something is to be stored now, such as that a canary was stopped."""
        for tally in self._tallies.values():
            stored = None if store is None else store.find(tally.key)
            if stored is not None:
                tally.go_on_from(stored)
        self._stored_states = self._states()

    def agreed(self) -> dict[str, RolloutCounts]:
        """Served name -> what was counted of the answers, for a process that watches and goes on from there."""
        return {model: tally.agreement for model, tally in self._tallies.items()}

    @property
    def models(self) -> frozenset[str]:
        """Those that have a shadow or a canary."""
        return frozenset(self._tallies)

    def choose(self, resource: Route | None, headers: Headers) -> Choice | None:
        """The version that a request goes to; None leaves the request as it is.

        A request that names a version has it, and so has one that names another label than the settings do.
        """
        tally = None if resource is None else self._tallies.get(resource.model)
        if resource is None or tally is None or resource.method not in _SHARED_OUT:
            return None
        settings = tally.settings
        if settings.stable is None or resource.version is not None or resource.label not in (None, settings.label):
            return None
        stable = resource._replace(version=settings.stable, label=None)
        splits = resource.method == "predict" and not tally.stopped
        canary = settings if isinstance(settings, CanarySettings) and splits else None
        if canary is not None and self._drawn(resource.model, canary, headers):
            new = stable._replace(version=canary.version)
            return Choice(new, path_of(new), stable)
        return Choice(stable, path_of(stable), None)

    def _drawn(self, model: str, settings: CanarySettings, headers: Headers) -> bool:
        """Whether a request is the canary's."""
        value = None
        if settings.sticky_header is not None:
            name = settings.sticky_header.lower().encode()
            value = next((v for known, v in headers if known.lower() == name), None)
        if value is None:
            return self._random.random() < settings.share
        # A hash in the place of a memory of clients: it holds over restarts and over several proxies, and those who
        # had the new version keep it when its share grows. Each version draws others.
        digest = hashlib.blake2b(f"{model}\n{settings.version}\n".encode() + value, digest_size=8).digest()
        return int.from_bytes(digest) < settings.share * 2**64

    def shadow_of(self, resource: Route) -> Route | None:
        """The version that is asked the same as this request, which was answered; None for most."""
        tally = self._tallies.get(resource.model)
        if tally is None or tally.kind != "shadow" or resource.version == tally.settings.version:
            return None
        if self._random.random() >= tally.settings.share:
            return None
        return resource._replace(version=tally.settings.version, label=None)

    def in_drawn_order(self, *versions: Route) -> list[Route]:
        """The versions in an order that favours none."""
        return self._random.sample(versions, len(versions))

    def answered(self, model: str) -> None:
        """A canary answered a client."""
        self._tallies[model].count(requests=1)

    def failed(self, model: str, old_status: int) -> None:
        """A canary did not answer a client; the old version was asked then.

        What neither answers says nothing of either: a request may be wrong, and a server away.
        """
        tally = self._tallies[model]
        if old_status != 200:
            tally.unclear += 1
            return
        tally.count(requests=1, failed=1)
        self.judge()

    def compared(self, model: str, old: TimedAnswer, new: TimedAnswer) -> bool:
        """Two versions were asked what a client has its answer to; gives whether both answered."""
        tally = self._tallies[model]
        if tally.kind == "shadow":  # a canary's request was counted when it answered the client
            if old.status != 200 and new.status != 200:
                tally.unclear += 1
                return False
            tally.count(requests=1)
        if new.status != 200:
            tally.count(failed=old.status == 200)
            self.judge()
            return False
        if old.status != 200:
            return False
        tally.pair(old, new)
        if self._clock() >= self._judged_s + JUDGE_S:
            self.judge()
        return True

    def judge(self) -> None:
        """Judges every version, rolls canaries back, and tells what has changed, unless that has to be stored first."""
        self._judged_s = self._clock()
        agreement = self._agreement()
        for model, tally in self._tallies.items():
            if not tally.stopped:
                tally.agreement = agreement.get(model, tally.agreement)
                tally.judge()
                if tally.stopped:
                    self.due.set()
        if self._store is None:
            self._tell_changes(self._states())

    def _tell_changes(self, states: tuple[RolloutState, ...]) -> bool:
        """Announces decisions that were not announced yet; gives whether there were any."""
        changed = [state for state in states if state.rollout.decision != self._tallies[state.model].announced]
        for state in changed:
            self._tallies[state.model].announced = state.rollout.decision
            self._tell(state)
        return bool(changed)

    async def sync(self) -> None:
        """Returns when what is known now is on disk, or the reason why it is not is known; then it is told."""
        if self._store is None or not self._tallies:
            return
        async with self._storing:
            self.judge()
            states = self._states()
            await self._write(self._store)
            self._stored_states = states
            # That it was announced is stored behind it: a kill between them has it announced again, rather than never.
            if self._tell_changes(states):
                await self._write(self._store)

    async def _write(self, store: RolloutStore) -> None:
        stored = [tally.stored() for tally in self._tallies.values()]
        try:
            await asyncio.to_thread(store.write, stored)
            self.store_failed = None
        except Exception as error:  # a full disk stops the storing, not the rollout; the report says so
            self.store_failed = in_a_line(error)

    def states(self, usd_per_hour: float) -> tuple[RolloutState, ...]:
        """What is known now, or, where it is stored, was at the last `sync`.

        Args:
            usd_per_hour: price of the machine.
        """
        if self._store is None:
            self.judge()
            self._stored_states = self._states()
        return tuple(_priced(state, usd_per_hour / 3600) for state in self._stored_states)

    def _states(self) -> tuple[RolloutState, ...]:
        return tuple(_state(tally) for _, tally in sorted(self._tallies.items()))


def path_of(resource: Route) -> bytes:
    """The path of a request for a version.

    Examples:
        >>> path_of(Route("a b", 3, None, "predict"))
        b'/v1/models/a%20b/versions/3:predict'
    """
    name = quote(resource.model, safe="")
    version = ""
    if resource.label is not None:
        version = f"/labels/{quote(resource.label, safe='')}"
    elif resource.version is not None:
        version = f"/versions/{resource.version}"
    if resource.method == "infer":
        return f"/v2/models/{name}{version}/infer".encode()
    return f"/v1/models/{name}{version}:{resource.method}".encode()


def _state(tally: _Tally) -> RolloutState:
    return RolloutState(
        model=tally.model,
        kind=tally.kind,
        version=tally.settings.version,
        stable=tally.settings.stable,
        share=tally.settings.share,
        stopped=tally.stopped,
        unclear=tally.unclear,
        rollout=tally.judged,
    )


def _priced(state: RolloutState, usd_per_s: float) -> RolloutState:
    counts = state.rollout.counts
    if not counts.pairs:
        return state
    usd = {
        "new_usd_per_million": counts.new_s * usd_per_s / counts.pairs * 1e6,
        "old_usd_per_million": counts.old_s * usd_per_s / counts.pairs * 1e6,
    }
    return state.model_copy(update=usd)
