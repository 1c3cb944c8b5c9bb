"""The load generator: when requests are due, how late they were answered, and what a stall does to the p99."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import kcost.serving
from kcost.core.errors import InputError
from kcost.serving.arrivals import Schedule, poisson, read_log
from kcost.serving.http_client import read_url
from kcost.serving.load import BROKEN, IDLE_S, NOT_CONNECTED, TIMED_OUT, LoadGenerator, Observed
from kcost.serving.load_report import report
from kcost.serving.load_test import LoadSettings, find_rate, read_bodies, run_load
from kcost.serving.rate_search import RateReport, RateTrial, conclude, next_rate, requests_of_trial

from .simulated_time import SimulatedTime

Handle = Callable[[float], Awaitable[bytes]]
"""What a server does with a request that came so many seconds after its start; gives the answer's bytes."""

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"


@pytest.fixture
def simulated(monkeypatch: pytest.MonkeyPatch) -> SimulatedTime:
    return SimulatedTime(monkeypatch)


async def serve(handle: Handle) -> tuple[asyncio.Server, int]:
    now_s = asyncio.get_running_loop().time
    start_s = now_s()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                writer.write(await handle(now_s() - start_s))
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    return server, server.sockets[0].getsockname()[1]


async def load(handle: Handle, schedule: Schedule, connections: int = 256, timeout_s: float = 30) -> Observed:
    server, port = await serve(handle)
    async with server:
        target = read_url(f"http://127.0.0.1:{port}/v1/models/m:predict", remote=False)
        return await LoadGenerator(target, schedule, connections, timeout_s).run()


async def at_once(_: float) -> bytes:
    return OK


def p99_s(observed: Observed) -> float:
    return report("", "", "", 1.0, observed).latency.p99_ms / 1000


STALL_S, BEGIN_S, LASTS_S, RATE = 2.0, 0.5, 6.0, 150.0
ANALYTIC_P99_S = STALL_S - 0.01 * LASTS_S
"""Requests that are due during a stall of S seconds wait for its end: their latency is spread evenly from S to 0. Of
all that are due in D seconds, the part (S - x) / D waits longer than x, which is 1% for x = S - 0.01 D."""


def test_a_stall_of_the_server_is_in_the_p99(simulated: SimulatedTime) -> None:
    async def stalling(now_s: float) -> bytes:
        if BEGIN_S < now_s < BEGIN_S + STALL_S:
            await asyncio.sleep(BEGIN_S + STALL_S - now_s)
        return OK

    observed = simulated.run(load(stalling, poisson(RATE, LASTS_S, [b"{}"], seed=3), connections=1000))
    assert (observed.status == 200).all()
    assert p99_s(observed) == pytest.approx(ANALYTIC_P99_S, rel=0.05)


def test_a_stall_of_the_client_is_in_the_p99(simulated: SimulatedTime) -> None:
    """A closed loop, or one that counts from when it sent, would show next to nothing of it."""

    async def stalled() -> Observed:
        simulated.loop.call_later(BEGIN_S, simulated.loop.stall, STALL_S)
        return await load(at_once, poisson(RATE, LASTS_S, [b"{}"], seed=3))

    observed = simulated.run(stalled())
    load_report = report("http://x", "", "", LASTS_S, observed)
    assert load_report.latency.p99_ms / 1000 == pytest.approx(ANALYTIC_P99_S, rel=0.05)
    assert load_report.own_delay.p99_ms / 1000 == pytest.approx(ANALYTIC_P99_S, rel=0.05)
    assert load_report.after_sending.p50_ms < 500
    assert any("client itself was late" in limit for limit in load_report.limits)


def test_a_request_that_waits_for_a_connection_counts_from_when_it_was_due(simulated: SimulatedTime) -> None:
    async def slow(_: float) -> bytes:
        await asyncio.sleep(0.1)
        return OK

    observed = simulated.run(load(slow, Schedule(np.zeros(5), (b"{}",), "all at once"), connections=1))
    latency_s = np.sort((observed.done_ns - observed.due_ns) / 1e9)
    assert latency_s == pytest.approx(0.1 * np.arange(1, 6), rel=0.02)
    assert ((observed.done_ns - observed.sent_ns) / 1e9 < latency_s.max()).all()


def answers_in_turn(*answers: bytes | None) -> Handle:
    """A server that gives each request the next answer, None not in time, and OK after the last."""
    left = list(answers)

    async def answer(_: float) -> bytes:
        now = left.pop(0) if left else OK
        if now is None:
            await asyncio.sleep(30)
            return OK
        return now

    return answer


