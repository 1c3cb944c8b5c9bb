"""New versions beside old ones: which version a request goes to, what was seen of each, and what follows from it."""

from __future__ import annotations

import hashlib
import math
import random
import time
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple
from urllib.parse import quote

from pydantic import Field

from kcost.core.schema import Record
from kcost.risk.rollout import Rollout, RolloutCounts, judge_rollout
from kcost.serving.application import Route
from kcost.serving.monitor.settings import CanarySettings, MonitorSettings, ShadowSettings

JUDGE_S = 1.0
"""Between two judgements, but for failures of a canary: each of these is judged at once."""

_SHARED_OUT = ("predict", "classify", "regress", "infer")
Headers = list[tuple[bytes, bytes]]
Kind = Literal["shadow", "canary"]


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
    new_usd_per_million: float | None = Field(description="of requests that both answered; None before there is one")
    old_usd_per_million: float | None
    rollout: Rollout


class _Tally:
    """What was counted of one new version. Agreement is counted by the process that watches, which reads answers."""

    def __init__(self, kind: Kind, settings: ShadowSettings) -> None:
        self.kind = kind
        self.settings = settings
        self.requests = self.failed = self.pairs = self.unclear = 0
        self.log_ratio_sum = self.log_ratio_squares = 0.0
        self.new_s = self.old_s = self.new_squares = self.old_squares = self.products = 0.0
        self.judged = judge_rollout(RolloutCounts(), settings)
        self.stopped = False

    def counts(self) -> RolloutCounts:
        return RolloutCounts(
            requests=self.requests,
            failed=self.failed,
            pairs=self.pairs,
            log_ratio_sum=self.log_ratio_sum,
            log_ratio_squares=self.log_ratio_squares,
            new_s=self.new_s,
            old_s=self.old_s,
            new_squares=self.new_squares,
            old_squares=self.old_squares,
            products=self.products,
        )

    def pair(self, old: TimedAnswer, new: TimedAnswer) -> None:
        log_ratio = math.log(max(1, new.latency_ns) / max(1, old.latency_ns))
        new_s, old_s = new.machine_ns / 1e9, old.machine_ns / 1e9
        self.pairs += 1
        self.log_ratio_sum += log_ratio
        self.log_ratio_squares += log_ratio**2
        self.new_s += new_s
        self.old_s += old_s
        self.new_squares += new_s**2
        self.old_squares += old_s**2
        self.products += new_s * old_s


class Rollouts:
    """The shadows and canaries of a proxy.

    Args:
        settings: what the user said.
        agreement: served name -> what the process that watches counted: rows, and those answered otherwise.
        tell: told of each decision, and of each that is no more.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        settings: MonitorSettings,
        agreement: Callable[[], Mapping[str, RolloutCounts]],
        tell: Callable[[RolloutState], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tallies = {name: _Tally("shadow", shadow) for name, shadow in settings.shadow.items()}
        self._tallies |= {name: _Tally("canary", canary) for name, canary in settings.canary.items()}
        self._agreement = agreement
        self._tell = tell
        self._clock = clock
        self._random = random.Random(settings.seed)
        self._judged_s = -math.inf

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
        self._tallies[model].requests += 1

    def failed(self, model: str, old_status: int) -> None:
        """A canary did not answer a client; the old version was asked then.

        What neither answers says nothing of either: a request may be wrong, and a server away.
        """
        tally = self._tallies[model]
        if old_status != 200:
            tally.unclear += 1
            return
        tally.requests += 1
        tally.failed += 1
        self.judge()

    def compared(self, model: str, old: TimedAnswer, new: TimedAnswer) -> bool:
        """Two versions were asked what a client has its answer to; gives whether both answered."""
        tally = self._tallies[model]
        if tally.kind == "shadow":  # a canary's request was counted when it answered the client
            if old.status != 200 and new.status != 200:
                tally.unclear += 1
                return False
            tally.requests += 1
        if new.status != 200:
            tally.failed += old.status == 200
            self.judge()
            return False
        if old.status != 200:
            return False
        tally.pair(old, new)
        if self._clock() >= self._judged_s + JUDGE_S:
            self.judge()
        return True

    def judge(self) -> None:
        """Judges every version, rolls canaries back, and tells what has changed."""
        self._judged_s = self._clock()
        agreement = self._agreement()
        for model, tally in self._tallies.items():
            if tally.stopped:  # what comes in late changes no decision that was acted on
                continue
            before = tally.judged.decision
            tally.judged = judge_rollout(tally.counts().plus(agreement.get(model, RolloutCounts())), tally.settings)
            tally.stopped = tally.kind == "canary" and tally.judged.decision == "roll back"
            if tally.judged.decision != before:
                self._tell(_state(model, tally, 0.0))

    def states(self, usd_per_hour: float) -> tuple[RolloutState, ...]:
        """What is known now.

        Args:
            usd_per_hour: price of the machine.
        """
        if not self._tallies:
            return ()
        self.judge()
        return tuple(_state(model, tally, usd_per_hour) for model, tally in sorted(self._tallies.items()))


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


def _state(model: str, tally: _Tally, usd_per_hour: float) -> RolloutState:
    counts, usd_per_s = tally.judged.counts, usd_per_hour / 3600
    return RolloutState(
        model=model,
        kind=tally.kind,
        version=tally.settings.version,
        stable=tally.settings.stable,
        share=tally.settings.share,
        stopped=tally.stopped,
        unclear=tally.unclear,
        new_usd_per_million=counts.new_s * usd_per_s / counts.pairs * 1e6 if counts.pairs else None,
        old_usd_per_million=counts.old_s * usd_per_s / counts.pairs * 1e6 if counts.pairs else None,
        rollout=tally.judged,
    )
