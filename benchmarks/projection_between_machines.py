"""How far the projection between machines is off, on machines that one machine can be made into.

    python benchmarks/projection_between_machines.py measure OUT    # some 20 minutes on 2 cores that do nothing else
    python benchmarks/projection_between_machines.py grade OUT                # seconds; measures nothing
    python benchmarks/projection_between_machines.py fit OUT FILE             # writes the coefficients

The machines: both cores or one of them, each with all instructions and with AVX2 at most; both cores without AMX, where
there is AMX; and both cores under a CPU quota of one core's time, where this process may make a control group.
Instructions are taken away by environment variables, so a library that heeds none of them keeps its own; the probe of
that machine sees the same. Each machine is probed, and measures the same cells: four small models, three backends.
`measure` goes on where it was stopped. `grade` projects each cell of each machine from each other machine, and never
uses a measurement of the machine that it projects to.

A machine is as fast as its neighbours let it be, and from one minute to the next that is up to 40% more or less. So the
machines take turns: all are there at once, each a process with its workers, and one computes while the others sleep. A
turn is to get ready, a probe with one backend, or one round of each cell. Each machine is probed twice, after a quarter
and after three quarters of its rounds; its rates are those of both probes together.

A quota stops a process for the rest of a period when its time is used up. The median of steps that are shorter than a
period doesn't hold the pauses: projections from the machine under a quota begin at it, as its probe's rates hold none
either. Those to it are held against the mean of a round, which is many periods long.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np

T = TypeVar("T")

BACKENDS = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}

NO_AMX = {"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}
AVX2 = {
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "XLA_FLAGS": "--xla_cpu_max_isa=AVX2",
}

QUOTA_PERIOD_US = 100_000
"""The kernel's own, and Docker's."""

QUOTA_ROUND_S = 2.0
"""A round begins in the middle of a period, and is to hold many whole ones."""

FIRST = ("small_cnn", "tiny_encoder", "small_resnet", "wide_mlp")
"""Of the first measurement, in whose sight the form of the model was chosen."""

SECOND = ("plain_cnn", "wide_encoder", "narrow_resnet", "deep_mlp")
"""Of the second, which was graded once."""

MODELS = (*FIRST, *SECOND)

PROBE_S = 120.0
"""Most that a probe may take; on a machine that does nothing else it takes some ten seconds a number of threads."""

PROBED_AT = (0.25, 0.75)
"""Parts of the rounds after which a machine is probed: in the middle of each half of them."""

ROUNDS, ROUND_S = 8, 0.1

QUOTA_ROUNDS, QUOTA_CELLS = 4, 4
"""Rounds under the quota are long, so there are fewer, and fewer cells have one in a turn."""

SETTLE_S = 0.25
"""Before a turn: threads of another machine's workers spin for a while after theirs."""

PLANS: dict[str, dict[str, Any]] = {
    "float32": {"batches": [1, 16], "backends": list(BACKENDS), "methods": list(BACKENDS.values())},
    "bfloat16": {"batches": [16], "backends": ["tensorflow", "torch"], "methods": ["graph", "eager"]},
}
"""Precision -> what is measured in it. XLA computes bfloat16 on a processor in float32, so that jax is left out."""


class Place(NamedTuple):
    """A machine that this one is made into."""

    cores: int
    variables: Mapping[str, str]
    precisions: tuple[str, ...] = ("float32", "bfloat16")
    """Without AVX512 a step in bfloat16 takes seconds, and TensorFlow's ends the process."""
    quota_cores: float | None = None
    """Cores whose time all of its processes may take together."""


