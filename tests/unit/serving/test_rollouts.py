"""A canary and a shadow in the proxy: who answers what, what happens where the new version fails, and when it ends."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import kcost
import kcost.serving.bodies as bodies_module
from kcost.cli import app
from kcost.core.errors import InputError
from kcost.cost.invoice import Meter
from kcost.risk.rollout import RolloutCounts
from kcost.serving.bodies import Bodies
from kcost.serving.monitor.monitor import Monitor
from kcost.serving.monitor.report import rollout_sentence
from kcost.serving.monitor.rollouts import Rollouts, RolloutState, path_of
from kcost.serving.monitor.settings import CanarySettings, MonitorSettings, ShadowSettings, read_settings
from kcost.serving.proxy import Proxy
from kcost.serving.routes import Route, route
from tests.unit.serving.fakes import ask
from tests.unit.serving.monitored import PREDICT, REFERENCE
from tests.unit.serving.proxied import reply, timed, with_proxy

OLD, NEW = "/v1/models/m/versions/1:predict", "/v1/models/m/versions/2:predict"
ROW = json.dumps({"instances": [[0.0, 0.0]]}).encode()


def canary(**changes: Any) -> MonitorSettings:
    return MonitorSettings(canary={"m": CanarySettings(version=2, stable=1, **changes)})


class Versions:
    """A server of two versions. `status` says what each answers; what was asked is kept."""

    def __init__(self, new: str = "200 OK", old: str = "200 OK") -> None:
        self.status = {OLD: old, NEW: new}
        self.paths: list[str] = []

    def __call__(self, head: bytes, body: bytes) -> bytes:
        path = head.split(b" ")[1].decode()
        self.paths.append(path)
        status = self.status.get(path, "200 OK")
        if status == "never":
            return b"never"
        return reply(status, json.dumps({"predictions": [[0.9, 0.1]], "path": path}).encode()) if status else b""


def with_canary(versions: Versions, settings: MonitorSettings, steps: Callable[[Proxy], Any], **options: Any) -> None:
    """The process that watches is not started: who answers what does not depend on it."""
    monitor = Monitor("http://x", settings, {"m": REFERENCE})

    async def run(proxy: Proxy) -> None:
        await steps(proxy)
        for _ in range(100):  # what is asked beside, after clients have their answers
            if not proxy.invoice().under_way:
                break
            await asyncio.sleep(0.01)

    with_proxy(versions, run, monitor=monitor, **options)


def state_of(proxy: Proxy) -> RolloutState:
    (state,) = proxy.monitor.rollouts.states(1.0)
    return state


async def answered_by(proxy: Proxy, path: str = PREDICT, body: bytes = ROW, **headers: str) -> str:
    status, text = await ask(proxy, "POST", path, body, **headers)
    assert status == 200
    return str(json.loads(text)["path"])


def test_a_share_of_the_requests_is_answered_by_the_canary_and_compared_with_the_old_version() -> None:
    versions = Versions()

    async def steps(proxy: Proxy) -> None:
        answered = Counter([await answered_by(proxy) for _ in range(200)])
        assert answered.keys() == {OLD, NEW}
        assert 20 <= answered[NEW] <= 80
        assert await answered_by(proxy, "/v1/models/m/versions/5:predict") == "/v1/models/m/versions/5:predict"
        assert await answered_by(proxy, "/v1/models/m/labels/beta:predict") == "/v1/models/m/labels/beta:predict"
        assert await answered_by(proxy, "/v1/models/m:classify") == "/v1/models/m/versions/1:classify"
        assert await answered_by(proxy, "/v2/models/m/infer") == "/v2/models/m/versions/1/infer"
        assert await answered_by(proxy, "/v1/models/other:predict") == "/v1/models/other:predict"
        await asyncio.sleep(0.05)
        state = state_of(proxy)
        assert state.rollout.counts.requests == answered[NEW]
        assert 0 < state.rollout.counts.pairs <= answered[NEW]
        lines = {(line.version, line.caller): line.requests for line in proxy.invoice().lines if line.model == "m"}
        assert (lines["1", ""], lines["2", ""]) == (answered[OLD] + 2, answered[NEW])
        assert lines["1", "(shadow)"] == lines["2", "(shadow)"] == state.rollout.counts.pairs

    with_canary(versions, canary(share=0.25), steps)


def test_requests_with_the_same_header_go_to_the_same_version() -> None:
    async def steps(proxy: Proxy) -> None:
        async def by_user() -> dict[int, str]:
            return {i: await answered_by(proxy, x_user=f"user {i}") for i in range(60)}

        first = await by_user()
        assert set(first.values()) == {OLD, NEW}
        assert await by_user() == first
        label = "/v1/models/m/labels/stable:predict"
        assert {i: await answered_by(proxy, label, x_user=f"user {i}") for i in range(60)} == first

    with_canary(Versions(), canary(share=0.5, sticky_header="X-User", label="stable"), steps)


def test_those_who_had_the_new_version_keep_it_when_its_share_grows() -> None:
    users = [[(b"x-user", str(i).encode())] for i in range(300)]
    had: set[int] = set()
    for share in (0.05, 0.2, 0.6, 1.0):
        rollouts = Rollouts(canary(share=share, sticky_header="X-User"), dict, lambda _: None)
        choices = [rollouts.choose(route("POST", PREDICT.encode()), headers) for headers in users]
        has = {i for i, choice in enumerate(choices) if choice is not None and choice.fallback is not None}
        assert had <= has
        assert len(has) == pytest.approx(300 * share, abs=40)
        had = has


@pytest.mark.parametrize("new", ["500 No", "404 None", "429 Busy", "400 Bad", "", "never"])
def test_where_the_canary_fails_the_old_version_answers_and_the_failure_is_counted(new: str) -> None:
    versions = Versions(new=new)

    async def steps(proxy: Proxy) -> None:
        assert await answered_by(proxy) == OLD
        state = state_of(proxy)
        assert (state.rollout.counts.requests, state.rollout.counts.failed, state.unclear) == (1, 1, 0)
        lines = {line.version: (line.requests, line.failed) for line in proxy.invoice().lines}
        assert lines == {"1": (1, 0), "2": (1, 1)}
        traffic = proxy.monitor.traffic.traffic()
        assert (traffic.requests, traffic.failed) == (1, 0)  # the client has an answer

    with_canary(versions, canary(share=1.0), steps, timeout_s=0.4)


@pytest.mark.parametrize(("size", "compared"), [(400, 1), (600, 0)])
def test_what_is_compared_counts_among_the_bodies_of_all_requests(
    size: int, compared: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays in memory after its client has the answer; what clients ask goes first."""
    monkeypatch.setattr(bodies_module, "MOST_BODIES_BYTES", 1000)
    bodies = Bodies(1000)

    async def steps(proxy: Proxy) -> None:
        assert await answered_by(proxy, body=ROW.ljust(size)) == NEW
        assert bodies.held_bytes == size * compared
        await asyncio.sleep(0.05)
        assert state_of(proxy).rollout.counts.pairs == compared
        assert bodies.held_bytes == 0

    with_canary(Versions(), canary(share=1.0), steps, bodies=bodies)


