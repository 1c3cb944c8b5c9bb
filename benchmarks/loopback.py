"""The p99 of `kcost serve` on this machine against that of the simulation a budget is made of.

The simulation gets the step times that `kcost bench` measured of the same SavedModel, one thread, at each batch size up
to the largest, and requests at the moments at which the server accepted them: what is left is the method, not the luck
of a draw. The model's process has a core of its own; the server and the client share the other, so the client waits
without looking at the clock, and collects no garbage meanwhile. What is compared is the server's: from when a request
was accepted until its answer was ready, by the server's clock. The client's p99 stands beside it.

Five simulated p99 are told. The first two are of the queue alone: the server's own steps in the very trial, as long as
they kept a process of the model. They are drawn in any order, by batch size and by the time without work before them.
The second has the machine's speed beside it: where the steps of a tenth of a second took longer than such steps mostly
did, the drawn ones do, too. Of steps in any order alone, a machine that slows down for a while shows no queue that runs
over. The others are of the whole method, with steps that were measured minutes before:

- of steps back to back, as a run has them that was measured in rounds alone;
- with steps after idle time, as `kcost bench --scenarios after-idle` measures them;
- with what the server takes of each step beside the model, too (`kcost cost --hand-over-ms`).

That last one is measured by the server's metrics at requests of a seed of their own, and the time in which a request is
read and its answer written, which is added to each of the five, by those one after another: both before the rates.

The 90% interval of a simulated p99 over the measured one is by a bootstrap of blocks of half a second, of both
together: where it holds 1, more requests would be needed to tell a miss from luck.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
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
from kcost.cost.measured_service import service_of
from kcost.cost.queue_simulation import AfterIdleSteps, ServiceTimes, simulate
from kcost.serving.arrivals import poisson
from kcost.serving.config import METRICS_PATH
from kcost.serving.http_client import Connection, Target
from kcost.serving.load import LoadGenerator, Observed
from kcost.serving.made_up import made_up_body
from kcost.serving.metrics import REQUEST_LATENCY, RUNTIME_LATENCY
from kcost.serving.one_request import ask

NAME = "encoder"
MOST_ROWS = 8
LOADS = (0.3, 0.6, 0.8)
"""Parts of the capacity at the largest batch that are tried."""

ARRIVAL_SEEDS = (1, 2)
SIMULATED = 5
"""Seeds of the steps: the simulated p99 is their mean."""

CALIBRATED_S, CALIBRATED_LOAD, CALIBRATED_SEED = 10.0, 0.3, 7
"""Of the requests by which a hand-over is measured."""

ALONE = 300
"""Requests one after another, for what a request takes beside its step."""

PAUSE_S = 0.007
"""Between two of them: about what lies between two requests at the lowest rate."""

WARM_UP = 20
"""Requests of each size before anything is measured: a new shape is slow at first."""

OWN_GAP_S = 5e-4
"""A shorter time between two steps is the server's, which hands answers out and the next batch over: no idle time."""

RESAMPLED = 500
BLOCK_S = 0.5
TAIL = 0.99


SPEED_WINDOW_S = 0.1
"""Of a trial, over which the machine's speed is a mean."""

METHODS = (
    "the trial's own steps in any order",
    "the same, as slow as the machine was then",
    "back to back",
    "with steps after idle time",
    "with hand-overs, too",
)
"""What steps the simulated p99 are of."""


class Counters(NamedTuple):
    """What the server has counted until now; the difference of two is what came between."""

    requests: float
    request_s: float
    """From when they were accepted until their answers were ready."""
    model_s: float
    """Of them in the model, each with the whole of its step."""
    hand_overs: float
    hand_over_s: float

    def since(self, before: Counters) -> Counters:
        """What came after `before`."""
        return Counters(*(now - then for now, then in zip(self, before, strict=True)))


class Trial(NamedTuple):
    """Requests at one rate."""

    queries_per_s: float
    observed: Observed
    first: int
    """How many the server had answered before."""
    counted: Counters