PLACES = {
    "2-cores": Place(2, {}),
    "1-core": Place(1, {}),
    "2-cores-no-amx": Place(2, NO_AMX),
    "2-cores-avx2": Place(2, AVX2, ("float32",)),
    "1-core-avx2": Place(1, AVX2, ("float32",)),
    "2-cores-quota": Place(2, {}, ("float32",), quota_cores=1.0),
}
"""Name, which is that of its folder, -> machine."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    measure_parser = steps.add_parser("measure", help="probe and measure; goes on where it stopped")
    measure_parser.add_argument("out", type=Path)
    measure_parser.add_argument("--places", default=",".join(PLACES), help="which machines; the first counts FLOPs")
    measure_parser.add_argument("--models", default=",".join(SECOND), help="which models")
    measure_parser.add_argument("--precisions", default=",".join(PLANS), help="in which precisions")
    grade_parser = steps.add_parser("grade", help="project and print how far off that is")
    grade_parser.add_argument("out", type=Path)
    fit_parser = steps.add_parser("fit", help="fit the coefficients to all that was measured")
    fit_parser.add_argument("out", type=Path)
    fit_parser.add_argument("file", type=Path)
    # Of `measure` itself: one machine, or the models, in a process with its variables.
    place_parser = steps.add_parser("place")
    place_parser.add_argument("out", type=Path)
    place_parser.add_argument("name")
    place_parser.add_argument("models")
    place_parser.add_argument("precisions")
    place_parser.add_argument("backends")
    place_parser.add_argument("turns", type=int, help="file descriptor of a socket")
    place_parser.add_argument("--profile", action="store_true")
    models_parser = steps.add_parser("models")
    models_parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    if arguments.step == "measure":
        measure(arguments.out, arguments.places.split(","), arguments.models, arguments.precisions)
    elif arguments.step == "place":
        measure_place(arguments, Turns(arguments.turns))
    elif arguments.step == "models":
        build_models(arguments.folder)
    elif arguments.step == "grade":
        grade(arguments.out)
    else:
        fit(arguments.out, arguments.file)


def measure(out: Path, places: Sequence[str], models: str, precisions: str) -> None:
    """Makes the models, then each machine in a process of its own; these take turns.

    FLOPs are the model's: the first machine counts them. Under the quota each backend has a process of its own: threads
    of a worker that waits for its turn spin for a while, and would use up the quota of the others.
    """
    out.mkdir(parents=True, exist_ok=True)
    # The process that measures chooses its threads itself.
    base = {k: v for k, v in os.environ.items() if not k.startswith(("OMP_", "MKL_", "ONEDNN_", "ATEN_", "XLA_"))}
    if not all((out / "models" / f"{name}.keras").exists() for name in MODELS):
        command = [sys.executable, __file__, "models", str(out / "models")]
        subprocess.run(command, env={**base, "KERAS_BACKEND": "jax"}, check=True)
    processes: list[Process] = []
    for number, name in enumerate(places):
        place = PLACES[name]
        if place.cores > len(os.sched_getaffinity(0)):
            print(f"{name}: left out, as this machine has fewer cores", flush=True)
            continue
        if place.variables == NO_AMX and not has_amx():
            print(f"{name}: left out, as this machine has no AMX to begin with", flush=True)
            continue
        looking = ["--profile"] if number == 0 else []
        for group in [",".join(BACKENDS)] if place.quota_cores is None else BACKENDS:
            command = [sys.executable, __file__, "place", *looking, str(out), name, models, precisions, group]
            processes.append(Process(f"{name}, {group}", command, {**base, **place.variables}))
    take_turns(processes)


class Process(NamedTuple):
    """One that takes turns with others. The file descriptor of its socket is appended to the command."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str]


def take_turns(processes: Sequence[Process]) -> None:
    """Runs processes side by side, of which one computes at a time: lap by lap each has a turn, in shuffled order.

    Raises:
        SystemExit: at the end, where one of them failed.
    """
    started = time.monotonic()
    shuffle = random.Random(0).shuffle
    running: dict[str, tuple[subprocess.Popen[bytes], socket.socket]] = {}
    for name, command, environment in processes:
        mine, its = socket.socketpair()
        with its:
            whole = [*command, str(its.fileno())]
            process = subprocess.Popen(whole, env=dict(environment), pass_fds=[its.fileno()])
        running[name] = process, mine
        mine.recv(1)  # it waits for its first turn
    failed: list[str] = []
    lap = 0
    while running:
        lap += 1
        names = list(running)
        shuffle(names)
        for name in names:
            process, turns = running[name]
            if _exchanged(turns):
                continue
            turns.close()
            if process.wait() != 0:
                failed.append(name)
            del running[name]
            print(f"{name}: ended after {time.monotonic() - started:.0f} s", flush=True)
        print(f"turn {lap} of all: {time.monotonic() - started:.0f} s since the beginning", flush=True)
    if failed:
        raise SystemExit(f"Failed: {'; '.join(failed)}. What they measured is kept: measure again to go on.")


