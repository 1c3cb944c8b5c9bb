"""A server at 80% of its highest rate for ten minutes, versions swapped every 30 s, processes killed.

    python benchmarks/soak.py DIR NAME [--minutes 10] [--rate R] [--swap-s 30] [--kill-s 60] [--processes 2]

DIR is what `kcost export --name NAME` wrote; a copy of it is served. The highest rate is found first, with the same
client (`kcost loadtest --find-rate`, p99 within --p99-ms), unless --rate gives what to hold. Client, server and
models share this machine, at the priority that this program was started at. The client keeps at most --connections
open, and a request that finds all of them busy waits: its latency counts from when it was due. A swap writes the same
model as the next version and removes the one before the last; a kill is SIGKILL of one process that runs the newest
version, between two swaps. Once a second the state of the versions, health and metrics are asked for, as an
orchestrator does. Of each request that failed it is told how, and how long after a swap or a kill.

Ends with 1 where a request failed, a state was not told in time, memory grew, or where fewer versions were swapped or
processes killed and started again than were to come.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import psutil
import uvloop
from served import Served, mib

from kcost.serving.arrivals import Schedule
from kcost.serving.http_client import read_url
from kcost.serving.load import LoadGenerator, Observed
from kcost.serving.load_report import status_text
from kcost.serving.load_test import LoadSettings, find_rate
from kcost.serving.made_up import made_up_body
from kcost.serving.rate_search import RateTrial

PART = 0.8
FIRST_PART = 0.25
"""Memory is compared from here on: before, buffers find their size."""

MOST_GROWTH_MIB = 16.0
NEAR_S = 5.0
MOST_SWAP_S = 30.0
"""A version that takes longer to take the place of the one before, or a process that is not there again, is stuck."""

TOLD = 10
"""Failures of one kind that are told one by one."""

PROBE_S, PROBE_TIMEOUT_S = 1.0, 5.0
"""How often an orchestrator asks, and how long it waits. Kubernetes waits for 1 s, three times in a row; here the
threads that ask share a process with the load."""


class Event(NamedTuple):
    at_s: float
    kind: Literal["swap", "kill", "probe"]
    text: str


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Disturbance:
    """Swaps and kills beside the load, and looks at memory and at what an orchestrator asks for each second."""

    def __init__(self, server: Served, base: Path, arguments: argparse.Namespace) -> None:
        self.server = server
        self.base = base
        self.arguments = arguments
        self.version = max(int(p.name) for p in base.iterdir() if p.name.isdigit())
        self.chooser = np.random.default_rng(1)
        self.between_swaps = asyncio.Lock()
        self.start_s = time.monotonic()
        self.events: list[Event] = []
        self.memory: list[tuple[float, float, float, int]] = []
        """(seconds, MiB of the server, MiB of all, processes with models)."""
        self.probes_ms: list[float] = []

    def now_s(self) -> float:
        return time.monotonic() - self.start_s

    async def swap(self) -> None:
        while True:
            await asyncio.sleep(self.arguments.swap_s)
            async with self.between_swaps:
                self.version += 1
                await asyncio.to_thread(self._write)
                began_s = self.now_s()
                while not await asyncio.to_thread(self._is_newest):
                    await asyncio.sleep(0.2)
                self.events.append(Event(began_s, "swap", f"version {self.version} in {self.now_s() - began_s:.1f} s"))

    def _write(self) -> None:
        draft = self.base / f".{self.version}"
        shutil.copytree(self.base / str(self.version - 1), draft)
        draft.rename(self.base / str(self.version))
        shutil.rmtree(self.base / str(self.version - 2), ignore_errors=True)

    def _is_newest(self) -> bool:
        try:
            status = self.server.get(f"/v1/models/{self.base.name}")
        except OSError as error:
            self.events.append(Event(self.now_s(), "probe", f"the state of the versions: {error}"))
            return False
        states = {int(entry["version"]): entry["state"] for entry in status["model_version_status"]}
        others = [state for number, state in states.items() if number != self.version]
        return states.get(self.version) == "AVAILABLE" and set(others) <= {"END"}

    async def kill(self) -> None:
        await asyncio.sleep(self.arguments.kill_s / 4)
        while True:
            async with self.between_swaps:
                workers = self.server.workers()
                victim = workers[self.chooser.integers(len(workers))]
                victim.kill()
                self.events.append(Event(self.now_s(), "kill", f"process {victim.pid}"))
            await asyncio.sleep(self.arguments.kill_s)

    async def settled(self) -> bool:
        """Whether a swap that is under way comes to its end, and every process that was killed is there again."""
        try:
            async with asyncio.timeout(MOST_SWAP_S):
                async with self.between_swaps:
                    while len(self.server.workers()) != self.arguments.processes:
                        await asyncio.sleep(0.2)
        except TimeoutError:
            return False
        return True

    async def watch(self) -> None:
        while True:
            sizes = []
            for worker in self.server.workers():
                try:
                    sizes.append(mib(worker))
                except psutil.NoSuchProcess:  # it ended just now
                    continue
            own = mib(self.server.mother)
            self.memory.append((self.now_s(), own, own + sum(sizes), len(sizes)))
            await asyncio.sleep(1)

    async def probe(self) -> None:
        paths = (f"/v1/models/{self.base.name}", "/v2/health/ready", "/monitoring/prometheus/metrics")
        while True:
            for path in paths:
                began_s = self.now_s()
                try:
                    await asyncio.to_thread(self._ask, path)
                except OSError as error:
                    self.events.append(Event(began_s, "probe", f"{path}: {error}"))
                self.probes_ms.append((self.now_s() - began_s) * 1000)
            await asyncio.sleep(PROBE_S)

    def _ask(self, path: str) -> None:
        with urllib.request.urlopen(self.server.url + path, timeout=PROBE_TIMEOUT_S) as answer:
            answer.read()


async def soak(server: Served, base: Path, arguments: argparse.Namespace) -> bool:
    url = f"{server.url}/v1/models/{base.name}:predict"
    target = read_url(url, remote=False)
    rate = arguments.rate
    if rate is None:

        def on_trial(trial: RateTrial) -> None:
            say(f"{trial.rate_per_s:.0f}/s: p99 {trial.p99_ms:.1f} ms, {trial.failed} failed")

        settings = LoadSettings(
            rate_per_s=400,
            duration_s=3,
            bound_ms=arguments.p99_ms,
            connections=arguments.connections,
            spin_s=0.0,  # the client leaves its core to the server while it waits
        )
        highest = await find_rate(url, settings, on_trial)
        if highest.rate_per_s is None:
            sys.exit(f"No rate that was tried holds a p99 of {arguments.p99_ms:g} ms; name one: --rate R")
        rate = PART * highest.rate_per_s
        print(
            f"the highest rate that holds a p99 of {arguments.p99_ms:g} ms: {highest.rate_per_s:.0f}/s "
            f"({highest.outcome}); held: {rate:.0f}/s",
            flush=True,
        )
    seconds = arguments.minutes * 60
    rng = np.random.default_rng(0)
    due_s = np.cumsum(rng.exponential(1 / rate, round(rate * seconds)))
    schedule = Schedule(due_s, (await made_up_body(target, seed=0),), "Poisson, seed 0")
    beside = Disturbance(server, base, arguments)
    works = (beside.swap, beside.kill, beside.watch, beside.probe)
    tasks = [asyncio.create_task(work()) for work in works]
    observed = await LoadGenerator(target, schedule, arguments.connections, timeout_s=30, spin_s=0.0).run()
    is_settled = await beside.settled()
    for task in tasks:
        if task.done():
            task.result()  # what went wrong in it
        task.cancel()
    return print_findings(rate, observed, beside, is_settled=is_settled)


def least_to_come(seconds: float, first_s: float, every_s: float) -> int:
    """How many events come at least, the first after `first_s`, where each may take MOST_SWAP_S."""
    return 0 if seconds < first_s else 1 + int((seconds - first_s) // (every_s + MOST_SWAP_S))


def print_findings(rate: float, observed: Observed, beside: Disturbance, *, is_settled: bool) -> bool:
    latency_ms = (observed.done_ns - observed.due_ns) / 1e6
    codes, counts = np.unique(observed.status, return_counts=True)
    statuses = ", ".join(f"{n} {status_text(int(c))}" for c, n in zip(codes, counts, strict=True))
    print(
        f"{len(latency_ms)} requests at {rate:.0f}/s over {observed.wall_s:.0f} s: {statuses}; "
        f"{observed.opened} connections opened, at most {beside.arguments.connections} at a time"
    )
    p50, p99 = np.quantile(latency_ms, (0.5, 0.99))
    own_p99 = np.quantile(observed.sent_ns - observed.due_ns, 0.99) / 1e6
    print(
        f"since they were due: p50 {p50:.2f} ms, p99 {p99:.1f} ms, longest {latency_ms.max():.0f} ms; the client's own "
        f"delay at the p99 {own_p99:.1f} ms"
    )
    due_s = observed.due_ns / 1e9
    for kind in ("swap", "kill"):
        moments = [event.at_s for event in beside.events if event.kind == kind]
        near = np.zeros(len(due_s), bool)
        for at_s in moments:
            near |= (due_s >= at_s) & (due_s < at_s + NEAR_S)
        if near.any():
            print(f"in the {NEAR_S:g} s after each {kind}: p99 {np.quantile(latency_ms[near], 0.99):.0f} ms")
    counted = {kind: sum(event.kind == kind for event in beside.events) for kind in ("swap", "kill")}
    again = beside.server.said().count("it is started again")
    print(f"{counted['swap']} versions swapped, {counted['kill']} processes killed, {again} started again")
    for event in beside.events:
        if event.kind == "swap":
            say(f"at {event.at_s:.1f} s: {event.text}")
    untold = [event for event in beside.events if event.kind == "probe"]
    print(
        f"{len(beside.probes_ms)} looks at state, health and metrics: {len(untold)} failed; p99 "
        f"{np.quantile(beside.probes_ms, 0.99):.0f} ms, the longest {max(beside.probes_ms):.0f} ms"
    )
    for event in untold[:TOLD]:
        print(f"  at {event.at_s:.1f} s: {event.text}")
    memory = np.array(beside.memory)
    memory = memory[memory[:, 0] >= FIRST_PART * memory[-1, 0]]
    third = max(1, len(memory) // 3)
    first, last = np.median(memory[:third, 1]), np.median(memory[-third:, 1])
    print(
        f"memory of the server: {first:.1f} MiB in the first and {last:.1f} in the last third of what followed the "
        f"first quarter; with its models at most {memory[:, 2].max():.0f} MiB, {memory[:, 3].max():.0f} processes"
    )
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; niceness of the client {os.nice(0)}, of the server "
        f"{beside.server.mother.nice()}"
    )
    print_failures(observed, beside.events)
    arguments, seconds = beside.arguments, beside.arguments.minutes * 60
    swaps = least_to_come(seconds, arguments.swap_s, arguments.swap_s)
    kills = least_to_come(seconds, arguments.kill_s / 4 + MOST_SWAP_S, arguments.kill_s)
    all_came = is_settled and counted["swap"] >= swaps and counted["kill"] >= kills and again >= counted["kill"]
    if not all_came:
        print(
            f"to come were at least {swaps} swaps and {kills} kills, each killed process started again; at the end "
            f"{'all' if is_settled else 'not all'} versions and processes were there"
        )
    return all_came and not observed.why and not untold and last - first < MOST_GROWTH_MIB


def print_failures(observed: Observed, events: Sequence[Event]) -> None:
    """Each kind of failure, and of its first ones when they were due, and after which event."""
    kinds: dict[str, list[int]] = {}
    for place, why in sorted(observed.why.items()):
        text = f"{status_text(int(observed.status[place]))}: {re.sub('[0-9]+', 'N', why)}"
        kinds.setdefault(text, []).append(place)
    for text, places in sorted(kinds.items(), key=lambda item: -len(item[1])):
        print(f"{len(places)} failed, {text}")
        for place in places[:TOLD]:
            due_s, sent_s, done_s = (a[place] / 1e9 for a in (observed.due_ns, observed.sent_ns, observed.done_ns))
            before = [event for event in events if event.kind != "probe" and event.at_s <= done_s]
            last = max(before, key=lambda event: event.at_s, default=None)
            after = "before any event" if last is None else f"{done_s - last.at_s:.2f} s after {last.kind}: {last.text}"
            print(
                f"  due at {due_s:.3f} s, sent {(sent_s - due_s) * 1000:.0f} ms later, failed "
                f"{(done_s - sent_s) * 1000:.0f} ms after that, {after}; {observed.why[place]}"
            )
    if kinds:
        print("beside: " + "; ".join(f"{event.at_s:.1f} {event.kind}: {event.text}" for event in events))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--rate", type=float, help="requests a second that are held; found where it is not given")
    parser.add_argument("--p99-ms", type=float, default=50.0)
    parser.add_argument("--swap-s", type=float, default=30.0)
    parser.add_argument("--kill-s", type=float, default=60.0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--queue", type=int, default=1024, help="of kcost serve: its own default")
    parser.add_argument("--connections", type=int, default=256, help="of kcost loadtest: its own default")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        base = Path(made, "models", arguments.name)
        base.mkdir(parents=True)
        newest = max(
            (p for p in (arguments.folder / arguments.name).iterdir() if p.name.isdigit()), key=lambda p: int(p.name)
        )
        shutil.copytree(newest, base / "1")
        options = ("--processes", arguments.processes, "--threads", 1, "--queue", arguments.queue)
        with Served(Path(made, "server.log"), base.parent, *options) as server:
            held = uvloop.run(soak(server, base, arguments))
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
