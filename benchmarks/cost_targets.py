"""The figures on cost of docs/results.md: queues against closed forms, intervals against known truth, and how long it
takes.

    python benchmarks/cost_targets.py queues      the simulation against M/M/1, M/M/c, M/D/1 and M/G/1
    python benchmarks/cost_targets.py truth       200 made-up cases: how often the 90% intervals hold what is true
    python benchmarks/cost_targets.py many        1,000 options x 10,000 draws: seconds and peak memory
    python benchmarks/cost_targets.py curves      200 made-up learning curves: how often a forecast is right
    python benchmarks/cost_targets.py real-curves OUT   BTC and MNIST: all labels predicted from at most half of them
    python benchmarks/cost_targets.py label-order  BTC and MNIST: labels that an order by doubt saves against chance
    python benchmarks/cost_targets.py server RUN  the rate that a run's server scenario held, against the simulated one
    python benchmarks/cost_targets.py loopback OUT   the p99 of kcost serve against the simulated one; 5 minutes
"""

from __future__ import annotations

import argparse
import resource
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import checkout  # noqa: F401 -- finds `testing`
import numpy as np
from label_curves import tell_curves, train_curves
from label_order import tell_orders
from loopback import compare

from kcost.bench.store import RunStore
from kcost.core.result import Offline, Server
from kcost.core.scenario import arrivals_ns, rows, search_outcome
from kcost.cost.assumptions import Assumptions
from kcost.cost.budget import make_budget
from kcost.cost.capacity import find_capacity
from kcost.cost.learning_curve import fit_curve
from kcost.cost.queue_simulation import Served, ServiceTimes, poisson_arrivals_s, simulate
from kcost.cost.queueing import (
    md1_mean_wait_s,
    mg1_mean_wait_s,
    mm1_sojourn_quantile_s,
    mmc_mean_wait_s,
    mmc_wait_quantile_s,
)
from kcost.cost.traffic import constant
from testing.budgets import case, option
from testing.label_curves import made_up

SEEDS = 4
REQUESTS = 5_000_000
FEWER_REQUESTS = 2_500_000
CASES = 200
OPTIONS, DRAWS = 1_000, 10_000


def queues() -> None:
    """Means over seeds; each line is a queue, what is compared, the closed form, the simulation and how far they
    differ."""
    worst = 0.0
    for name, exact, simulated in _comparisons():
        off = simulated / exact - 1
        worst = max(worst, abs(off))
        print(f"{name:42} {exact:10.5f} {simulated:10.5f} {off:+8.2%}")
    print(f"largest difference: {worst:.2%}")


def _comparisons() -> Iterator[tuple[str, float, float]]:
    samples = np.random.default_rng(5).exponential(1.0, 1_000_000)
    exponential = ServiceTimes({1: samples / samples.mean()})
    constant_s = ServiceTimes({1: np.ones(1)})
    mixed = ServiceTimes({1: np.array([0.5] * 9 + [5.5])})
    variance = float(mixed.samples_s[1].var())

    def means(
        name: str, service: ServiceTimes, rate: float, replicas: int, *what: Callable[[Served], float]
    ) -> list[float]:
        """Means over seeds, which differ from queue to queue."""
        requests = REQUESTS if replicas == 1 else FEWER_REQUESTS
        values = []
        for number in range(SEEDS):
            seed = zlib.crc32(f"{name} {rate} {number}".encode())
            arrivals = poisson_arrivals_s(rate, requests, seed)
            served = simulate(arrivals, service, replicas=replicas, batch_limit=1, seed=seed + 1)
            values.append([figure(served) for figure in what])
        return [float(v) for v in np.mean(values, axis=0)]

    def wait_s(served: Served) -> float:
        return float(served.wait_s.mean())

    for load in (0.3, 0.5, 0.7):
        wait, p99 = means("M/M/1", exponential, load, 1, wait_s, lambda s: s.percentile_s(0.99))
        yield f"M/M/1, load {load}, mean wait", mmc_mean_wait_s(load, 1.0), wait
        yield f"M/M/1, load {load}, p99 of the latency", mm1_sojourn_quantile_s(load, 1.0, 0.99), p99
        (wait,) = means("M/D/1", constant_s, load, 1, wait_s)
        yield f"M/D/1, load {load}, mean wait", md1_mean_wait_s(load, 1.0), wait
        (wait,) = means("M/G/1", mixed, load, 1, wait_s)
        yield f"M/G/1, load {load}, mean wait", mg1_mean_wait_s(load, 1.0, variance), wait
    for servers in (2, 4, 8):
        rate = 0.7 * servers
        wait, p99 = means("M/M/c", exponential, rate, servers, wait_s, lambda s: float(np.quantile(s.wait_s, 0.99)))
        yield f"M/M/{servers}, load 0.7, mean wait", mmc_mean_wait_s(rate, 1.0, servers), wait
        yield f"M/M/{servers}, load 0.7, p99 of the wait", mmc_wait_quantile_s(rate, 1.0, servers, 0.99), p99


def truth() -> None:
    """How many intervals of the total and of the saving hold what is true."""
    totals = savings = 0
    for seed in range(CASES):
        options, medians, traffic, assumed, true_totals, saved = case(seed)
        budget = make_budget(options, medians, traffic, assumed)
        other = next(p for p in budget.options if p.bill.option.name == "other")
        totals += other.usd_total.low <= true_totals[1] <= other.usd_total.high
        band = budget.saved_usd_per_month
        if band is None:
            raise RuntimeError("a budget of two options has a saving")
        true = saved if budget.options[0] is other else -saved
        savings += band.low <= true <= band.high
    print(f"90% intervals of {CASES} cases: {totals} hold the true total, {savings} the true saving")