class Compared(NamedTuple):
    """One rate."""

    trial: Trial
    measured_ms: float
    """p99 by the server's clock."""
    noise: tuple[float, float]
    """Its 90% interval, over itself, less 1."""
    simulated_ms: tuple[float, ...]
    """p99, in the order of METHODS."""
    off: tuple[tuple[float, float, float], ...]
    """Each of them over the measured one, less 1, with its 90% interval."""


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
        steps = f"{middle:.3f} ms (1% to 99%: {low:.3f} to {high:.3f}) of {service.samples_s[size].size}"
        print(f"  batch {size}: {steps}; {_after_idle(service, size)}")
    times = out / "server-times.npz"
    with served(out / "serving", times) as (target, processes):
        alone(processes)
        reading_s, hand_over_s, trials = asyncio.run(_at_rates(target, service, lasts_s))
    with np.load(times) as kept:
        server_ns, steps_ns = kept["requests"], kept["steps"]
    lasted_s = time.monotonic() - begin
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {lasted_s:.0f} s since the beginning")
    services = (ServiceTimes(service.samples_s), service, service.handed_over_in(hand_over_s))
    lines = [_compared(trial, server_ns, steps_ns, services, reading_s) for trial in trials]
    for one in lines:
        _tell(one)
    for index, what in enumerate(METHODS):
        print(f"largest difference, {what}: {max(abs(one.off[index][0]) for one in lines):.1%}")


def _after_idle(service: ServiceTimes, size: int) -> str:
    if size not in service.after_idle:
        return "none after idle time, or other work beside them"
    steps = service.after_idle[size]
    short, long = (np.median(steps.step_s[chosen]) * 1e3 for chosen in (steps.gap_s < 1e-3, steps.gap_s > 5e-3))
    return f"after less than 1 ms of nothing {short:.3f}, after more than 5 ms {long:.3f}, of {steps.step_s.size}"


def _tell(one: Compared) -> None:
    trial, observed = one.trial, one.trial.observed
    client_ms = np.quantile(observed.done_ns - observed.sent_ns, TAIL) / 1e6
    late_ms = np.quantile(observed.sent_ns - observed.due_ns, TAIL) / 1e6
    failed = int((observed.status != 200).sum())
    print(
        f"{trial.queries_per_s:7.1f} a second, {len(observed.due_ns):,} requests ({failed} failed): p99 "
        f"{one.measured_ms:.3f} ms by the server's clock (90%: {one.noise[0]:+.1%} to {one.noise[1]:+.1%}), "
        f"{client_ms:.3f} by the client's, which sent {late_ms:.2f} ms late at p99; "
        f"{trial.counted.model_s / trial.counted.requests * 1e3:.3f} ms in the model, hand-over "
        f"{trial.counted.hand_over_s / max(1.0, trial.counted.hand_overs) * 1e3:.3f} ms"
    )
    for what, ms, (off, low, high) in zip(METHODS, one.simulated_ms, one.off, strict=True):
        print(f"      simulated {ms:.3f}, {what} ({off:+.1%}; 90%: {low:+.1%} to {high:+.1%})")


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
            "settings": {
                **{"rounds": 5, "round_s": 0.4, "warmup_s": 0.3, "warmup_max_s": 1.5},
                **{"scenarios": ["after-idle"], "scenario_max_s": 7.0},
            },
        }
    )
    run: Run = kcost.run_bench(plan, out / "run")
    if not (out / "serving").exists():
        kcost.export(model, out / "serving", name=NAME, warm_up_batches=sizes)
    cells = [c for c in run.measured(phase="inference") if c.spec.method == "saved_model"]
    return service_of(cells, run.environments)


