"""`kcost serve` and `kcost loadtest` as a user meets them, without a server: wrong usage, and what is shown first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import kcost
from kcost.cli import app
from kcost.core.errors import InputError
from kcost.cost.invoice import NS_PER_HOUR, Meter
from kcost.report import serving_terminal
from kcost.serving.load_report import LoadReport, Quantiles
from kcost.serving.rate_search import RateTrial, conclude
from kcost.serving.server import ServedVersion, Serving
from testing.terminal import printed


def shown(show: Callable[..., None], document: object) -> list[str]:
    lines = printed(show, document)
    assert len(lines) <= 16
    return lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve"], "kcost export"),
        (["serve", "--upstream", "http://127.0.0.1:1"], "price of the machine"),
        (["serve", "x", "--upstream", "http://127.0.0.1:1", "--usd-per-hour", "1"], "leave DIR out"),
        (["serve", "x", "--port", "70000"], "65535"),
        (["serve", "x", "--grpc-port", "70000"], "65535"),
        (["serve", "--upstream", "http://127.0.0.1:1", "--usd-per-hour", "1", "--grpc-port", "0"], "passes HTTP alone"),
        (["serve", "--upstream", "http://127.0.0.1:1", "--usd-per-hour", "1", "--backend", "onnx"], "is of the server"),
        (["serve", "x", "--forecast", "budget.json"], "is of a proxy"),
        (["serve", "x", "--usd-per-hour", "1"], "is of a proxy"),
        (["serve", "--upstream", "http://127.0.0.1:1", "--usd-per-hour", "1", "--trial-s", "1"], "is of the server"),
        (["loadtest", "http://127.0.0.1:1/x", "--find-rate", "--log", "x"], "Poisson"),
        (["loadtest", "http://127.0.0.1:1/x", "--log", "x", "--rate", "5"], "recorded ones"),
        (["loadtest", "http://127.0.0.1:1/x", "--p99-ms", "5"], "--find-rate"),
        (["monitor", "127.0.0.1:8502"], "is no URL such as"),
        (["monitor", "rolout"], "Did you mean 'rollout'?"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    outcome = CliRunner().invoke(app, arguments)
    assert outcome.exit_code == 2
    assert message in outcome.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "nowhere"], "is not there"),
        (["serve", "x", "--deadline-s", "0"], "deadline_s"),
        (["serve", "x", "--trial-s", "nan"], "trial_s"),
        (["serve", "--upstream", "http://127.0.0.1:1", "--usd-per-hour", "1", "--deadline-s", "nan"], "deadline_s"),
        (["serve", "--upstream", "ftp://x", "--usd-per-hour", "1"], "The URL of a server"),
        (["serve", "--upstream", "http://127.0.0.1:1", "--usd-per-hour", "-1"], "price of a machine"),
        (["loadtest", "http://127.0.0.1:9/v1/models/m:predict"], "accepts connections"),
        (["loadtest", "http://127.0.0.1:9/v1/models/m:predict", "--rate", "nan"], "rate"),
        (["loadtest", "http://127.0.0.1:9/v1/models/m:predict", "--body", "nowhere.json"], "nowhere.json"),
        (["loadtest", "http://127.0.0.1:9/v1/models/m"], "Name a model and what is asked of it"),
    ],
)
def test_bad_input(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(app, arguments)
    assert isinstance(outcome.exception, InputError)
    assert outcome.exception.exit_code == 2
    with pytest.raises(InputError, match=message):
        raise outcome.exception


def load_report(statuses: dict[str, int]) -> LoadReport:
    q = Quantiles(p50_ms=1, p90_ms=2, p99_ms=3.14159, max_ms=4, p99_low_ms=3, p99_high_ms=3.5)
    return LoadReport(
        url="http://127.0.0.1/x",
        source="Poisson, seed 0",
        body="made up",
        requests=1000,
        offered_per_s=100.0,
        answered_per_s=99.0,
        duration_s=10.1,
        statuses=statuses,
        connections=12,
        latency=q,
        after_sending=q,
        own_delay=q,
        limits=("The client itself was late.",),
    )


def test_the_p99_of_a_load_test_comes_first() -> None:
    lines = shown(serving_terminal.show_load, load_report({"200": 999, "503": 1}))
    assert lines[0] == "p99 3.14 ms (95%: 3.00 to 3.50) at 100 requests/s: 1,000 requests, 1 failed"
    assert any(line.startswith("limit: The client") for line in lines)


@pytest.mark.parametrize(("statuses", "code"), [({"503": 1000}, 1), ({"200": 1, "503": 999}, 0)])
def test_a_load_test_without_one_answer_has_failed(
    statuses: dict[str, int], code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kcost, "run_loadtest", lambda *_, **__: load_report(statuses))
    outcome = CliRunner().invoke(app, ["loadtest", "http://127.0.0.1:1/v1/models/m:predict"])
    assert outcome.exit_code == code
    assert "1,000 requests" in outcome.output


@pytest.mark.parametrize("holds", [True, False])
def test_a_search_without_a_rate_that_holds_has_failed(holds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = RateTrial(rate_per_s=200, requests=1000, late=0 if holds else 1000, failed=0, p99_ms=9, client_late=False)
    monkeypatch.setattr(kcost, "find_rate", lambda *_, **__: conclude("", 20, [trial] * 30))
    outcome = CliRunner().invoke(app, ["loadtest", "http://127.0.0.1:1/v1/models/m:predict", "--find-rate"])
    assert outcome.exit_code == (0 if holds else 1)


def test_a_rate_and_an_invoice_come_first() -> None:
    trial = RateTrial(rate_per_s=200, requests=1000, late=0, failed=0, p99_ms=9, client_late=False)
    assert (
        shown(serving_terminal.show_rate, conclude("", 20, [trial] * 30))[0] == "200 requests/s hold a p99 of 20.0 ms"
    )
    assert shown(serving_terminal.show_rate, conclude("", 20, []))[0] == "no rate that was tried holds a p99 of 20.0 ms"
    meter = Meter(36, 0)
    for i in range(20):
        meter.leave(meter.arrive((f"[m{i}]", "latest", "x"), i), i, failed=False)
    lines = shown(serving_terminal.show_invoice, meter.invoice(NS_PER_HOUR // 3600 * 100))
    assert lines[0].startswith("$1.00 for 100 s at $36.0 an hour: requests 0.0% + overhead ")
    assert "[m" in lines[3]


def test_what_is_served_fits_a_screen() -> None:
    versions = tuple(ServedVersion(model="m", version=i, state="AVAILABLE") for i in range(30))
    serving = Serving(url="http://127.0.0.1:8501", metrics_url=None, versions=versions)
    assert not any("gRPC" in line for line in shown(serving_terminal.show_serving, serving))
    with_grpc = serving.model_copy(update={"grpc_address": "127.0.0.1:8500"})
    lines = shown(serving_terminal.show_serving, with_grpc)
    assert "gRPC: 127.0.0.1:8500" in lines
    assert lines[0] == "m version 0 AVAILABLE: POST http://127.0.0.1:8501/v1/models/m:predict"
    assert "and 22 more versions" in lines
