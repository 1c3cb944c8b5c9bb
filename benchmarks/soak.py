"""A server at 80% of its highest rate for ten minutes, versions swapped every 30 s, processes killed.

    python benchmarks/soak.py DIR NAME [--minutes 10] [--rate R] [--swap-s 30] [--kill-s 60] [--processes 2]

DIR is what `kcost export --name NAME` wrote; a copy of it is served. The highest rate is found first, with the same
client (`kcost loadtest --find-rate`, p99 within --p99-ms), unless --rate gives what to hold. Client, server and
models share this machine. A swap writes the same model as the next version and removes the one before the last; a
kill is SIGKILL of one process that runs the newest version. Ends with 1 where a request failed or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import uvloop
from served import Served, mib
from serving import turn

from kcost.serving.arrivals import Schedule
from kcost.serving.http_client import read_url
from kcost.serving.load import BROKEN, TIMED_OUT, LoadGenerator, Observed
from kcost.serving.load_test import LoadSettings, find_rate
from kcost.serving.made_up import made_up_body
from kcost.serving.rate_search import RateTrial

PART = 0.8
FIRST_PART = 0.25
"""Memory is compared from here on: before, buffers find their size."""

MOST_GROWTH_MIB = 16.0
Event = tuple[float, str]


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class Disturbance:
    """Swaps and kills beside the load, and looks at memory each second."""

    def __init__(self, server: Served, base: Path, arguments: argparse.Namespace) -> None:
        self.server = server
        self.base = base
        self.arguments = arguments
        self.version = max(int(p.name) for p in base.iterdir() if p.name.isdigit())
        self.start_s = time.monotonic()
        self.events: list[Event] = []
        self.memory: list[tuple[float, float, float, int]] = []
        """(seconds, MiB of the server, MiB of all, processes with models)."""

    def now_s(self) -> float:
        return time.monotonic() - self.start_s

    async def swap(self) -> None:
        while True:
            await asyncio.sleep(self.arguments.swap_s)
            self.version += 1
            await asyncio.to_thread(self._write)
            began = self.now_s()
            while not await asyncio.to_thread(self._is_newest):
                await asyncio.sleep(0.2)
            self.events.append((began, f"version {self.version} in {self.now_s() - began:.1f} s"))

    def _write(self) -> None:
        draft = self.base / f".{self.version}"
        shutil.copytree(self.base / str(self.version - 1), draft)
        draft.rename(self.base / str(self.version))
        shutil.rmtree(self.base / str(self.version - 2), ignore_errors=True)

    def _is_newest(self) -> bool:
        try:
            status = self.server.get(f"/v1/models/{self.base.name}")
        except OSError as error:
            self.events.append((self.now_s(), f"status: {error}"))
            return False
        states = {int(entry["version"]): entry["state"] for entry in status["model_version_status"]}
        others = [state for number, state in states.items() if number != self.version]
        return states.get(self.version) == "AVAILABLE" and set(others) <= {"END"}

    async def kill(self) -> None:
        await asyncio.sleep(self.arguments.kill_s / 4)  # between two swaps
        while True:
            victim = max(self.server.workers(), key=lambda process: process.create_time())
            victim.kill()
            self.events.append((self.now_s(), f"killed process {victim.pid}"))
            await asyncio.sleep(self.arguments.kill_s)

    async def watch(self) -> None:
        while True:
            workers = self.server.workers()
            own = mib(self.server.mother)
            self.memory.append((self.now_s(), own, own + sum(map(mib, workers)), len(workers)))
            await asyncio.sleep(1)


async def soak(server: Served, base: Path, arguments: argparse.Namespace) -> bool:
    url = f"{server.url}/v1/models/{base.name}:predict"
    target = read_url(url, remote=False)
    rate = arguments.rate
    if rate is None:

        def on_trial(trial: RateTrial) -> None:
            say(f"{trial.rate_per_s:.0f}/s: p99 {trial.p99_ms:.1f} ms, {trial.failed} failed")

        settings = LoadSettings(rate_per_s=400, duration_s=3, bound_ms=arguments.p99_ms)
        highest = await find_rate(url, settings, on_trial)
        most, how = highest.rate_per_s, f"that holds a p99 of {arguments.p99_ms:g} ms, {highest.outcome}"
        if most is None:  # beside other work even the client may be late
            body = await made_up_body(target, seed=0)
            most = min([(await turn(target, [body], 32, 3.0)).requests_per_s for _ in range(3)])
            how = "of three closed loops of 32 connections, the slowest, as no rate holds the p99"
        rate = PART * most
        print(f"the highest rate: {most:.0f}/s ({how}); held: {rate:.0f}/s", flush=True)
    seconds = arguments.minutes * 60
    rng = np.random.default_rng(0)
    due_s = np.cumsum(rng.exponential(1 / rate, round(rate * seconds)))
    schedule = Schedule(due_s, (await made_up_body(target, seed=0),), "Poisson, seed 0")
    beside = Disturbance(server, base, arguments)
    tasks = [asyncio.create_task(work()) for work in (beside.swap, beside.kill, beside.watch)]
    observed = await LoadGenerator(target, schedule, connections=arguments.connections, timeout_s=30).run()
    for task in tasks:
        if task.done():
            task.result()  # what went wrong in it
        task.cancel()
    return print_findings(rate, observed, beside)


def print_findings(rate: float, observed: Observed, beside: Disturbance) -> bool:
    latency_ms = (observed.done_ns - observed.due_ns) / 1e6
    names = {TIMED_OUT: "timed out", BROKEN: "broken"}
    codes, counts = np.unique(observed.status, return_counts=True)
    statuses = ", ".join(f"{n} {names.get(int(c), int(c))}" for c, n in zip(codes, counts, strict=True))
    print(f"{len(latency_ms)} requests at {rate:.0f}/s over {observed.wall_s:.0f} s: {statuses}")
    p50, p99 = np.quantile(latency_ms, (0.5, 0.99))
    own_p99 = np.quantile(observed.sent_ns - observed.due_ns, 0.99) / 1e6
    print(
        f"since they were due: p50 {p50:.2f} ms, p99 {p99:.1f} ms, longest {latency_ms.max():.0f} ms; the client's own "
        f"delay at the p99 {own_p99:.1f} ms"
    )
    swaps = [at for at, text in beside.events if text.startswith("version")]
    kills = [at for at, text in beside.events if text.startswith("killed")]
    again = beside.server.said().count("it is started again")
    for at, text in beside.events:
        if text.startswith("status"):
            print(f"at {at:.0f} s the state of the versions was not told: {text}")
    print(f"{len(swaps)} versions swapped, {len(kills)} processes killed, {again} started again")
    due_s = observed.due_ns / 1e9
    for name, moments in (("a swap", swaps), ("a kill", kills)):
        near = np.zeros(len(due_s), bool)
        for at in moments:
            near |= (due_s >= at) & (due_s < at + 5)
        if near.any():
            print(f"in the 5 s after {name}: p99 {np.quantile(latency_ms[near], 0.99):.0f} ms")
    memory = np.array(beside.memory)
    memory = memory[memory[:, 0] >= FIRST_PART * memory[-1, 0]]
    third = max(1, len(memory) // 3)
    first, last = np.median(memory[:third, 1]), np.median(memory[-third:, 1])
    print(
        f"memory of the server: {first:.1f} MiB in the first and {last:.1f} in the last third of what followed the "
        f"first quarter; with its models at most {memory[:, 2].max():.0f} MiB, {memory[:, 3].max():.0f} processes"
    )
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    failed = int((observed.status != 200).sum())
    if failed:
        places = np.flatnonzero(observed.status != 200)[:20]
        print("failed, due at s: " + ", ".join(f"{due_s[p]:.1f} ({observed.status[p]})" for p in places))
        print("beside: " + "; ".join(f"{at:.1f} {text}" for at, text in beside.events))
    return failed == 0 and last - first < MOST_GROWTH_MIB


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
    parser.add_argument("--connections", type=int, default=1000)
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