@contextmanager
def served(folder: Path, times: Path) -> Iterator[tuple[Target, tuple[int, ...]]]:
    """`kcost serve` of a folder, with where requests go, and the ids of the server and of its model's process.

    Args:
        times: see `timed_server.py`; it is there when the server has ended.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = int(probe.getsockname()[1])
    server = Path(__file__).parent / "timed_server.py"
    command = [server, times, folder, "--port", port, "--threads", 1, "--batch-rows", MOST_ROWS]
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


async def _at_rates(target: Target, service: ServiceTimes, lasts_s: float) -> tuple[float, float, list[Trial]]:
    """Seconds that a request and a step take beside the model, and then requests at each rate."""
    one_row = json.loads(await made_up_body(target, seed=0))["instances"]
    for rows in range(1, MOST_ROWS + 1):
        await _one_after_another(target, json.dumps({"instances": one_row * rows}).encode(), WARM_UP, 0.0)
    body = json.dumps({"instances": one_row}).encode()
    before = await _counters(target)
    latency_s = await _one_after_another(target, body, ALONE, PAUSE_S)
    counted = (await _counters(target)).since(before)
    reading_s = (counted.request_s - counted.model_s - counted.hand_over_s) / counted.requests
    rate = CALIBRATED_LOAD * service.capacity_per_s
    calibrated = (await _trial(target, rate, CALIBRATED_S, body, CALIBRATED_SEED)).counted
    hand_over_s = calibrated.hand_over_s / calibrated.hand_overs
    server_ms, model_ms = counted.request_s / counted.requests * 1e3, counted.model_s / counted.requests * 1e3
    print(
        f"one after another, {PAUSE_S * 1e3:g} ms between them: {latency_s * 1e3:.3f} ms by the client's clock, "
        f"{server_ms:.3f} by the server's, {model_ms:.3f} of them in the model, {reading_s * 1e3:.3f} for reading and "
        f"answering; hand-over at {rate:.1f} a second: {hand_over_s * 1e3:.3f} ms"
    )
    trials = [
        await _trial(target, load * service.capacity_per_s, lasts_s, body, seed)
        for load in LOADS
        for seed in ARRIVAL_SEEDS
    ]
    return reading_s, hand_over_s, trials


async def _trial(target: Target, queries_per_s: float, lasts_s: float, body: bytes, seed: int) -> Trial:
    schedule = poisson(queries_per_s, lasts_s, [body], seed)
    before = await _counters(target)
    with collector_paused():
        observed = await LoadGenerator(target, schedule, 256, 30.0, spin_s=0.0).run()
    return Trial(queries_per_s, observed, round(before.requests), (await _counters(target)).since(before))


class OwnSteps(NamedTuple):
    """The steps of a trial, in the order in which they began."""

    begun_s: np.ndarray
    """Since the first request of the trial was accepted."""
    gap_s: np.ndarray
    """How long the model had nothing to do before each of them."""
    step_s: np.ndarray
    """How long each kept the process of the model."""
    rows: np.ndarray

    @property
    def idle(self) -> np.ndarray:
        """Whether the model had nothing to do before a step."""
        return self.gap_s >= OWN_GAP_S

    def service(self, spare: ServiceTimes, step_s: np.ndarray) -> ServiceTimes:
        """Service times to draw from, of these steps with other durations.

        Args:
            spare: gives the steps of batch sizes that the trial had none of.
            step_s: the durations.
        """
        back_to_back, after_idle = dict(spare.samples_s), {}
        for size in spare.sizes:
            mine = self.rows == size
            if mine.any():
                # Where all steps of a size are of one kind, they stand for the other kind, too.
                warm = mine & ~self.idle
                back_to_back[size] = step_s[warm if warm.any() else mine]
            if (mine & self.idle).any():
                after_idle[size] = AfterIdleSteps(self.gap_s[mine & self.idle], step_s[mine & self.idle])
        return ServiceTimes(back_to_back, after_idle)

    def times_longer(self) -> np.ndarray:
        """How many times longer the steps of each window took than steps of their size and kind mostly did.

        A window without a step is as the one before; before the first step nothing is slower.
        """
        usual_s = np.empty_like(self.step_s)
        for size in np.unique(self.rows):
            for idle in (False, True):
                mine = (self.rows == size) & (self.idle == idle)
                if mine.any():
                    usual_s[mine] = np.median(self.step_s[mine])
        window = (self.begun_s // SPEED_WINDOW_S).astype(int)
        took_s, usually_s = (np.bincount(window, of_steps) for of_steps in (self.step_s, usual_s))
        last = np.maximum.accumulate(np.where(usually_s > 0, np.arange(len(usually_s)), 0))
        with np.errstate(invalid="ignore"):
            return np.where(usually_s[last] > 0, took_s[last] / usually_s[last], 1.0)


def own_steps(steps_ns: np.ndarray, first_ns: int) -> OwnSteps:
    """The steps of a trial.

    Args:
        steps_ns: see `timed_server.py`, of this trial.
        first_ns: when its first request was accepted.
    """
    begun_ns, ended_ns, rows = steps_ns[np.argsort(steps_ns[:, 0])].T
    gap_s = np.concatenate(([0], begun_ns[1:] - ended_ns[:-1])) / 1e9
    step_s = (ended_ns - begun_ns) / 1e9
    step_s = np.where(gap_s >= OWN_GAP_S, step_s, step_s + np.maximum(gap_s, 0.0))
    return OwnSteps((begun_ns - first_ns) / 1e9, gap_s, step_s, rows)


def _compared(
    trial: Trial, server_ns: np.ndarray, steps_ns: np.ndarray, services: Sequence[ServiceTimes], reading_s: float
) -> Compared:
    """The p99 of a trial by the server's clock, and those of the simulations at the same arrivals."""
    ended_ns, latency_ns = server_ns[trial.first : trial.first + round(trial.counted.requests)].T
    accepted_ns = ended_ns - latency_ns
    order = np.argsort(accepted_ns, kind="stable")
    arrivals_s = (accepted_ns[order] - accepted_ns[order[0]]) / 1e9
    measured_ms = latency_ns[order] / 1e6
    within = (steps_ns[:, 0] >= accepted_ns[order[0]]) & (steps_ns[:, 1] <= ended_ns.max())
    own, spare = own_steps(steps_ns[within], accepted_ns[order[0]]), services[0]
    slow = own.times_longer()

    def slow_at(moment_s: float) -> float:
        return float(slow[min(int(moment_s / SPEED_WINDOW_S), len(slow) - 1)])

    even_s = own.step_s / np.array([slow_at(moment_s) for moment_s in own.begun_s])
    ways = [
        (own.service(spare, own.step_s), None),
        (own.service(spare, even_s), slow_at),
        *((s, None) for s in services),
    ]
    simulated_ms = [
        [
            (
                simulate(arrivals_s, service, batch_limit=MOST_ROWS, seed=seed, times_longer=times_longer).latency_s
                + reading_s
            )
            * 1e3
            for seed in range(SIMULATED)
        ]
        for service, times_longer in ways
    ]
    chosen = _blocks(len(arrivals_s), round(trial.queries_per_s * BLOCK_S))
    whole = float(np.quantile(measured_ms, TAIL))
    resampled = np.quantile(measured_ms[chosen], TAIL, axis=1)
    p99_ms, off = [], []
    for latencies in simulated_ms:
        p99_ms.append(float(np.mean([np.quantile(one, TAIL) for one in latencies])))
        ratios = np.mean([np.quantile(one[chosen], TAIL, axis=1) for one in latencies], axis=0) / resampled - 1
        off.append((p99_ms[-1] / whole - 1, *_interval(ratios)))
    return Compared(trial, whole, _interval(resampled / whole - 1), tuple(p99_ms), tuple(off))


