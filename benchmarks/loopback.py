"""The p99 of `kcost serve` on this machine against that of the simulation a budget is made of.

The simulation gets the step times that `kcost bench` measured of the same SavedModel, one thread, at each batch size up
to the largest, and the arrivals at the moments at which the client sent them: what is left is the method, not the luck
of a draw. The model's process has a core of its own; the server and the client share the other, so the client waits
without looking at the clock, and collects no garbage meanwhile.

Two things of a real server are no steps back to back, as a bench measures them. Both are measured before the rates that
are compared, by requests one after another, and told apart by the server's own metrics:

- own time: reading a request, handing it to the model's process, and the answer;
- cold: how much longer a step takes whose model had nothing to do for PAUSE_S before.

Three simulated p99 are told: as a budget has it, which knows nothing of either; with own time; with both.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import psutil

from kcost.core.garbage_collection import collector_paused
from kcost.core.result import Run
from kcost.cost.queue_simulation import ServiceTimes, simulate
from kcost.serving.arrivals import poisson
from kcost.serving.config import METRICS_PATH
from kcost.serving.http_client import Connection, Target
from kcost.serving.load import LoadGenerator, Observed
from kcost.serving.made_up import made_up_body
from kcost.serving.metrics import RUNTIME_LATENCY
from kcost.serving.one_request import ask

NAME = "encoder"
MOST_ROWS = 8
LOADS = (0.3, 0.6, 0.8)
"""Parts of the capacity at the largest batch that are tried."""

ARRIVAL_SEEDS = (1, 2)
SIMULATED = 5
"""Seeds of the steps: the simulated p99 is their mean."""

ALONE = 300
"""Requests one after another, for the server's own time."""

PAUSE_S = 0.007
"""Between two of them where the model is to be idle: about what lies between two requests at the lowest rate."""

WARM_UP = 20
"""Requests of each size before anything is measured: a new shape is slow at first."""


class Alone(NamedTuple):
    """Requests one after another: seconds of each on the average."""

    latency_s: float
    step_s: float
    """Of them in the model, by the server's metrics."""


class Compared(NamedTuple):
    """One rate."""

    queries_per_s: float
    requests: int
    failed: int
    sent_late_ms: float
    """p99 of how late the client was by itself; no part of the latencies here."""
    step_ms: float
    """Mean time of the model of a request, by the server's metrics."""
    measured_ms: float
    """p99 from sent to answered."""
    simulated_ms: tuple[float, float, float]
    """p99: of the steps alone, with own time, and with cold steps too."""

    @property
    def off(self) -> tuple[float, ...]:
        """The simulated ones over the measured one, less 1."""
        return tuple(one / self.measured_ms - 1 for one in self.simulated_ms)


def compare(out: Path, lasts_s: float) -> None:
    """Makes what is not there yet in `out`, measures steps and rates, and prints how far the simulation is off."""
    begin = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    model = out / f"{NAME}.keras"
    if not model.exists():
        subprocess.run([sys.executable, __file__, str(model)], check=True, env={**os.environ, "KERAS_BACKEND": "jax"})
    service = steps_of(model, out)
    print(f"steps of tensorflow/saved_model, one thread, {time.monotonic() - begin:.0f} s since the beginning:")
    for size in service.sizes:
        low, middle, high = np.quantile(service.samples_s[size], (0.01, 0.5, 0.99)) * 1e3
        print(f"  batch {size}: {middle:.3f} ms (1% to 99%: {low:.3f} to {high:.3f}) of {service.samples_s[size].size}")
    with served(out / "serving") as (target, processes):
        alone(processes)
        lines = asyncio.run(_at_rates(target, service, lasts_s))
    lasted_s = time.monotonic() - begin
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {lasted_s:.0f} s since the beginning")
    for one in lines:
        figures = ", ".join(f"{ms:.3f} ({off:+.1%})" for ms, off in zip(one.simulated_ms, one.off, strict=True))
        print(
            f"{one.queries_per_s:7.1f} a second, {one.requests:,} requests ({one.failed} failed, "
            f"{one.sent_late_ms:.2f} ms late at p99), {one.step_ms:.3f} ms in the model: p99 "
            f"{one.measured_ms:.3f} ms; simulated {figures}"
        )
    for what, index in (("steps alone", 0), ("with own time", 1), ("with own time and cold steps", 2)):
        print(f"largest difference, {what}: {max(abs(one.off[index]) for one in lines):.1%}")