def test_what_neither_version_answers_says_nothing_of_either() -> None:
    versions = Versions(new="400 Bad", old="400 Bad")

    async def steps(proxy: Proxy) -> None:
        for _ in range(20):
            assert (await ask(proxy, "POST", PREDICT, b"wrong"))[0] == 400
        state = state_of(proxy)
        assert (state.unclear, state.rollout.counts) == (20, RolloutCounts())
        assert state.rollout.decision == "can't tell"

    with_canary(versions, canary(share=1.0), steps)


def test_a_canary_that_fails_is_rolled_back_within_a_few_requests_and_asked_no_more() -> None:
    versions = Versions(new="500 No")
    sentences: list[str] = []
    monitor = Monitor("http://x", canary(share=1.0), {"m": REFERENCE}, sentences.append)

    async def steps(proxy: Proxy) -> None:
        for _ in range(30):
            assert await answered_by(proxy) == OLD
        assert 1 < versions.paths.count(NEW) < 6
        state = state_of(proxy)
        assert (state.rollout.decision, state.stopped) == ("roll back", True)
        assert state.rollout.weakest_first[0] == "failed"

    with_proxy(versions, steps, monitor=monitor)
    assert len(sentences) == 1
    assert sentences[0].startswith("roll back: version 2 of m, canary of version 1, is asked no more (")
    assert "failed breaks its limit" in sentences[0]


