"""A proxy with the process that watches: pages, labels, kills, a watcher that is too busy."""

from __future__ import annotations

import asyncio
import html
import http.client
import http.server
import json
import os
import random
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from kcost.cost.forecast import Forecast
from kcost.serving.bodies import Bodies
from kcost.serving.http_server import HttpServer, HttpSettings
from kcost.serving.monitor.monitor import Monitor
from kcost.serving.monitor.settings import CanarySettings, MonitorSettings, SampleSettings, ShadowSettings
from kcost.serving.monitor.store import read_samples
from kcost.serving.proxy import Proxy
from tests.unit.report.browser import CHROMIUM
from tests.unit.serving.fakes import ask
from tests.unit.serving.monitored import PREDICT, REFERENCE
from tests.unit.serving.proxied import reply, with_proxy


def with_watching_proxy(settings: MonitorSettings, steps: Callable[[Proxy], Awaitable[None]], **options: Any) -> None:
    """A proxy with the process that watches, before a server that answers as the reference's model does."""
    monitor = Monitor("http://x", settings, {"m": REFERENCE})

    async def around(proxy: Proxy) -> None:
        await monitor.start()
        try:
            await steps(proxy)
        finally:
            await monitor.close()

    def answer(head: bytes, body: bytes) -> bytes:
        count = len(json.loads(body)["instances"])
        return reply("200 OK", json.dumps({"predictions": [[0.9, 0.1]] * count}).encode())

    with_proxy(answer, around, monitor=monitor, bodies=Bodies(1 << 20), **options)