def test_what_is_not_answered_is_counted(simulated: SimulatedTime) -> None:
    failing = answers_in_turn(OK, b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", b"no http at all\r\n\r\n", None)
    observed = simulated.run(load(failing, Schedule(np.arange(6) * 0.05, (b"{}",), "even"), timeout_s=0.5))
    assert sorted(observed.status.tolist()) == sorted([200, 503, BROKEN, TIMED_OUT, 200, 200])
    load_report = report("", "", "", 1.0, observed)
    assert load_report.statuses == {"200": 3, "503": 1, "broken": 1, "timed out": 1}
    assert load_report.failed == 3
    assert load_report.latency.max_ms >= 500
    assert any("1 timed out" in limit for limit in load_report.limits)


def test_the_whole_of_a_test_with_a_recorded_log(tmp_path: Path, simulated: SimulatedTime) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"at_s": 5, "body": {"instances": [1]}}\n{"at_s": 5.2, "body": {"instances": [2]}}\n')

    async def run(settings: LoadSettings) -> object:
        server, port = await serve(at_once)
        async with server:
            return await run_load(f"http://localhost:{port}/v1/models/m:predict", settings)

    load_report = simulated.run(run(LoadSettings(log=log)))
    assert (load_report.requests, load_report.statuses, load_report.source) == (2, {"200": 2}, "recorded in log.jsonl")
    assert load_report.duration_s >= 0.2
    assert any("662" in limit for limit in load_report.limits)


def test_a_rate_that_holds_is_found(tmp_path: Path, simulated: SimulatedTime) -> None:
    body = tmp_path / "one.json"
    body.write_text("{}")

    async def run() -> object:
        server, port = await serve(at_once)
        async with server:
            settings = LoadSettings(rate_per_s=500, duration_s=0.1, bound_ms=2000, body=body)
            held: list[RateTrial] = []

            def on_trial(trial: RateTrial) -> None:
                held.append(trial)
                if len(held) == 2:
                    raise KeyboardInterrupt  # two rates are enough to see

            with contextlib.suppress(KeyboardInterrupt):
                await find_rate(f"http://127.0.0.1:{port}/x", settings, on_trial)
            return held

    held = simulated.run(run())
    assert [(trial.rate_per_s, trial.requests, trial.holds) for trial in held] == [(500, 662, True), (1000, 662, True)]


def test_a_bound_that_no_rate_holds(tmp_path: Path, simulated: SimulatedTime) -> None:
    body = tmp_path / "one.json"
    body.write_text("{}")

    async def run() -> object:
        server, port = await serve(at_once)
        async with server:
            settings = LoadSettings(rate_per_s=2000, duration_s=0.1, bound_ms=0.0001, body=body)
            return await find_rate(f"http://127.0.0.1:{port}/x", settings, lambda _: None)

    rates = simulated.run(run())
    assert {trial.requests for trial in rates.trials} == {662}
    assert rates.rate_per_s is None  # nothing answers within a ten-thousandth of a millisecond
    assert rates.trials


def test_a_search_of_requests_that_are_never_answered_ends_at_once_and_says_why(
    tmp_path: Path, simulated: SimulatedTime
) -> None:
    """At ever lower rates, of 662 requests each, it would take long to say as much."""
    body = tmp_path / "one.json"
    body.write_text("{}")

    async def refused(_: float) -> bytes:
        return b'HTTP/1.1 404 No\r\ncontent-length: 26\r\n\r\n{"error": "no\nsuch model"}'

    async def run() -> object:
        server, port = await serve(refused)
        async with server:
            settings = LoadSettings(rate_per_s=2000, duration_s=0.1, body=body)
            rates = await find_rate(f"http://127.0.0.1:{port}/x", settings, lambda _: None)
            return rates, await run_load(f"http://127.0.0.1:{port}/x", settings)

    rates, load_report = simulated.run(run())
    assert (rates.outcome, len(rates.trials)) == ("not held", 1)
    why = 'The first: {"error": "no such model"}'
    assert rates.limits[0] == f"662 of 662 requests failed at 2000 requests/s. {why}"
    assert any(limit.endswith(f"{load_report.requests} 404. {why}") for limit in load_report.limits)