def _exchanged(turns: socket.socket) -> bool:
    """Says that the other process may go on, and sleeps until it says the same; False where it has ended."""
    try:
        turns.sendall(b".")
        return turns.recv(1) != b""
    except (BrokenPipeError, ConnectionResetError):
        return False


class Turns:
    """The other end of `take_turns`: what a process does after `wait` and before the next `wait` is one turn."""

    def __init__(self, file_descriptor: int) -> None:
        self._socket = socket.socket(fileno=file_descriptor)

    def wait(self) -> None:
        """Ends this turn, and sleeps until the next one begins.

        Raises:
            SystemExit: the process that gives turns has ended.
        """
        if not _exchanged(self._socket):
            raise SystemExit("Nobody gives turns any more.")
        time.sleep(SETTLE_S)


def has_amx() -> bool:
    """Whether this processor has AMX."""
    from kcost.core.environment import collect

    return any(feature.startswith("amx") for feature in collect().cpu_features)


@contextmanager
def under_quota(cores: float | None) -> Iterator[bool]:
    """Holds this process, and those that it starts, to the time of so many cores; gives False where it may not."""
    if cores is None:
        yield True
        return
    version_1 = Path("/sys/fs/cgroup/cpu")
    root = version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")
    group = root / f"kcost-quota-{os.getpid()}"
    before = next(line for line in Path("/proc/self/cgroup").read_text().splitlines() if is_of_cpu(line))
    quota_us = round(cores * QUOTA_PERIOD_US)
    try:
        group.mkdir()
        if root == version_1:
            (group / "cpu.cfs_period_us").write_text(str(QUOTA_PERIOD_US))
            (group / "cpu.cfs_quota_us").write_text(str(quota_us))
        else:
            (group / "cpu.max").write_text(f"{quota_us} {QUOTA_PERIOD_US}")
        (group / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as error:
        print(f"left out, as a CPU quota cannot be set here: {error}", flush=True)
        if group.is_dir():
            group.rmdir()
        yield False
        return
    try:
        yield True
    finally:
        (root / before.split(":", 2)[2].lstrip("/") / "cgroup.procs").write_text(str(os.getpid()))
        group.rmdir()


def is_of_cpu(line: str) -> bool:
    """Whether a line of /proc/self/cgroup names the group that shares out the processor's time."""
    _, controllers, _ = line.split(":", 2)
    return "cpu" in controllers.split(",") or not controllers


def measure_place(arguments: argparse.Namespace, turns: Turns) -> None:
    """Probes this machine with some backends and measures the cells, with what the parent gave as environment."""
    place = PLACES[arguments.name]
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: place.cores])
    with under_quota(place.quota_cores) as allowed:
        if allowed:
            _measure(arguments, place, turns)


def _measure(arguments: argparse.Namespace, place: Place, turns: Turns) -> None:
    import kcost
    from kcost.bench.runner import measure as measure_plan
    from kcost.core.plan import Plan

    folder = arguments.out / arguments.name
    folder.mkdir(exist_ok=True)
    files = [str(arguments.out / "models" / f"{model}.keras") for model in arguments.models.split(",")]
    backends: list[Any] = arguments.backends.split(",")
    rounds, round_s = (ROUNDS, ROUND_S) if place.quota_cores is None else (QUOTA_ROUNDS, QUOTA_ROUND_S)
    settings = {
        "rounds": rounds,
        "round_s": round_s,
        "warmup_s": 0.15,
        "warmup_max_s": 0.6,
        "profile": arguments.profile,
    }
    common: dict[str, Any] = {"models": files, "phases": ["inference"], "together": True, "settings": settings}
    if place.quota_cores is not None:  # by default no more threads are started than it allows
        common["threads"] = [place.cores]

    probes = list(range(len(PROBED_AT)))

    def probe(number: int) -> None:
        """In as many turns as there are backends: a backend's turn comes in the same lap on all machines."""
        for backend in BACKENDS:
            path = folder / f"probe-{backend}-{number}.json"
            turns.wait()
            if backend in backends and not path.exists():
                partial = path.with_suffix(".part")
                kcost.run_probe(partial, backend=backend, seconds=PROBE_S, threads=range(1, place.cores + 1))
                partial.rename(path)

    def choose(cells: list[Any]) -> list[Any]:
        """The cells of the next turn; first come the probes that are due."""
        measured = min((len(cell.rounds) for cell in cells), default=rounds) / rounds
        while probes and measured >= PROBED_AT[probes[0]]:
            probe(probes.pop(0))
        turns.wait()
        return next_turn(cells, rounds, None if place.quota_cores is None else QUOTA_CELLS)

    for precision in [p for p in arguments.precisions.split(",") if p in place.precisions]:
        mine = [one for one in PLANS[precision]["backends"] if one in backends]
        axes = {"backends": mine, "methods": [BACKENDS[one] for one in mine], "batches": PLANS[precision]["batches"]}
        turns.wait()
        run = measure_plan(Plan.parse({**common, **axes, "precisions": [precision]}), folder / precision, choose=choose)
        for cell in run.cells:
            if cell.status != "ok" and cell.spec.backend in backends:
                reason = f"{cell.status}: {cell.reason}"
                print(f"{arguments.name}, {cell.spec.model} {cell.spec.label}: {reason}", flush=True)