def test_a_version_that_holds_all_gates_is_promoted_and_told_of_once() -> None:
    decided: list[RolloutState] = []
    agreement: dict[str, RolloutCounts] = {}
    now = [0.0]
    rollouts = Rollouts(canary(), lambda: agreement, decided.append, lambda: now[0])
    rng = random.Random(0)
    for i in range(1, 1001):
        now[0] += 0.01
        latency = round(1e6 * rng.lognormvariate(0, 0.2))
        rollouts.answered("m")
        assert rollouts.compared("m", timed(), timed(latency_ns=latency, machine_ns=latency))
        agreement["m"] = RolloutCounts(rows=i, row_squares=i, otherwise=i // 500)
    (state,) = rollouts.states(3.6)
    assert state.rollout.decision == "promote"
    assert not state.stopped
    assert state.old_usd_per_million == pytest.approx(1e-3 * 3.6 / 3600 * 1e6)
    assert [s.rollout.decision for s in decided] == ["promote"]
    assert rollout_sentence(state).startswith("promote: version 2 of m, canary of version 1 (at least 99.9% that")


def test_a_canary_that_fails_beside_is_counted_once_a_request() -> None:
    rollouts = Rollouts(canary(), dict, lambda _: None)
    rollouts.answered("m")
    assert not rollouts.compared("m", timed(), timed(500))
    rollouts.answered("m")
    assert not rollouts.compared("m", timed(500), timed(500))
    counts = rollouts.states(1.0)[0].rollout.counts
    assert (counts.requests, counts.failed, counts.pairs) == (2, 1, 0)


def test_neither_version_is_asked_first_more_often() -> None:
    """Whoever is asked first finds the machine colder."""
    rollouts = Rollouts(canary(), dict, lambda _: None)
    old, new = (Route("m", version, None, "predict") for version in (1, 2))
    first = Counter(rollouts.in_drawn_order(old, new)[0] for _ in range(1000))
    assert 400 < first[old] < 600


def test_a_shadow_is_not_asked_what_it_has_answered() -> None:
    settings = MonitorSettings(shadow={"m": ShadowSettings(version=2, share=1.0)})
    rollouts = Rollouts(settings, dict, lambda _: None)
    assert rollouts.choose(Route("m", None, None, "predict"), []) is None
    assert rollouts.shadow_of(Route("m", 2, None, "predict")) is None
    assert rollouts.shadow_of(Route("n", None, None, "predict")) is None
    beside = rollouts.shadow_of(Route("m", None, "x", "predict"))
    assert beside is not None
    assert path_of(beside) == NEW.encode()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[canary.m]\nversion = 2\n", "stable: Field required"),
        ("[canary.m]\nversion = 2\nstable = 2\n", "`stable` is another version"),
        ("[canary.m]\nversion = 2\nstable = 1\nshare = 0\n", "share: "),
        ("[canary.m]\nversion = 2\nstable = 1\nsticky_header = 'a b'\n", "sticky_header: "),
        ("[shadow.m]\nversion = 2\nlabel = 'stable'\n", "name that version, too"),
        ("[shadow.m]\nversion = 2\n[canary.m]\nversion = 2\nstable = 1\n", "m has both"),
        ("[canary.m]\nversion = 2\nstable = 1\nstop = true\n", "stop: Extra inputs"),
    ],
)
def test_settings_that_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "monitor.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        read_settings(tmp_path / "monitor.toml")


@pytest.mark.parametrize(
    ("counts", "code", "words"),
    [
        (RolloutCounts(requests=9, failed=9), 1, "roll back: version 2 of m, canary of version 1"),
        (RolloutCounts(), 3, "can't tell: version 2 of m"),
        (
            RolloutCounts(requests=900, rows=900, row_squares=900, pairs=900, new_s=9, old_s=9, products=0.09)
            .plus(RolloutCounts(new_squares=0.09, old_squares=0.09)),
            0,
            "promote: version 2 of m",
        ),
    ],
)  # fmt: skip
def test_the_exit_code_is_the_decision(
    counts: RolloutCounts, code: int, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rollouts = Rollouts(canary(), lambda: {"m": counts}, lambda _: None)
    plain = Monitor("http://x", MonitorSettings(), {}).report(Meter(1.0, 0).invoice(10**9))
    made = plain.model_copy(update={"rollouts": rollouts.states(1.0)})
    monkeypatch.setattr(kcost, "monitor_proxy", lambda url: made)
    outcome = CliRunner().invoke(app, ["monitor", "rollout", "http://127.0.0.1:1"])
    assert outcome.exit_code == code, outcome.output
    assert outcome.stdout.startswith(words)
    assert all(gate in outcome.stdout for gate in ("disagreement", "failed", "latency", "cost"))


def test_a_proxy_without_a_rollout_says_what_to_write(monkeypatch: pytest.MonkeyPatch) -> None:
    made = Monitor("http://x", MonitorSettings(), {}).report(Meter(1.0, 0).invoice(10**9))
    monkeypatch.setattr(kcost, "monitor_proxy", lambda url: made)
    outcome = CliRunner().invoke(app, ["monitor", "rollout", "http://127.0.0.1:1"])
    assert isinstance(outcome.exception, InputError)
    assert "[canary.NAME]" in str(outcome.exception)
    assert CliRunner().invoke(app, ["monitor", "rollout"]).exit_code == 2


def test_the_end_of_a_proxy_ends_what_it_asks_by_itself() -> None:
    versions, bodies = Versions(), Bodies(1000)

    async def steps(proxy: Proxy) -> None:
        versions.status[OLD] = "never"
        assert (await ask(proxy, "POST", PREDICT, ROW))[0] == 200
        async with asyncio.timeout(20):
            while OLD not in versions.paths:
                await asyncio.sleep(0.01)
        assert (proxy.invoice().under_way, bodies.held_bytes) == (1, len(ROW))
        await proxy.close()
        assert (proxy.invoice().under_way, bodies.held_bytes) == (0, 0)
        await asyncio.sleep(0.05)
        assert state_of(proxy).rollout.counts.pairs == 0

    with_canary(versions, canary(share=1.0), steps, bodies=bodies, timeout_s=60.0)