def _blocks(count: int, length: int) -> np.ndarray:
    """Places of as many requests, in blocks of neighbours, as requests of one queue depend on each other."""
    length = max(1, min(length, count))
    begins = np.random.default_rng(0).integers(0, count - length + 1, (RESAMPLED, -(-count // length)))
    return (begins[:, :, None] + np.arange(length)).reshape(RESAMPLED, -1)[:, :count]


def _interval(values: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(values, (0.05, 0.95))
    return float(low), float(high)


async def _counters(target: Target) -> Counters:
    _, page = await ask(target, b"", method="GET", path=METRICS_PATH)

    def total(name: str) -> float:
        lines = page.decode().splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(f"{name}{{"))

    return Counters(
        requests=total(f"{REQUEST_LATENCY}_count"),
        request_s=total(f"{REQUEST_LATENCY}_sum") / 1e6,
        model_s=total(f"{RUNTIME_LATENCY}_sum") / 1e6,
        hand_overs=total("kcost_serving_hand_overs_total"),
        hand_over_s=total("kcost_serving_hand_over_seconds_total"),
    )


async def _one_after_another(target: Target, body: bytes, count: int, pause_s: float) -> float:
    """Requests of which each is sent some time after the answer to the one before: mean seconds until the answer."""
    loop = asyncio.get_running_loop()
    _, connection = await loop.create_connection(lambda: Connection(lambda _: None), target.address, target.port)
    request = target.request(body)
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
    return took_s / count


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