def next_turn(cells: Sequence[Any], rounds: int, most: int | None) -> list[Any]:
    """The cells that have a round in the next turn: those that lack some, and no more than `most` of them.

    Those with the fewest come first.
    """
    lacking = sorted((cell for cell in cells if len(cell.rounds) < rounds), key=lambda cell: len(cell.rounds))
    return lacking[:most]


def build_models(folder: Path) -> None:
    """Models of a few layers with random weights: what they answer doesn't matter here."""
    from kcost.worker.isolate import OTHERS, hide

    hide(OTHERS["jax"])
    import keras

    from kcost.models.cnn import cnn

    keras.utils.set_random_seed(0)
    folder.mkdir(parents=True, exist_ok=True)
    models = {
        "small_cnn": cnn((32, 32, 3), 10, "small"),
        "tiny_encoder": encoder(tokens=64, width=128, heads=2, layers=2),
        "small_resnet": resnet(side=32, stem=32, filters=(32, 64, 128)),
        "wide_mlp": mlp(width=2048, layers=3),
        "plain_cnn": plain_cnn(),
        "wide_encoder": encoder(tokens=32, width=256, heads=4, layers=1),
        "narrow_resnet": resnet(side=24, stem=16, filters=(16, 32, 48, 96)),
        "deep_mlp": mlp(width=1024, layers=6),
    }
    for name, model in models.items():
        model.save(folder / f"{name}.keras")