def steps_of(model: Path, out: Path) -> ServiceTimes:
    """The steps of the model's SavedModel by `kcost bench`; the SavedModel itself for the server."""
    import kcost
    from kcost.core.plan import Plan

    sizes = list(range(1, MOST_ROWS + 1))
    plan = Plan.parse(
        {
            "models": [str(model)],
            "backends": ["tensorflow"],
            "methods": ["saved_model"],
            "precisions": ["float32"],
            "phases": ["inference"],
            "batches": sizes,
            "threads": [1],
            "settings": {"rounds": 8, "round_s": 0.4, "warmup_s": 0.3, "warmup_max_s": 1.5},
        }
    )
    run: Run = kcost.run_bench(plan, out / "run")
    cells = [c for c in run.measured(phase="inference") if c.spec.method == "saved_model"]
    if not (out / "serving").exists():
        kcost.export(model, out / "serving", name=NAME, warm_up_batches=sizes)
    return ServiceTimes(
        {c.spec.batch: np.concatenate([np.asarray(r.step_ns, dtype=float) for r in c.rounds]) / 1e9 for c in cells}
    )


@contextmanager
def served(folder: Path) -> Iterator[tuple[Target, tuple[int, ...]]]:
    """`kcost serve` of a folder, with where requests go, and the ids of the server and of its model's process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    command = ["-m", "kcost.cli", "serve", folder, "--port", port, "--threads", 1, "--batch-rows", MOST_ROWS]
    process = subprocess.Popen([sys.executable, *map(str, command)], stdout=subprocess.DEVNULL)
    try:
        for _ in range(600):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if process.poll() is not None:
                raise RuntimeError(f"kcost serve ended with {process.returncode}")
            time.sleep(0.1)
        children = [child.pid for child in psutil.Process(process.pid).children()]
        target = Target("127.0.0.1", "127.0.0.1", port, f"/v1/models/{NAME}:predict")
        yield target, (process.pid, *children)
    finally:
        process.terminate()
        process.wait()


def alone(processes: Sequence[int]) -> None:
    """Gives the model's process the first core, and the server and this client the last one."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("one core alone: server, model and client disturb each other")
        return
    server, *models = processes
    for model in models:
        for thread in psutil.Process(model).threads():
            os.sched_setaffinity(thread.id, cores[:1])
    for thread in psutil.Process(server).threads():
        os.sched_setaffinity(thread.id, cores[-1:])
    os.sched_setaffinity(0, cores[-1:])


async def _at_rates(target: Target, service: ServiceTimes, lasts_s: float) -> list[Compared]:
    one_row = json.loads(await made_up_body(target, seed=0))["instances"]
    for rows in range(1, MOST_ROWS + 1):
        await _one_after_another(target, json.dumps({"instances": one_row * rows}).encode(), WARM_UP, 0.0)
    body = json.dumps({"instances": one_row}).encode()
    busy = await _one_after_another(target, body, ALONE, 0.0)
    idle = await _one_after_another(target, body, ALONE, PAUSE_S)
    own_s, cold_s = busy.latency_s - busy.step_s, max(0.0, idle.step_s - busy.step_s)
    print(
        f"one after another: {busy.latency_s * 1e3:.3f} ms, {busy.step_s * 1e3:.3f} ms of them in the model; after "
        f"{PAUSE_S * 1e3:g} ms of nothing {idle.latency_s * 1e3:.3f} ms, {idle.step_s * 1e3:.3f} ms"
    )
    lines = []
    for load in LOADS:
        for seed in ARRIVAL_SEEDS:
            rate = load * service.capacity_per_s
            schedule = poisson(rate, lasts_s, [body], seed)
            before = await _in_the_model(target)
            with collector_paused():
                observed = await LoadGenerator(target, schedule, 256, 30.0, spin_s=0.0).run()
            after = await _in_the_model(target)
            steps = after[0] - before[0], after[1] - before[1]
            lines.append(_compared(rate, observed, steps, service, own_s, cold_s))
    return lines


