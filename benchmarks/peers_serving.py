"""`kcost serve` against LitServe and MLServer, in turns: one SavedModel, runtime and client, a worker each.

    python -m venv litserve-env && litserve-env/bin/pip install litserve==0.2.19 pyzmq numpy
    python -m venv mlserver-env && mlserver-env/bin/pip install mlserver==1.7.1 'uvloop<0.22'
    for V in litserve mlserver; do $V-env/bin/pip install --no-deps tensorflow==2.21.0; done   # for its C library

    python benchmarks/peers_serving.py DIR NAME --litserve litserve-env/bin/python --mlserver mlserver-env/bin/python
        [--also DIR] [--bodies FILE] [--rounds 5] [--round-s 3] [--concurrency 32]

DIR is what `kcost export --name NAME` wrote; FILE has a JSON body of `:predict` a line, each of one row, which take
turns (`tagger_bodies.py` writes real sentences); without it one is made up. A peer that is not named, or whose
packages are not there, is left out, and said so. `--also` has another export of the same model, which kcost serves in
the same turns. `bare` is `bare_asgi.py`, for models of one input.

Every server runs the model by `kcost.runtimes.saved_model` on one thread: what differs is what is around it. The
peers batch as their guides say: up to 32 rows; the first waits at most 5 ms for others. MLServer puts rows of one
length together: sentences go to it in two ways, as they are and one by one, and padded to the longest of FILE and in
batches. The client, in this process, closes the loop: each of its connections sends the next request when the last is
answered. While one server has its turn, the others are stopped (SIGSTOP): those that look for work all the time would
take of it.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import psutil
import uvloop
from peer_rows import MOST_ROWS, WAIT_S, Model
from serving import Turn, free_port, say, shown, turn, wait_until_open

from kcost.core.stats import paired_ratio
from kcost.runtimes.saved_model import SavedModelSession
from kcost.serving.config import version_folder, versions_in
from kcost.serving.http_client import Target
from kcost.serving.made_up import made_up_body
from kcost.serving.one_request import ask
from kcost.serving.open_inference_tensors import DATATYPES

HERE = Path(__file__).parent
READY_S = 90
ALSO = "kcost of --also"
PACKAGES = {"litserve": "litserve==0.2.19 pyzmq numpy", "mlserver": "mlserver==1.7.1 'uvloop<0.22'"}


class Started(NamedTuple):
    """A server, and how it is asked."""

    process: subprocess.Popen[bytes]
    target: Target
    bodies: list[bytes]
    log: Path
    prediction: Any
    """From a document that it answered to its output, a nested list."""


def missing_in(python: Path, package: str) -> str | None:
    """Why a peer cannot run in an environment; None where it can."""
    if not python.exists():
        return f"{python} is not there"
    code = f"import {package}, numpy, importlib.util as u; assert u.find_spec('tensorflow'), 'no tensorflow'"
    tried = subprocess.run([str(python), "-c", code], capture_output=True, text=True)
    return None if tried.returncode == 0 else tried.stderr.strip().splitlines()[-1]


def open_inference_body(row: dict[str, Any], dtypes: dict[str, str], length: int | None) -> bytes:
    """A row in the Open Inference Protocol, padded with zeros to a length where one is given."""
    inputs = []
    for name, values in row.items():
        array = np.asarray(values, dtypes[name])
        if length is not None:
            array = np.pad(array, [(0, length - len(array))])
        shape, kind = [1, *array.shape], DATATYPES[dtypes[name]]
        inputs.append({"name": name, "shape": shape, "datatype": kind, "data": array.ravel().tolist()})
    return json.dumps({"inputs": inputs}).encode()


def rows_in(bodies: Sequence[bytes], only: str) -> list[dict[str, Any]]:
    rows = [json.loads(body)["instances"][0] for body in bodies]
    return [row if isinstance(row, dict) else {only: row} for row in rows]


def from_open_inference(document: dict[str, Any]) -> Any:
    output = document["outputs"][0]
    return np.array(output["data"]).reshape(output["shape"])


@contextlib.contextmanager
def servers(arguments: argparse.Namespace, version: Path, folder: Path) -> Iterator[dict[str, Started]]:
    """All of them, started and open."""
    with SavedModelSession(version, threads=1) as session:
        dtypes = {name: tensor.dtype for name, tensor in session.signature.inputs.items()}
    started: dict[str, Started] = {}
    log = (folder / "servers.log").open("wb")
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1"}
    plain = {k: v for k, v in environment.items() if k != "PYTHONPATH"}  # the peers' environments are their own

    def begin(name: str, command: Sequence[object], path: str, bodies: list[bytes], prediction: Any) -> None:
        is_peer = str(command[0]) != sys.executable
        process = subprocess.Popen(
            [str(part) for part in command],
            stdout=log,
            stderr=log,
            env=plain if is_peer else environment,
            cwd=folder,
        )
        port = next(int(part) for part in command if isinstance(part, int))
        started[name] = Started(
            process, Target("127.0.0.1", "127.0.0.1", port, path), bodies, Path(log.name), prediction
        )
        try:
            wait_until_open(port)
        except TimeoutError:
            print((folder / "servers.log").read_text(errors="replace")[-2000:], file=sys.stderr)
            raise

    def predictions(document: dict[str, Any]) -> Any:
        return document["predictions"]

    try:
        predict = f"/v1/models/{arguments.name}:predict"

        def serving(folder: Path) -> list[object]:
            command = (sys.executable, "-m", "kcost", "serve", folder.absolute())
            return [*command, "--threads", "1", "--port", free_port()]

        begin("kcost", serving(arguments.folder), predict, [], predictions)
        if arguments.bodies is None:
            bodies = [asyncio.run(made_up_body(started["kcost"].target, seed=0))]
        else:
            bodies = arguments.bodies.read_bytes().splitlines()
        started["kcost"].bodies.extend(bodies)
        rows = rows_in(bodies, next(iter(dtypes)))
        if arguments.also is not None:
            begin(ALSO, serving(arguments.also), predict, bodies, predictions)
        if len(dtypes) == 1:
            bare = [sys.executable, HERE / "bare_asgi.py", version, free_port()]
            begin("bare", bare, predict, bodies, predictions)
        if arguments.litserve is not None:
            command = [arguments.litserve, HERE / "peer_litserve.py", version, free_port()]
            begin("litserve", command, "/v1/models/m:predict", bodies, predictions)
        if arguments.mlserver is not None:
            lengths = {len(next(iter(row.values()))) for row in rows}
            ways = {"mlserver": None} if len(lengths) == 1 else {"mlserver": None, "mlserver padded": max(lengths)}
            for name, length in ways.items():
                port = free_port()
                batched = len(lengths) == 1 or length is not None
                settings = mlserver_settings(folder / name.replace(" ", "-"), version, port, batched=batched)
                mine = [open_inference_body(row, dtypes, length) for row in rows]
                command = [arguments.mlserver, HERE / "peer_mlserver.py", settings, port]
                begin(name, command, "/v2/models/m/infer", mine, from_open_inference)
        yield started
    finally:
        whole = [process for server in started.values() for process in family(server)]
        for server in started.values():
            set_stopped(server, stopped=False)
            server.process.terminate()
        _, left = psutil.wait_procs(whole, 5)
        for process in left:  # MLServer waits for ever for a worker that has ended
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        for server in started.values():
            server.process.wait()
        log.close()


def mlserver_settings(folder: Path, version: Path, port: int, *, batched: bool) -> Path:
    """Settings of MLServer and its model, as its guide has them."""
    folder.mkdir()
    server = {"http_port": port, "grpc_port": free_port(), "metrics_port": free_port(), "debug": False}
    (folder / "settings.json").write_text(json.dumps({**server, "parallel_workers": 1}))
    batching = {"max_batch_size": MOST_ROWS, "max_batch_time": WAIT_S} if batched else {}
    model = {"name": "m", "implementation": "peer_mlserver.SavedModel", "parameters": {"uri": str(version)}}
    (folder / "model-settings.json").write_text(json.dumps({**model, **batching}))
    return folder


def family(server: Started) -> list[psutil.Process]:
    try:
        mother = psutil.Process(server.process.pid)
        return [*mother.children(recursive=True), mother]
    except psutil.NoSuchProcess:
        return []


def set_stopped(server: Started, *, stopped: bool) -> None:
    for process in family(server):
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGSTOP if stopped else signal.SIGCONT)


async def answers_of(server: Started, count: int) -> list[np.ndarray]:
    answers = []
    for body in server.bodies[:count]:
        code, answer = await ask(server.target, body)
        assert code == 200, (code, answer[:300])
        answers.append(np.squeeze(np.array(server.prediction(json.loads(answer)), np.float64), 0))
    return answers


async def until_ready(name: str, server: Started) -> None:
    """Waits until a server answers: some open their port before the model is loaded."""
    code, answer = None, b""
    for _ in range(READY_S * 5):
        code, answer = await ask(server.target, server.bodies[0])
        if code == 200:
            return
        await asyncio.sleep(0.2)
    said = server.log.read_text(errors="replace")[-2000:]
    raise SystemExit(f"{name} is not ready after {READY_S} s: {code}, {answer[:300]!r}\n{said}")


async def check_alike(started: dict[str, Started]) -> None:
    """Every server gives the answers of the first, to the digits that padding may change."""
    for name, server in started.items():
        await until_ready(name, server)
    first = await answers_of(started["kcost"], 8)
    for name, server in started.items():
        for mine, other in zip(first, await answers_of(server, 8), strict=True):
            off = np.abs(mine - other[: len(mine)]).max()
            assert off <= 0.02 * max(1.0, float(np.abs(mine).max())), f"{name} answers otherwise, by {off:g}"


async def measure(arguments: argparse.Namespace, started: dict[str, Started], version: Path) -> None:
    await check_alike(started)
    for server in started.values():
        set_stopped(server, stopped=True)
    rounds: dict[str, list[Turn]] = {name: [] for name in started}
    for number in range(arguments.rounds):
        for name in list(started) if number % 2 else list(reversed(started)):
            server = started[name]
            set_stopped(server, stopped=False)
            taken = await turn(server.target, server.bodies, arguments.concurrency, arguments.round_s)
            set_stopped(server, stopped=True)
            rounds[name].append(taken)
            say(f"round {number + 1} of {arguments.rounds}, {name}", taken)
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {arguments.rounds} rounds of "
        f"{arguments.round_s:g} s in turns, concurrency {arguments.concurrency}"
    )
    middle = {name: np.median(turns, 0) for name, turns in rounds.items()}
    for name, (rate, p50, p99) in middle.items():
        print(f"{name:16} {rate:8.0f} requests/s, p50 {p50:.2f} ms, p99 {p99:.2f} ms")
    others = [name for name in started if name != "kcost"]
    for name in others:
        rates, tails = [paired(rounds, name, place) for place in (0, 2)]
        print(f"kcost over {name}: requests/s {shown(rates)}, p99 {shown(tails)}")
    peers = [name for name in others if name not in ("bare", ALSO)]
    if peers:
        fastest = max(peers, key=lambda name: float(middle[name][0]))
        lowest = min(peers, key=lambda name: float(middle[name][2]))
        print(f"the better peer: {fastest} by requests/s, {lowest} by p99")
    ceiling = alone_per_s(version, started["kcost"].bodies)
    print(f"the model alone, one thread, {MOST_ROWS} rows of about one length at a time: {ceiling:.0f}/s")


def alone_per_s(version: Path, bodies: Sequence[bytes]) -> float:
    """Rows a second of the model alone on one thread, in this process: 32 at a time, by length. No server is faster."""
    model = Model(str(version))
    rows = [model.row(json.loads(body)["instances"][0]) for body in bodies]
    while len(rows) < MOST_ROWS:
        rows += rows
    rows.sort(key=lambda row: len(next(iter(row.values()))))
    batches = [rows[at : at + MOST_ROWS] for at in range(0, len(rows) - MOST_ROWS + 1, MOST_ROWS)]
    for batch in batches:
        model.run(batch)
    began_s, done = time.perf_counter(), 0
    while time.perf_counter() < began_s + 2:
        for batch in batches:
            model.run(batch)
            done += len(batch)
    return done / (time.perf_counter() - began_s)


def paired(rounds: dict[str, list[Turn]], name: str, place: int) -> Any:
    return paired_ratio([t[place] for t in rounds["kcost"]], [t[place] for t in rounds[name]])


def from_anywhere(path: str) -> Path:
    """A path that servers find, which run in a folder of their own; links stay, as they say which environment it is."""
    return Path(path).absolute()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--litserve", type=from_anywhere, metavar="PYTHON")
    parser.add_argument("--mlserver", type=from_anywhere, metavar="PYTHON")
    parser.add_argument("--also", type=Path, metavar="DIR")
    parser.add_argument("--bodies", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-s", type=float, default=3.0)
    parser.add_argument("--concurrency", type=int, default=32)
    arguments = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    for peer, packages in PACKAGES.items():
        python = getattr(arguments, peer)
        reason = "it was not named" if python is None else missing_in(python, peer)
        if reason is not None:
            print(
                f"left out: {peer}: {reason}. Install it: python -m venv /tmp/{peer} && /tmp/{peer}/bin/pip install "
                f"{packages} && /tmp/{peer}/bin/pip install --no-deps tensorflow; then --{peer} /tmp/{peer}/bin/python",
                file=sys.stderr,
            )
            setattr(arguments, peer, None)
    base = arguments.folder / arguments.name
    version = version_folder(base, versions_in(base)[-1]).absolute()
    with (
        tempfile.TemporaryDirectory() as folder,
        servers(arguments, version, Path(folder)) as started,
    ):
        uvloop.run(measure(arguments, started, version))


if __name__ == "__main__":
    main()