@settings(max_examples=15)
@given(st.floats(1, 1e4), st.floats(10, 1e5))
def test_the_search_comes_close_to_the_highest_rate_that_holds(first: float, capacity: float) -> None:
    trials: list[RateTrial] = []
    while (rate := next_rate(trials, first)) is not None:
        late = 0 if rate <= capacity else 500
        trials.append(RateTrial(rate_per_s=rate, requests=1000, late=late, failed=0, p99_ms=1, client_late=False))
    highest = conclude("", 1, trials).rate_per_s
    if capacity >= first / 32:
        assert highest is not None
        assert 0.94 * capacity <= highest <= capacity or len(trials) == 40
    assert requests_of_trial(10, 1) == 662


def test_a_search_ends_where_the_client_is_too_slow() -> None:
    trial = RateTrial(rate_per_s=100, requests=1000, late=500, failed=0, p99_ms=9, client_late=True)
    assert next_rate([trial], 100) is None
    assert conclude("", 1, [trial]).outcome == "client too slow"


def test_poisson_arrivals_are_poisson() -> None:
    due_s = poisson(1000, 20, [b""], seed=1).due_s
    gaps_ms = np.diff(due_s) * 1000
    for at_least in (0.5, 1.0, 2.0):  # the part of gaps that are longer is exp(-t): within five standard errors
        expected = np.exp(-at_least)
        error = (expected * (1 - expected) / len(gaps_ms)) ** 0.5
        assert abs((gaps_ms > at_least).mean() - expected) < 5 * error
    assert abs(len(due_s) - 20_000) < 4 * 20_000**0.5
    assert (np.diff(due_s) >= 0).all()
    assert due_s.max() < 20


@pytest.mark.parametrize("rate", [0, -1, float("nan"), float("inf"), 1e6])
def test_rates_that_are_refused(rate: float) -> None:
    with pytest.raises(InputError):
        poisson(rate, 10, [b""])


@pytest.mark.parametrize(
    "line",
    ["", "1", "{}", '{"at_s": "1"}', '{"at_s": true}', '{"at_s": NaN}', "[" * 2000, '{"at_s": 1}\n{"at_s": 0}'],
)
def test_logs_that_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "log").write_text(line)
    with pytest.raises(InputError):
        read_log(tmp_path / "log", [b"{}"])


def test_bodies_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "bodies"
    path.write_text('{\n "instances": [1]\n}\n')
    assert len(read_bodies(path)) == 1
    path.write_text('{"instances": [1]}\n\n{"instances": [2]}\n')
    assert read_bodies(path) == [b'{"instances": [1]}', b'{"instances": [2]}']
    for text in ("", "no json", '{"a": 1}\nno json'):
        path.write_text(text)
        with pytest.raises(InputError):
            read_bodies(path)
    path.write_text('{"a": 1}\n\n\nno json\n')
    with pytest.raises(InputError, match="whose line 4 is none"):
        read_bodies(path)
    with pytest.raises(InputError):
        read_bodies(tmp_path / "none")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "127.0.0.1:1",
        "https://127.0.0.1/",
        "http://",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1/a b",
        "http://[::1",
    ],
)
def test_urls_that_are_refused(url: str) -> None:
    with pytest.raises(InputError, match="The URL of a server"):
        read_url(url, remote=False)


def test_localhost_is_where_most_servers_listen(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        (family, socket.SOCK_STREAM, 6, "", (address, 80)) for family, address in ((10, "::1"), (2, "127.0.0.1"))
    ]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries)
    assert read_url("http://localhost/x", remote=False).address == "127.0.0.1"
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: entries[:1])
    assert read_url("http://localhost/x", remote=False).address == "::1"


def test_another_machine_is_loaded_only_when_it_is_said() -> None:
    with pytest.raises(InputError, match="on this machine alone"):
        read_url("http://192.0.2.1:80/x", remote=False)
    assert read_url("http://192.0.2.1:80/x", remote=True).address == "192.0.2.1"


def test_serving_needs_no_framework() -> None:
    """The load generator, the proxy and the server itself, where no framework is installed."""
    modules = [f"kcost.serving.{p.stem}" for p in Path(kcost.serving.__file__).parent.glob("*.py")]
    frameworks = ("tensorflow", "keras", "keras_nlp", "jax", "torch")
    code = (
        f"import sys, importlib; from kcost.worker.isolate import hide; hide({frameworks!r})\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "import kcost; kcost.run_loadtest, kcost.serve_proxy, kcost.serve_models\n"
        f"print([name for name in {frameworks!r} if name in sys.modules])"
    )
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (child.returncode, child.stdout) == (0, "[]\n"), child.stderr


def test_a_server_that_is_not_there() -> None:
    with pytest.raises(InputError, match="accepts connections"):
        asyncio.run(run_load("http://127.0.0.1:9/v1/models/m:predict", LoadSettings()))


