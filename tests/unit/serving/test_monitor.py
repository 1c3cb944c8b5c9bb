"""What the proxy watches: rows of every form, samples that outlive kills, labels, metrics, and the page's report."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings as hypothesis_settings, strategies as st
from typer.testing import CliRunner

from kcost.api.monitoring import monitor_proxy, monitor_settings
from kcost.cli import app
from kcost.core.errors import InputError, KcostError
from kcost.report.monitor_terminal import show_monitor
from kcost.serving.metrics import Metrics
from kcost.serving.monitor.alerts import alert_rules, dashboard
from kcost.serving.monitor.labels import Labels
from kcost.serving.monitor.process import handle, packed, take_frames
from kcost.serving.monitor.prometheus import samples_of
from kcost.serving.monitor.rows import UnreadableError, document, read_rows
from kcost.serving.monitor.settings import (
    CanarySettings,
    EventSettings,
    MonitorSettings,
    SampleSettings,
    named_references,
    read_settings,
)
from kcost.serving.monitor.store import SampleStore, read_samples
from kcost.serving.monitor.traffic import TrafficCounter
from kcost.serving.monitor.watch import Watch
from testing.terminal import printed
from tests.unit.serving.monitored import REFERENCE, RNG, header, put, report_of, rows_like_the_reference

PROXY = ("serve", "--upstream", "http://127.0.0.1:1", "--usd-per-hour", "1")


def test_rows_are_read_in_every_form() -> None:
    x, p = [[1.0, 2.0], [3.0, 4.0]], [[0.9, 0.1], [0.2, 0.8]]
    requests = [
        {"instances": x},
        {"instances": [{"a": row} for row in x]},
        {"inputs": x},
        {"inputs": {"a": x}},
    ]
    answers = [
        {"predictions": p},
        {"predictions": [{"b": row} for row in p]},
        {"outputs": p},
        {"outputs": {"b": p}},
    ]
    for request, answer in zip(requests, answers, strict=True):
        rows = read_rows(REFERENCE, request, answer, RNG)
        assert rows.columns["confidence"] == pytest.approx([0.9, 0.8])
        assert rows.columns["class"].tolist() == ["no", "yes"]
        assert rows.columns["input value 1"].tolist() == [2, 4]


@pytest.mark.parametrize(
    ("request_", "answer", "because"),
    [
        ({"instances": [[1, 2]]}, {"predictions": [[0.5, 0.2, 0.3]]}, "2 classes"),
        ({"instances": [[1, 2]]}, {"error": "no"}, "neither"),
        ({"instances": [["a", "b"]]}, {"predictions": [[0.5, 0.5]]}, "no array of numbers"),
        ({"instances": [[1, 2], [1, 2, 3]]}, {"predictions": [[0.5, 0.5]] * 2}, "no array of numbers"),
        ({"instances": [[1, 2, 3]]}, {"predictions": [[0.5, 0.5]]}, "numbers a row"),
        ({"instances": [{"a": [1, 2], "b": 1}]}, {"predictions": [[0.5, 0.5]]}, "no tensor"),
        ({"instances": [[1, 2]]}, {"predictions": []}, "no rows"),
        ({"instances": 3}, {"predictions": [[0.5, 0.5]]}, "is no list"),
    ],
)
def test_rows_that_cannot_be_read_say_why(request_: Any, answer: Any, because: str) -> None:
    with pytest.raises(UnreadableError, match=because):
        read_rows(REFERENCE, request_, answer, RNG)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@hypothesis_settings(max_examples=60, deadline=None)
@given(JSON, JSON)
def test_any_json_is_read_or_refused(request_: Any, answer: Any) -> None:
    with contextlib.suppress(UnreadableError):
        read_rows(REFERENCE, {"instances": request_}, {"predictions": answer}, RNG)


@hypothesis_settings(max_examples=40, deadline=None)
@given(st.binary(max_size=60), st.sampled_from(["", "gzip", "br"]))
def test_any_body_is_read_or_refused(body: bytes, encoding: str) -> None:
    with contextlib.suppress(UnreadableError):
        document(body, encoding)


def test_a_compressed_body_is_read() -> None:
    assert document(gzip.compress(b'{"a": NaN}'), "gzip")["a"] != 0


@given(st.lists(st.tuples(st.binary(max_size=9), st.binary(max_size=9)), max_size=4), st.integers(1, 7))
def test_frames_come_out_as_they_went_in(bodies: list[tuple[bytes, bytes]], piece: int) -> None:
    stream = b"".join(packed({"i": i}, *body) for i, body in enumerate(bodies))
    buffer, frames = bytearray(), []
    for start in range(0, len(stream), piece):
        buffer += stream[start : start + piece]
        frames += take_frames(buffer)
    assert [(f.header["i"], f.request, f.answer) for f in frames] == [(i, *b) for i, b in enumerate(bodies)]
    assert not buffer


def stored(tmp_path: Path, **changes: Any) -> tuple[SampleStore, SampleSettings]:
    settings = SampleSettings(folder=tmp_path / "samples", **changes)
    return SampleStore(settings), settings


def test_texts_are_hashed_and_fields_dropped_unless_asked(tmp_path: Path) -> None:
    store, settings = stored(tmp_path, drop=("user",), hash=("age",))
    request = {"instances": [{"text": "Ann", "token_ids": [5, 6], "user": 3, "age": 41, "x": [1.5, {"y": "Bob"}]}]}
    (row,) = store.clean(request, text_ids=frozenset({"token_ids"}))["instances"]
    assert row["x"][0] == 1.5
    assert "user" not in row
    plain = json.dumps(row)
    assert "Ann" not in plain
    assert "Bob" not in plain
    assert "41" not in json.dumps(row["age"]) or row["age"].startswith("sha256:")
    assert all(str(v).startswith("sha256:") for v in (row["text"], row["token_ids"], row["age"], row["x"][1]["y"]))
    assert store.clean("Ann") == row["text"]  # equal stays equal
    other, _ = stored(tmp_path / "other")
    assert other.clean("Ann") != row["text"]  # each folder has a key of its own
    assert (settings.folder / "salt").stat().st_mode & 0o77 == 0
    open_, _ = stored(tmp_path, text=True, hash=("age",))
    assert open_.clean(request)["instances"][0]["text"] == "Ann"
    assert open_.clean(request)["instances"][0]["age"] == row["age"]


def test_samples_are_bounded_in_size_and_age(tmp_path: Path) -> None:
    now = [1e9]
    settings = SampleSettings(folder=tmp_path, max_mib=0.1, max_days=1)
    store = SampleStore(settings, lambda: now[0])
    for i in range(2000):
        store.append({"i": i, "filler": "x" * 200})
    store.close()
    kept = read_samples(tmp_path).samples
    assert sum(p.stat().st_size for p in tmp_path.glob("*.jsonl")) <= 0.1 * (1 << 20)
    assert [s["i"] for s in kept] == list(range(2000 - len(kept), 2000))
    assert len(kept) > 200
    now[0] = time.time() + 2 * 86400
    SampleStore(settings, lambda: now[0]).prune()
    assert read_samples(tmp_path).samples == []


@hypothesis_settings(max_examples=30, deadline=None)
@given(st.integers(0, 200))
def test_a_torn_line_is_skipped_and_said(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    folder = tmp_path_factory.mktemp("samples")
    store = SampleStore(SampleSettings(folder=folder))
    for i in range(5):
        store.append({"i": i, "word": "längs\n"})
    store.close()
    (path,) = folder.glob("*.jsonl")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) - min(cut, len(whole))])
    left = path.read_bytes()
    again = SampleStore(SampleSettings(folder=folder))  # the next process never writes behind a torn line
    again.append({"i": 99})
    again.close()
    stored = read_samples(folder)
    assert [s["i"] for s in stored.samples] == [*range(left.count(b"\n")), 99]
    assert stored.torn == (not left.endswith(b"\n") and bool(left))


def test_a_watch_tells_of_drift_once_and_when_it_is_over(tmp_path: Path) -> None:
    settings = MonitorSettings(window_rows=50, usd_per_error=0.5, events=EventSettings(file=tmp_path / "events.jsonl"))
    seconds = [0.0]
    watch = Watch(settings, {"m": REFERENCE}, lambda: seconds[0])
    for i, shift in enumerate([0, 0, 0, 0, 5, 5, 5, 0, 0, 0]):
        for part in range(5):
            put(watch, f"{i}-{part}", *rows_like_the_reference(10, shift))
        seconds[0] += 10
    put(watch, "x", {"instances": [[1]]}, {"predictions": [[1]]})
    put(watch, "y", *rows_like_the_reference(1), model="unknown")
    watch.close()
    report = watch.watched()
    (model,) = report.models
    assert (model.drift.rows, model.drift.windows, report.requests, report.unreadable) == (500, 10, 52, 1)
    assert model.rows_per_s == pytest.approx(500 / 90)
    assert model.drift.cost is not None
    assert model.drift.cost.rows_per_month == pytest.approx(500 / 90 * 3600 * 730)
    events = [json.loads(line) for line in (tmp_path / "events.jsonl").read_text().splitlines()]
    assert {(e["event"], e["feature"]) for e in events} == {
        (kind, f"input value {i}") for kind in ("drift", "drift over") for i in (0, 1)
    }
    first = next(e for e in events if e["event"] == "drift")
    assert first["window"] in (5, 6)
    assert first["false_alarm_probability"] < 0.01
    assert set(first["usd_per_month"]) >= {"value", "low", "high"}


def test_events_go_to_webhooks_and_failures_are_counted(tmp_path: Path) -> None:
    posted: list[dict[str, Any]] = []

    class Hook(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            posted.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Hook) as hook:
        threading.Thread(target=hook.serve_forever, daemon=True).start()
        urls = (f"http://127.0.0.1:{hook.server_port}/", "http://127.0.0.1:9/")
        watch = Watch(MonitorSettings(window_rows=50, events=EventSettings(webhooks=urls)), {"m": REFERENCE})
        put(watch, "1", *rows_like_the_reference(100, 9.0))
        watch.close()
        hook.shutdown()
    assert {e["feature"] for e in posted} == {"input value 0", "input value 1"}
    assert watch.watched().webhook_failures == 2


def test_labels_give_live_accuracy_with_its_interval() -> None:
    watch = Watch(MonitorSettings(), {"m": REFERENCE})
    put(watch, "a", {"instances": [[0, 0]] * 3}, {"predictions": [[0.9, 0.1]] * 3})
    put(watch, "b", {"instances": [[0, 0]]}, {"predictions": [[0.2, 0.8]]})
    wrong = watch.label(b'{"labels": [{"id": "a", "label": "no"}]}', 1.0)
    assert "1 labels of 3 rows" in wrong["error"]
    entries = [{"id": "a", "labels": ["no", 0, "yes"]}, {"id": "b", "label": 1}, {"id": "c", "label": 1}]
    counts = watch.label(json.dumps({"labels": entries}).encode(), 1.0)
    assert counts == {"accepted": 2, "unknown_ids": 1, "stored": False}
    live = watch.watched().models[0].live
    assert live is not None
    assert live.score.value == 0.75
    assert live.score.low < 0.75 < live.score.high
    assert live.overconfidence is not None
    assert live.overconfidence.value == pytest.approx(3.5 / 4 - 0.75)
    for body in (b"", b"[]", b"{}", b'{"labels": [1]}', b'{"labels": [{"id": 1, "label": 1}]}'):
        assert "error" in watch.label(body, 1.0)
    put(watch, "d", {"instances": [[0, 0]]}, {"predictions": [[0.2, 0.8]]})
    assert "no class" in watch.label(b'{"labels": [{"id": "d", "label": "perhaps"}]}', 1.0)["error"]


def test_answers_that_wait_for_labels_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kcost.serving.monitor.labels.MOST_NUMBERS", 5 * 66)
    labels = Labels(REFERENCE)
    for i in range(50):
        labels.answered(str(i), read_rows(REFERENCE, *rows_like_the_reference(2), RNG))
    assert [i for i in range(50) if labels.knows(str(i))] == [45, 46, 47, 48, 49]


def test_traffic_is_counted_in_bounded_memory() -> None:
    now = [0.0]
    counter = TrafficCounter(lambda: now[0])
    for i in range(30_000):
        counter.arrive()
        now[0] += 0.1
        counter.leave(100.0, failed=i % 10 == 0)
    traffic = counter.traffic()
    assert (traffic.requests, traffic.failed, traffic.under_way, traffic.most_under_way) == (30_000, 3000, 0, 1)
    assert traffic.requests_per_s == pytest.approx(10, rel=0.05)
    assert traffic.failed_share == pytest.approx(0.1, abs=0.01)
    assert traffic.p99_ms == pytest.approx(100, rel=1e-6)
    assert len(traffic.history) <= 180


def test_the_conclusion_comes_first() -> None:
    settings = MonitorSettings(window_rows=50, usd_per_error=1.0, references={"m": Path("r")})
    watch = Watch(settings, {"m": REFERENCE})
    assert report_of(watch, settings).outcome == "can't tell"
    put(watch, "1", *rows_like_the_reference(100))
    assert report_of(watch, settings).conclusion.startswith("healthy: no drift of m in 2 windows")
    put(watch, "2", *rows_like_the_reference(100, 4.0))
    drifted = report_of(watch, settings)
    assert drifted.outcome == "drifted"
    pattern = (
        r"drifted: m: input value \d was .* is .* and 1 more \(a false alarm at most .* cost .*(more|less) a month"
    )
    assert re.match(pattern, drifted.conclusion)
    failing = TrafficCounter(time.monotonic)
    failing.arrive()
    failing.leave(1.0, failed=True)
    assert report_of(watch, settings, failing).conclusion.startswith("failing: 100.0% of the last")
    slow = MonitorSettings(p99_ms=1e-9)
    assert "more than the" in report_of(None, slow).conclusion
    assert report_of(None, MonitorSettings()).outcome == "can't tell"


EXPORTED = re.compile(r"^([a-z_:][a-z0-9_:]*)(\{.*\})? (\S+)$", re.IGNORECASE)


def exported_names() -> set[str]:
    """Of metrics on a page with everything on it."""
    canary = CanarySettings(version=2, stable=1)
    settings = MonitorSettings(window_rows=50, usd_per_error=1.0, references={"m": Path("r")}, canary={"m": canary})
    watch = Watch(settings, {"m": REFERENCE})
    put(watch, "1", *rows_like_the_reference(100))
    watch.label(json.dumps({"labels": [{"id": "1", "labels": [0] * 100}]}).encode(), 1.0)
    metrics = Metrics()
    metrics.count("m", "OK")
    metrics.time(":tensorflow:serving:request_latency", "m", "Predict", 1000)
    text = metrics.text(samples_of(report_of(watch, settings)))
    names, kinds = set(), {}
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name not in kinds, f"{name} is told in two places"
            kinds[name] = kind
            continue
        match = EXPORTED.match(line)
        assert match, line
        float(match[3])
        names.add(match[1])
    for name, kind in kinds.items():
        if name.startswith("kcost_"):
            assert name.endswith("_total") == (kind == "counter"), name
    return names


def test_rules_and_dashboard_ask_for_what_the_proxy_exports(tmp_path: Path) -> None:
    names = exported_names()
    whole = alert_rules(50.0) + json.dumps([t["expr"] for p in dashboard()["panels"] for t in p["targets"]])
    queried = set(re.findall(r"(?:kcost_|:tensorflow:)[a-z0-9_:]+", whole))
    assert len(queried) > 12
    assert queried <= names
    assert {n for n in names if n.startswith("kcost_drift")} - queried <= {
        "kcost_drift_windows_total",
        "kcost_drift_extra_errors_ratio",
    }
    assert "KcostRequestsAreLate" not in alert_rules(None)
    ids = [p["id"] for p in dashboard()["panels"]]
    assert len(ids) == len(set(ids))


def test_promtool_accepts_the_rules(tmp_path: Path) -> None:
    import shutil

    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed; on Debian: apt-get install prometheus")
    path = tmp_path / "rules.yml"
    for limit in (None, 50.0):
        path.write_text(alert_rules(limit))
        checked = subprocess.run([promtool, "check", "rules", str(path)], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_settings_are_read_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "monitor.toml"
    path.write_text('window_rows = 100\n[references]\nm = "r.json"\n[samples]\nfolder = "s"\n[events]\nfile = "e"\n')
    settings = read_settings(path)
    assert settings.references == {"m": tmp_path / "r.json"}
    assert settings.samples is not None
    assert (settings.samples.folder, settings.events.file) == (tmp_path / "s", tmp_path / "e")
    for text in ("window = 1", "x", "window_rows = 1", '[events]\nwebhooks = ["file:///etc/passwd"]'):
        path.write_text(text)
        with pytest.raises(InputError):
            read_settings(path)
    path.write_text("[shadow.m]\nversion = 2\n")
    with pytest.raises(InputError, match="A shadow or a canary is of a model with a reference"):
        monitor_settings(path, [], None)
    assert named_references(["a=b", "c/d"]) == {"a": Path("b"), "": Path("c/d")}
    with pytest.raises(InputError):
        named_references(["a", "b"])


def test_no_framework_is_needed() -> None:
    modules = "kcost.serving.proxy, kcost.serving.load_test, kcost.serving.monitor.process, kcost.api.monitoring"
    code = f"import sys, {modules}; print([m for m in ('keras', 'tensorflow', 'jax', 'torch') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_terminal_shows_the_conclusion_first_on_one_screen() -> None:
    settings = MonitorSettings(window_rows=50, usd_per_error=1.0, references={"m": Path("r")})
    watch = Watch(settings, {"m": REFERENCE})
    put(watch, "1", *rows_like_the_reference(100, 4.0))
    report = report_of(watch, settings)
    lines = printed(show_monitor, report, "http://127.0.0.1:1/")
    assert " ".join(lines[:3]).startswith("drifted: m: ")
    assert len(lines) <= 18
    assert sum(line.startswith("limit: ") for line in lines) <= 3
    assert "http://127.0.0.1:1/kcost/" in lines[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reference"], "none of"),
        (["rules", "more"], "none of"),
        (["http://127.0.0.1:9", "more"], "no URL"),
    ],
)
def test_wrong_usage(arguments: list[str], message: str) -> None:
    ended = CliRunner().invoke(app, ["monitor", *arguments])
    assert ended.exit_code == 2
    assert message in ended.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["monitor", "http://127.0.0.1:9"], "Connection refused"),
        (["monitor", "ftp://nowhere"], "A proxy that is monitored"),
        (["monitor", "rules", "--p99-ms", "-1"], "positive"),
        (["monitor", "reference", "nowhere"], "nowhere"),
        (
            ["serve", "--upstream", "http://127.0.0.1:1", "--usd-per-hour", "1", "--reference", "nowhere"],
            "A reference is",
        ),
        ([*PROXY, "--monitor", "nowhere"], "TOML"),
        ([*PROXY, "--usd-per-error", "-1"], "at least 0"),
    ],
)
def test_bad_input(arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    ended = CliRunner().invoke(app, arguments)
    assert isinstance(ended.exception, KcostError)
    assert ended.exception.exit_code in (2, 3)
    assert message in str(ended.exception)


def test_a_server_that_is_no_proxy_is_refused() -> None:
    class Other(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b'{"schema": 1, "outcome": "splendid"}')

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Other) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(InputError, match="outcome"):
            monitor_proxy(f"http://127.0.0.1:{other.server_port}")
        other.shutdown()


def test_an_unforeseen_error_is_told_and_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path))
    watch = Watch(MonitorSettings(), {"m": REFERENCE})

    def fail(*_: object) -> None:
        raise ZeroDivisionError("surprise")

    monkeypatch.setattr("kcost.serving.monitor.watch.read_rows", fail)
    request, answer = rows_like_the_reference(1)
    frame = packed({"kind": "request", **header()}, json.dumps(request).encode(), json.dumps(answer).encode())
    (taken,) = take_frames(bytearray(frame))
    handle(watch, taken)
    report = watch.watched()
    assert report.unreadable == 1
    assert "surprise" in str(report.unreadable_because)
    assert list(tmp_path.glob("kcost-error-*.log"))