async def report_when(proxy: Proxy, ready: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
    for _ in range(200):
        report: dict[str, Any] = json.loads((await ask(proxy, "GET", "/kcost/monitor"))[1])
        if ready(report):
            return report
        await asyncio.sleep(0.05)
    raise AssertionError(report)


def test_labels_that_were_acknowledged_outlive_a_kill_of_the_process_that_watches(tmp_path: Path) -> None:
    settings = MonitorSettings(
        references={"m": tmp_path}, samples=SampleSettings(folder=tmp_path / "samples", share=1.0)
    )

    async def steps(proxy: Proxy) -> None:
        acknowledged: list[str] = []

        async def one(i: int) -> None:
            body = json.dumps({"instances": [[0.0, 0.0]]}).encode()
            assert (await ask(proxy, "POST", PREDICT, body, x_request_id=f"r{i}"))[0] == 200
            labels = {"labels": [{"id": f"r{i}", "label": "no"}]}
            status, counts = await ask(proxy, "POST", "/kcost/labels", json.dumps(labels).encode())
            if status == 200 and json.loads(counts)["accepted"]:
                assert json.loads(counts)["stored"]
                acknowledged.append(f"r{i}")

        for start in range(0, 40, 20):
            tasks = [asyncio.create_task(one(start + i)) for i in range(20)]
            while len(acknowledged) < start // 2 + 5 and not all(t.done() for t in tasks):
                await asyncio.sleep(0)
            process_id = proxy.monitor.watcher_process_id
            assert process_id is not None
            os.kill(process_id, signal.SIGKILL)
            await asyncio.gather(*tasks)  # no request fails with the process that watches it
            for _ in range(200):
                if proxy.monitor.watcher_process_id not in (None, process_id):
                    break
                await asyncio.sleep(0.05)
        samples = read_samples(tmp_path / "samples")
        stored = {s["id"] for s in samples.samples if s["kind"] == "label"}
        assert len(acknowledged) >= 5
        assert set(acknowledged) <= stored
        report = await report_when(proxy, lambda r: r["watcher"]["restarts"] == 2)
        assert any("began anew 2 time(s)" in limit for limit in report["limits"])

    with_watching_proxy(settings, steps)


def test_a_proxy_watches_and_says_so_on_all_its_pages(tmp_path: Path) -> None:
    settings = MonitorSettings(window_rows=20, references={"m": tmp_path})

    async def steps(proxy: Proxy) -> None:
        body = json.dumps({"instances": [[9.0, 9.0]] * 60}).encode()
        assert (await ask(proxy, "POST", PREDICT, body))[0] == 200
        report = await report_when(proxy, lambda r: bool(r["watched"]["requests"]))
        assert report["outcome"] == "drifted"
        status, text = await ask(proxy, "GET", "/kcost/metrics")
        assert status == 200
        assert 'kcost_drifted{model_name="m"} 1' in text.decode()
        assert ':tensorflow:serving:request_count{model_name="m",status="OK"} 1' in text.decode()
        assert b"<title>kcost monitor</title>" in (await ask(proxy, "GET", "/kcost/"))[1]
        assert (await ask(proxy, "GET", "/kcost/nothing"))[0] == 404
        assert (await ask(proxy, "DELETE", "/kcost/labels"))[0] == 404
        assert (await ask(proxy, "POST", "/kcost/labels", b"no"))[0] == 400

    with_watching_proxy(settings, steps)


def test_a_busy_watcher_costs_no_request_and_is_told_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kcost.serving.monitor.link.MOST_WAITING_BYTES", 100_000)
    settings = MonitorSettings(window_rows=20, references={"m": tmp_path})

    async def steps(proxy: Proxy) -> None:
        process_id = proxy.monitor.watcher_process_id
        assert process_id is not None
        os.kill(process_id, signal.SIGSTOP)
        body = json.dumps({"instances": [[0.0, 0.0]] * 1000}).encode()
        for _ in range(40):
            assert (await ask(proxy, "POST", PREDICT, body))[0] == 200
        os.kill(process_id, signal.SIGCONT)
        report = await report_when(proxy, lambda r: bool(r["watched"]["models"]))
        watcher = report["watcher"]
        assert watcher["offered"] == 40
        assert 0 < watcher["dropped"] < 40
        assert any(limit.startswith("sampled: ") for limit in report["limits"])

    with_watching_proxy(settings, steps)


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH; on Debian: apt-get install chromium")
def test_the_live_page_draws_what_the_proxy_says(tmp_path: Path) -> None:
    canary = CanarySettings(version=2, stable=1, share=1.0)
    settings = MonitorSettings(window_rows=20, references={"m": tmp_path}, usd_per_error=0.5, canary={"m": canary})
    forecast = Forecast(way="w", source="f", usd_per_hour=0.5, machine_s=1e-9, batch=8, busy_share=0.5)

    async def steps(proxy: Proxy) -> None:
        body = json.dumps({"instances": [[9.0, 9.0]] * 60}).encode()
        for _ in range(3):
            await ask(proxy, "POST", PREDICT, body, x_team="<b>blue</b>")
        await report_when(proxy, lambda r: bool(r["watched"]["requests"]))
        server = HttpServer(proxy, HttpSettings(port=0))
        serving = asyncio.create_task(server.serve())
        try:
            page = await asyncio.to_thread(live_page, f"{server.url}/kcost/", tmp_path)
        finally:
            server.stop()
            await serving
            server.close()
        start = re.search(r"<body[^>]*>", page)
        assert start is not None
        assert "data-error" not in start.group(), start.group()
        report = proxy.monitor.report(proxy.invoice())
        assert report.conclusion in html.unescape(page)
        assert "can't tell: version 2 of m, canary of version 1; all gates hold with" in html.unescape(page)
        assert "times the forecast: a request took" in page
        features = report.watched.models[0].drift.features
        assert f'data-drawn="{4 + len(features)}"' in start.group()  # three charts with four lines, and one a feature
        assert page.count('<tr class="drifted">') == len(report.watched.models[0].drift.drifted) > 0
        assert "&lt;b&gt;blue&lt;/b&gt;" in page  # a caller's name is text

    with_watching_proxy(settings, steps, forecasts={("m", ""): forecast})


def live_page(url: str, tmp_path: Path) -> str:
    """The document at a URL of this machine after its scripts ran for some seconds; no other machine is reached."""
    assert CHROMIUM is not None
    command = [
        *(CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking"),
        *("--disable-component-update", "--disable-sync", "--no-first-run", f"--user-data-dir={tmp_path / 'profile'}"),
        *("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--virtual-time-budget=5000", "--dump-dom", url),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_shadow_is_asked_the_same_and_judged(tmp_path: Path) -> None:
    settings = MonitorSettings(
        references={"m": tmp_path}, shadow={"m": ShadowSettings(version=7, share=1.0, max_disagreement=0.1)}
    )
    monitor = Monitor("http://x", settings, {"m": REFERENCE})
    paths: list[bytes] = []

    def answer(head: bytes, body: bytes) -> bytes:
        paths.append(head.split(b" ")[1])
        first = json.loads(body)["instances"][0][0]
        other = b"/versions/7:" in head
        if other and first == 2:
            return reply("500 No", b"{}")
        probabilities = [0.1, 0.9] if other and first == 1 else [0.9, 0.1]
        return reply("200 OK", json.dumps({"predictions": [probabilities]}).encode())

    async def steps(proxy: Proxy) -> None:
        await monitor.start()
        try:
            for i in range(6):
                body = json.dumps({"instances": [[float(i), 0.0]]}).encode()
                status, text = await ask(proxy, "POST", PREDICT, body)
                assert (status, json.loads(text)["predictions"]) == (200, [[0.9, 0.1]])  # no client sees the shadow
            report = await report_when(
                proxy,
                lambda r: bool(r["rollouts"]) and r["rollouts"][0]["rollout"]["counts"]["rows"] == 5,
            )
            metrics = (await ask(proxy, "GET", "/kcost/metrics"))[1].decode()
        finally:
            await monitor.close()
        (shadow,) = report["rollouts"]
        counts = shadow["rollout"]["counts"]
        assert (counts["requests"], counts["failed"], counts["otherwise"], counts["pairs"]) == (6, 1, 1, 5)
        assert shadow["rollout"]["decision"] == "can't tell"
        assert shadow["new_usd_per_million"] > 0
        assert (shadow["kind"], shadow["version"], shadow["stopped"]) == ("shadow", 7, False)
        assert any("say which is stable" in limit for limit in report["limits"])
        assert 'kcost_rollout_rows_otherwise_total{model_name="m",version="7",kind="shadow"} 1' in metrics
        assert paths.count(b"/v1/models/m/versions/7:predict") == 6
        lines = {(x["version"], x["caller"]): x["requests"] for x in report["invoice"]["lines"]}
        assert lines == {("latest", ""): 6, ("latest", "(shadow)"): 6, ("7", "(shadow)"): 6}

    with_proxy(answer, steps, monitor=monitor)


class Upstream(http.server.BaseHTTPRequestHandler):
    """A server of one model that is always as sure."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        rows = len(json.loads(self.rfile.read(int(self.headers["content-length"])))["instances"])
        answer = json.dumps({"predictions": [[0.9, 0.1]] * rows}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


class StartedProxy:
    """`kcost serve --upstream` in a process of its own, with the settings in a folder."""

    def __init__(self, folder: Path, upstream_port: int) -> None:
        command = [sys.executable, "-m", "kcost", "serve", "--usd-per-hour", "1", "--port", "0"]
        command += ["--upstream", f"http://127.0.0.1:{upstream_port}", "--reference", "m=reference.json"]
        self.process = subprocess.Popen(
            [*command, "--monitor", "monitor.toml"], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        assert self.process.stderr is not None
        self.url = self.process.stderr.readline().decode().split(" ")[0]

    def ask(self, path: str, body: bytes | None = None) -> tuple[Any, bytes]:
        with urllib.request.urlopen(self.url + path, body, timeout=10) as answer:
            return answer.headers, answer.read()

    def rollout(self) -> dict[str, Any]:
        counts: dict[str, Any] = json.loads(self.ask("/kcost/monitor")[1])["rollouts"][0]["rollout"]["counts"]
        return counts

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.mark.slow
def test_a_killed_proxy_goes_on_with_the_counts_that_it_told(tmp_path: Path) -> None:
    (tmp_path / "reference.json").write_text(REFERENCE.model_dump_json())
    text = "[canary.m]\nversion = 2\nstable = 1\nshare = 1.0\n[rollouts]\nfile = 'rollouts.json'\n"
    (tmp_path / "monitor.toml").write_text(text)
    chooser, counts = random.Random(0), dict[str, Any]()
    body = json.dumps({"instances": [[0.0, 0.0]]}).encode()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        for killed in ("proxy", "proxy", "process that watches", "proxy"):
            proxy = StartedProxy(tmp_path, upstream.server_port)
            try:
                for field in ("requests", "pairs", "rows"):
                    assert proxy.rollout()[field] >= counts.get(field, 0)
                killer = threading.Timer(chooser.uniform(0.5, 2.5), proxy.process.kill)
                if killed == "process that watches":
                    (watcher,) = psutil.Process(proxy.process.pid).children()
                    os.kill(watcher.pid, signal.SIGKILL)
                    killer = threading.Timer(4, proxy.process.kill)
                killer.start()
                while True:
                    proxy.ask(PREDICT, body)
                    shown = proxy.rollout()
                    assert all(shown[field] >= counts.get(field, 0) for field in ("requests", "pairs", "rows"))
                    counts = shown
            except (OSError, http.client.HTTPException):
                pass  # the kill
            finally:
                proxy.close()
        upstream.shutdown()
    assert counts["requests"] > 20
    assert counts["rows"] > 0
    assert sorted(path.name for path in tmp_path.iterdir() if "draft" not in path.name) == [
        *(".rollouts.json.lock", "monitor.toml", "reference.json", "rollouts.json")
    ]


@pytest.mark.slow
def test_a_killed_proxy_loses_no_label_that_it_acknowledged(tmp_path: Path) -> None:
    (tmp_path / "reference.json").write_text(REFERENCE.model_dump_json())
    (tmp_path / "monitor.toml").write_text('[samples]\nfolder = "samples"\nshare = 1.0\n')
    acknowledged: list[str] = []
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream) as upstream:
        threading.Thread(target=upstream.serve_forever, daemon=True).start()
        proxy = StartedProxy(tmp_path, upstream.server_port)
        killer = threading.Timer(1.0, proxy.process.kill)
        killer.start()
        try:
            while True:
                body = json.dumps({"instances": [[0.0, 0.0]]}).encode()
                name = proxy.ask(PREDICT, body)[0]["x-request-id"]
                labels = json.dumps({"labels": [{"id": name, "label": "no"}]}).encode()
                answer = json.loads(proxy.ask("/kcost/labels", labels)[1])
                assert answer == {"accepted": 1, "unknown_ids": 0, "stored": True}
                acknowledged.append(name)
        except OSError:
            pass  # the kill
        proxy.close()
        upstream.shutdown()
    stored = {s["id"] for s in read_samples(tmp_path / "samples").samples if s["kind"] == "label"}
    assert len(acknowledged) > 5
    assert set(acknowledged) <= stored