def many() -> None:
    """A budget of many options that were measured in the same rounds."""
    generator = np.random.default_rng(0)
    options = [
        option(f"option {i}", queries_per_s_per_replica=float(generator.uniform(20, 200))) for i in range(OPTIONS)
    ]
    medians = {
        o.name: {("block", "session", n): float(v) for n, v in enumerate(generator.lognormal(0, 0.05, 10))}
        for o in options
    }
    before_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    begin, begin_cpu = time.perf_counter(), time.process_time()
    make_budget(options, medians, constant(5_000), Assumptions(), draws=DRAWS)
    wall_s, cpu_s = time.perf_counter() - begin, time.process_time() - begin_cpu
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{OPTIONS:,} options x {DRAWS:,} draws: {wall_s:.1f} s ({cpu_s:.1f} s of CPU), peak {peak_mib:.0f} MiB, "
        f"{before_mib:.0f} of it before"
    )


def curves() -> None:
    """How many 90% intervals at twice the labels hold what is true."""
    held = 0
    widths = []
    for seed in range(CASES):
        scores, true, _ = made_up(seed)
        forecast = fit_curve(scores, seed=1).at(8000, seeds=5)
        held += forecast.low <= true <= forecast.high
        widths.append(forecast.high - forecast.low)
    print(f"90% intervals of {CASES} learning curves: {held} hold the true score; mean width {np.mean(widths):.4f}")


def server(run: Path) -> None:
    """At each rate that was tried: the measured p99, and that of the simulation with the steps of the offline
    scenario."""
    for cell in RunStore(run).load().measured(phase="inference"):
        for row in rows(cell):
            if row.server is not None and row.offline is not None:
                _against(cell.spec.label, cell.spec.batch, row.offline, row.server)


def _against(label: str, batch: int, offline: Offline, one: Server) -> None:
    service = ServiceTimes({batch: np.asarray(offline.step_ns) / 1e9})
    outcome, held = search_outcome(one)
    simulated_rate = find_capacity(service, one.latency_bound_ms / 1e3, 1)
    if held is not None and simulated_rate is not None:
        off = simulated_rate.queries_per_s / held.queries_per_s - 1
        print(
            f"{label}: {held.queries_per_s:.0f} a second held {one.latency_bound_ms:g} ms, "
            f"{simulated_rate.queries_per_s:.0f} simulated, {off:+.1%}"
        )
    for trial in one.trials:
        if len(trial.latency_ns) < trial.queries:
            continue  # it was given up: its p99 is not known
        due_ns = arrivals_ns(trial.queries_per_s, trial.queries, one.seed)
        own_s = _steps_ns(due_ns, np.asarray(trial.latency_ns)) / 1e9
        measured_ms = float(np.quantile(trial.latency_ns, 0.99)) / 1e6
        by_offline, by_own = (
            _simulated_p99_ms(due_ns / 1e9, steps, batch) for steps in (service, ServiceTimes({batch: own_s}))
        )
        mark = " (highest that held)" if outcome == "held" and trial == held else ""
        print(
            f"{label}, {trial.queries_per_s:9.1f} a second: p99 {measured_ms:8.3f} ms measured, {by_offline:8.3f} ms "
            f"simulated, {by_offline / measured_ms - 1:+.1%}; with the trial's own steps "
            f"{by_own / measured_ms - 1:+.1%}, whose mean is {own_s.mean() / service.mean_s(batch) - 1:+.1%} off those "
            f"of offline{mark}"
        )


def _simulated_p99_ms(arrivals_s: np.ndarray, service: ServiceTimes, batch: int) -> float:
    """Of requests that come when those of the trial did: what is left is the method, not the luck of a draw."""
    served = (simulate(arrivals_s, service, batch_limit=batch, seed=seed) for seed in range(SEEDS))
    return float(np.mean([s.percentile_s(0.99) for s in served])) * 1e3


def _steps_ns(due_ns: np.ndarray, latency_ns: np.ndarray) -> np.ndarray:
    """The durations of a trial's steps, from when its queries came and were answered: those of a step end together, and
    a step begins when the one before has ended and its first query is there."""
    end_ns = due_ns + latency_ns
    first = np.flatnonzero(np.diff(end_ns, prepend=-1))
    ends = end_ns[first]
    begins = np.maximum(np.concatenate(([0], ends[:-1])), due_ns[first])
    return np.asarray(ends - begins, dtype=np.float64)


PLAIN = {"queues": queues, "truth": truth, "many": many, "curves": curves}


def main() -> None:
    """Runs one of the benchmarks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=(*PLAIN, "real-curves", "label-order", "server", "loopback"))
    parser.add_argument("run", type=Path, nargs="?", help="of server: the run; else: where files go")
    parser.add_argument("--minutes", type=float, default=60, help="of real-curves: no training begins after these")
    parser.add_argument("--growth", type=float, default=1.25, help="of label-order: labels after a round over before")
    parser.add_argument("--trial-s", type=float, default=30.0, help="of loopback: seconds of each of its six trials")
    arguments = parser.parse_args()
    if arguments.what == "server":
        if arguments.run is None:
            parser.error("server takes a run folder that was measured with --scenarios server")
        server(arguments.run)
    elif arguments.what == "loopback":
        if arguments.run is None:
            parser.error("loopback takes a folder for its model, its run and what it serves")
        compare(arguments.run, arguments.trial_s)
    elif arguments.what == "label-order":
        tell_orders(arguments.growth)
    elif arguments.what == "real-curves":
        if arguments.run is None:
            parser.error("real-curves takes a folder for its artifacts, which it goes on from")
        train_curves(arguments.run, arguments.minutes)
        tell_curves(arguments.run)
    else:
        PLAIN[arguments.what]()


if __name__ == "__main__":
    main()