def _compared(
    rate: float, observed: Observed, steps: tuple[float, float], service: ServiceTimes, own_s: float, cold_s: float
) -> Compared:
    arrivals_s = np.sort(observed.sent_ns) / 1e9

    def p99_ms(after_idle_s: float) -> float:
        served = (
            simulate(arrivals_s, service, batch_limit=MOST_ROWS, after_idle_s=after_idle_s, seed=seed)
            for seed in range(SIMULATED)
        )
        return statistics.mean(one.percentile_s(0.99) for one in served) * 1e3

    as_budgeted = p99_ms(0.0)
    return Compared(
        queries_per_s=rate,
        requests=len(observed.due_ns),
        failed=int((observed.status != 200).sum()),
        sent_late_ms=float(np.quantile(observed.sent_ns - observed.due_ns, 0.99)) / 1e6,
        step_ms=steps[0] / steps[1] * 1e3,
        measured_ms=float(np.quantile(observed.done_ns - observed.sent_ns, 0.99)) / 1e6,
        simulated_ms=(as_budgeted, as_budgeted + own_s * 1e3, p99_ms(cold_s) + own_s * 1e3),
    )


async def _in_the_model(target: Target) -> tuple[float, float]:
    """Seconds that requests spent in the model so far, and how many they were."""
    _, page = await ask(target, b"", method="GET", path=METRICS_PATH)
    totals = {
        what: sum(
            float(line.split()[-1])
            for line in page.decode().splitlines()
            if line.startswith(f"{RUNTIME_LATENCY}_{what}{{")
        )
        for what in ("sum", "count")
    }
    return totals["sum"] / 1e6, totals["count"]


async def _one_after_another(target: Target, body: bytes, count: int, pause_s: float) -> Alone:
    """Requests of which each is sent some time after the answer to the one before."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(lambda _: None), target.address, target.port)
    request = target.request(body)
    before = await _in_the_model(target)
    took_s = 0.0
    for _ in range(count):
        done: asyncio.Future[int | None] = loop.create_future()
        begin = time.perf_counter()
        connection.send(request, done.set_result)
        status = await done
        took_s += time.perf_counter() - begin
        if status != 200:
            raise RuntimeError(f"status {status}: {connection.body!r}")
        if pause_s:
            await asyncio.sleep(pause_s)
    connection.close()
    after = await _in_the_model(target)
    return Alone(took_s / count, (after[0] - before[0]) / max(1.0, after[1] - before[1]))


def build_model(path: Path) -> None:
    """An encoder with random weights: what it answers doesn't matter here, only that a step takes some milliseconds."""
    from kcost.worker.isolate import OTHERS, hide

    hide(OTHERS["jax"])
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    tokens = keras.Input((64,), dtype="int32", name="tokens")
    x = layers.Embedding(1000, 192)(tokens)
    for _ in range(6):
        x = layers.LayerNormalization()(x + layers.MultiHeadAttention(3, 64)(x, x))
        x = layers.LayerNormalization()(x + layers.Dense(192)(layers.Dense(768, activation="gelu")(x)))
    answer = layers.Dense(5, activation="softmax")(layers.GlobalAveragePooling1D()(x))
    keras.Model(tokens, answer).save(path)


if __name__ == "__main__":
    build_model(Path(sys.argv[1]))