@pytest.mark.parametrize(
    "call",
    [
        "kcost.run_loadtest('http://127.0.0.1:9/v1/models/m:predict')",
        "kcost.find_rate('http://127.0.0.1:9/v1/models/m:predict', p99_ms=5)",
        "kcost.serve_proxy('http://127.0.0.1:9', usd_per_hour=1.0)",
        "kcost.serve_models('.')",
    ],
)
def test_without_the_extra_a_call_says_what_to_install(call: str) -> None:
    code = (
        "from kcost.worker.isolate import hide; hide(('httptools', 'orjson', 'uvloop', 'uvicorn'))\n"
        f"import kcost\ntry:\n    {call}\nexcept kcost.KcostError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'kcost[serve]'" in done.stdout, done.stderr


def test_grpc_is_an_extra_of_its_own() -> None:
    """Without it HTTP is served all the same."""
    code = (
        "from kcost.worker.isolate import hide; hide(('grpc',))\n"
        "import kcost\nfor port in (0, None):\n"
        "    try: kcost.serve_models('nowhere', grpc_port=port)\n"
        "    except kcost.KcostError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    without_grpc, without_models = done.stdout.split("pip install 'kcost[grpc]'")
    assert "an environment without grpcio" in without_grpc
    assert "nowhere, which is not there" in without_models


def test_what_is_known_of_a_failure_is_kept(simulated: SimulatedTime) -> None:
    refusal = b"HTTP/1.1 503 No\r\ncontent-length: 10\r\n\r\nTry later."
    failing = answers_in_turn(OK, refusal, b"no http at all\r\n\r\n", OK, None)
    observed = simulated.run(load(failing, Schedule(np.arange(6) * 0.05, (b"{}",), "even"), timeout_s=0.5))
    assert observed.status.tolist() == [200, 503, BROKEN, 200, TIMED_OUT, 200]
    assert observed.why[1] == "Try later."
    assert observed.why[2].startswith("it sent what is no HTTP: ")
    assert observed.why[2].endswith("; its request 3 came after 50 ms without one")
    assert observed.why[4] == "it was sent and not answered"
    assert observed.why.keys() == {1, 2, 4}


def test_a_connection_that_nobody_uses_is_closed_before_the_server_does(simulated: SimulatedTime) -> None:
    """Bursts need many connections; the server closes those that it had no request on for long, and a request that is
    sent just then is lost."""

    async def slow(_: float) -> bytes:
        await asyncio.sleep(0.1)
        return OK

    due_s = np.concatenate([np.zeros(20), np.arange(1, 2 * IDLE_S), np.full(20, 2.5 * IDLE_S)])
    observed = simulated.run(load(slow, Schedule(due_s, (b"{}",), "bursts"), connections=20))
    assert (observed.status == 200).all()
    # The one that goes on being used stays; the nineteen others are opened anew for the second burst.
    assert observed.opened == 39


def test_a_server_that_goes_is_told_apart_from_one_that_refuses(simulated: SimulatedTime) -> None:
    async def run() -> Observed:
        server, port = await serve(at_once)

        async def go() -> None:
            await asyncio.sleep(1)
            server.close()
            await server.wait_closed()

        target = read_url(f"http://127.0.0.1:{port}/v1/models/m:predict", remote=False)
        going = asyncio.create_task(go())
        observed = await LoadGenerator(target, Schedule(np.array([0.1, 0.1, 2 * IDLE_S]), (b"{}",), ""), 9, 5).run()
        await going
        return observed

    observed = simulated.run(run())
    assert observed.status.tolist() == [200, 200, NOT_CONNECTED]
    assert f"[Errno {errno.ECONNREFUSED}]" in observed.why[2]


def test_a_search_goes_on_where_the_server_is_what_is_slow(tmp_path: Path, simulated: SimulatedTime) -> None:
    """All connections are busy then, and requests wait for one: the client is not late."""
    body = tmp_path / "one.json"
    body.write_text("{}")

    async def slow(_: float) -> bytes:
        await asyncio.sleep(0.01)
        return OK

    async def run() -> RateReport:
        server, port = await serve(slow)
        async with server:
            settings = LoadSettings(rate_per_s=100, duration_s=0.1, bound_ms=100, body=body, connections=2, spin_s=0.0)
            return await find_rate(f"http://127.0.0.1:{port}/x", settings, lambda _: None)

    highest = simulated.run(run())
    assert highest.outcome == "held"
    assert highest.rate_per_s is not None
    assert 100 < highest.rate_per_s < 200  # two connections with 10 ms each have at most 200