def encoder(tokens: int, width: int, heads: int, layers: int) -> Any:
    """Attention and feed-forward blocks over token ids."""
    import keras
    from keras import layers as kl

    ids = keras.Input((tokens,), dtype="int32", name="tokens")
    x = kl.Embedding(1000, width)(ids)
    for _ in range(layers):
        x = kl.LayerNormalization()(x + kl.MultiHeadAttention(heads, width // heads)(x, x))
        x = kl.LayerNormalization()(x + kl.Dense(width)(kl.Dense(4 * width, activation="gelu")(x)))
    return keras.Model(ids, kl.Dense(5, activation="softmax")(x))


def resnet(side: int, stem: int, filters: Sequence[int]) -> Any:
    """Residual blocks, two of each number of filters; all but the first of a new number halve the side."""
    import keras
    from keras import layers as kl

    images = keras.Input((side, side, 3), name="images")
    x = kl.Conv2D(stem, 3, padding="same", activation="relu")(images)
    for count in filters:
        for stride in (1 if count == filters[0] else 2, 1):
            inner = kl.Conv2D(count, 3, stride, padding="same", use_bias=False)(x)
            inner = kl.ReLU()(kl.BatchNormalization()(inner))
            inner = kl.BatchNormalization()(kl.Conv2D(count, 3, padding="same", use_bias=False)(inner))
            if stride != 1:
                x = kl.Conv2D(count, 1, stride)(x)
            x = kl.ReLU()(x + inner)
    return keras.Model(images, kl.Dense(10, activation="softmax")(kl.GlobalAveragePooling2D()(x)))


def plain_cnn() -> Any:
    """Convolutions and pooling without shortcuts, as of VGG."""
    import keras
    from keras import layers as kl

    images = keras.Input((28, 28, 1), name="images")
    x = images
    for filters in (32, 64, 128):
        x = kl.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = kl.Conv2D(filters, 3, padding="same", activation="relu")(x)
        x = kl.MaxPooling2D()(x)
    x = kl.Dense(256, activation="relu")(kl.Flatten()(x))
    return keras.Model(images, kl.Dense(10, activation="softmax")(x))


def mlp(width: int, layers: int) -> Any:
    """Dense layers."""
    import keras
    from keras import layers as kl

    rows = keras.Input((784,), name="rows")
    x = rows
    for _ in range(layers):
        x = kl.Dense(width, activation="relu")(x)
    return keras.Model(rows, kl.Dense(10, activation="softmax")(x))


def on_any_threads(cell: Any) -> str:
    """Id that a cell has on all machines, whatever number of threads was named on one of them."""
    spec = cell.spec.model_copy(update={"threads": 0})
    return str(spec.cell_id)


def machines_of(out: Path) -> Iterator[Any]:
    """What each machine measured with each backend, where it was probed too."""
    from kcost.bench.store import open_run
    from kcost.core import schema
    from kcost.core.artifact import open_model
    from kcost.core.keras_file import class_counts
    from kcost.core.probe import Probe
    from kcost.cost.between_machines_fit import Machine
    from kcost.cost.cell_workload import counted_activations, step_of, workload_of
    from kcost.cost.machine_rates import rates_of

    classes = {path.stem: class_counts(open_model(path).keras_file) for path in (out / "models").glob("*.keras")}
    cells = {}
    for name in PLACES:
        runs = [open_run(out / name / p) for p in PLANS if (out / name / p / "run.json").exists()]
        without_amx = not any(
            f.startswith("amx") for r in runs for e in r.environments.values() for f in e.cpu_features
        )
        if PLACES[name].variables == NO_AMX and without_amx:
            runs = []  # nothing was taken away: it is the machine with both cores, measured again
        cells[name] = [cell for run in runs for cell in run.measured(phase="inference")]
    profiled = [c for measured in cells.values() for c in measured if c.profile is not None]
    counted = {on_any_threads(cell): cell.profile for cell in profiled}
    activations = {m: counted_activations(c for c in profiled if c.spec.model == m) for m in classes}
    for name in PLACES:
        for backend in BACKENDS:
            paths = sorted((out / name).glob(f"probe-{backend}*.json"))
            mine = [c for c in cells[name] if c.spec.backend == backend and on_any_threads(c) in counted]
            if not paths or not mine:
                continue
            threads = {c.preparation.threads for c in mine if c.preparation is not None}
            steps, under_quota = [], []
            for cell in mine:
                model = cell.spec.model
                with_flops = cell.model_copy(update={"profile": counted[on_any_threads(cell)]})
                workload = workload_of(with_flops, classes[model], None, activations=activations[model])
                steps.append(step_of(cell, workload))
                if PLACES[name].quota_cores is not None:
                    means = cell.model_copy(update={"rounds": tuple(map(with_mean, cell.rounds))})
                    under_quota.append(step_of(means, workload))
            probe = pooled([schema.read("probe", path, Probe) for path in paths])
            yield Machine(name, steps, rates_of(probe, max(threads)), under_quota)


def pooled(probes: Sequence[Any]) -> Any:
    """Probes of one machine as one, each program with the times of all of them.

    Each gives as many times: a probe of a faster minute repeats its programs more often, and is to count no more.
    """
    by_threads: dict[int, list[Any]] = {}
    for made in probes:
        for each in made.by_threads:
            by_threads.setdefault(each.threads, []).append(each.answer)
    of_threads = type(probes[0].by_threads[0])
    return probes[0].model_copy(
        update={
            "by_threads": tuple(
                of_threads(threads=threads, answer=_pooled_answer(answers))
                for threads, answers in sorted(by_threads.items())
            )
        }
    )


def _pooled_answer(answers: Sequence[Any]) -> Any:
    def programs(name: str) -> tuple[Any, ...]:
        return _by_program(lambda one: one.program, (one for answer in answers for one in getattr(answer, name)))

    held = _by_program(lambda one: one.size, (answer.held for answer in answers if answer.held is not None))
    return answers[0].model_copy(
        update={
            "call_ns": _as_many_of_each([answer.call_ns for answer in answers if answer.call_ns]),
            **{name: programs(name) for name in ("products", "convolutions", "moves", "transfers")},
            "held": next(iter(held), None),
        }
    )


def _by_program(program: Callable[[T], object], timed: Iterable[T]) -> tuple[T, ...]:
    by_program: dict[object, list[Any]] = {}
    for one in timed:
        by_program.setdefault(program(one), []).append(one)
    return tuple(
        same[0].model_copy(update={"ns": _as_many_of_each([one.ns for one in same])}) for same in by_program.values()
    )


def _as_many_of_each(ns: Sequence[tuple[int, ...]]) -> tuple[int, ...]:
    """The last times of each, since a processor wakes up in the first ones."""
    least = min(map(len, ns), default=0)
    return tuple(one for times in ns for one in times[len(times) - least :])


def with_mean(one: Any) -> Any:
    """A round with the mean of its steps in their place."""
    return dataclasses.replace(one, step_ns=(round(statistics.fmean(one.step_ns)),))


def grade(out: Path) -> None:
    """Prints errors and intervals, all of them, by pair of machines, by backend and by component."""
    from kcost.core.stats import NORMAL_95
    from kcost.cost.between_machines import COMPONENTS, coefficients, is_probed
    from kcost.cost.between_machines_fit import (
        grade as graded,
        leave_out_machines,
        simple_ways,
        table_of,
        unchanged_pairs,
        with_coefficients,
    )
    from kcost.cost.projection import WIDEST

    machines = list(machines_of(out))
    table = table_of(machines)
    for machine in machines:
        unprobed = sum(not is_probed(step.workload, machine.rates) for step in machine.steps)
        if unprobed:
            print(f"{machine.rates.backend} on {machine.name}: {unprobed} cells in a precision that its probe lacks")
    left_out = leave_out_machines(table)
    print("| rows | projections | cells left out | median error | 90% intervals hold | width | refused |")
    print("|---|---|---|---|---|---|---|")

    def line(what: str, chosen: np.ndarray | None = None, errors: Any = left_out) -> None:
        if chosen is not None and not chosen.any():
            return
        g = graded(table, errors, what, chosen)
        print(
            f"| {g.what} | {g.rows} | {g.left_out_cells} | {g.median_error:.1%} | {g.held:.1%} | {g.median_width:.2f} "
            f"| {g.refused} |"
        )

    line("all, fitted without the machine that is projected to")
    models = np.array([cell.split()[-3] for cell in table.cell])
    line("all, fitted without that machine and without the model", errors=leave_out_machines(table, models))
    line("all but pairs that a backend tells nothing of: under 5% of change", ~unchanged_pairs(table))
    line("those that are not refused", np.exp(2 * NORMAL_95 * left_out.sd) <= WIDEST)
    line("all, by the coefficients of the package", errors=with_coefficients(table, coefficients()))
    for backend in BACKENDS:
        line(backend, np.array([f" {backend}/" in cell for cell in table.cell]))
    for precision in ("float32", "bfloat16"):
        line(precision, np.array([f" {precision} " in cell for cell in table.cell]))
    for component in COMPONENTS:
        line(f"mostly {component}", left_out.component == component)
    changed = np.abs(table.truth - table.rows.measured) > np.log(1.2)
    line("those whose time differs by more than 20%", changed)
    for source in PLACES:
        for target in PLACES:
            line(f"{source} to {target}", (table.source == source) & (table.target == target))
    for what, error in simple_ways(table).items():
        print(f"median error of {what}: {error:.1%}")
    print(f"coefficients of the package: {coefficients().fitted_to}")


def fit(out: Path, file: Path) -> None:
    """Writes coefficients that are fitted to all machines."""
    from kcost.cost.between_machines_fit import fit_coefficients, table_of

    machines = list(machines_of(out))
    table = table_of(machines)
    one = machines[0].rates.environment
    count = len({m.name for m in machines})
    fitted_to = (
        f"{len(table.truth)} projections between {count} machines made of one, {one.cpu_model} with {one.cores} cores"
    )
    file.write_text(fit_coefficients(table, fitted_to).model_dump_json(indent=2) + "\n")
    print(f"written: {file}")


if __name__ == "__main__":
    main()
