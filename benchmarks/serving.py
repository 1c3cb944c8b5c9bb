"""`kcost serve` against a bare ASGI program with the same SavedModel, in turns: requests a second, p99, own time.

    python benchmarks/serving.py DIR NAME [--rounds 6] [--round-s 3] [--concurrency 32] [--before CHECKOUT]

DIR is what `kcost export --name NAME` wrote. The client, in this process, sends one row a request; each of its
connections sends the next when the last is answered. Client, server and model share the cores of this machine. A third
program answers at once, without a look at what it is asked: its time is that of the client and of the way to and fro,
which is none of a server's own. Each round has a bare call of the runtime of its own: machines change their speed.
CHECKOUT is a folder with another state of this repository, whose server is measured in turns with this one's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import uvloop

from kcost.core.stats import Interval, paired_ratio
from kcost.runtimes.saved_model import SavedModelSession
from kcost.serving.config import version_folder, versions_in
from kcost.serving.http_client import Connection, Target
from kcost.serving.made_up import made_up_body


class Turn(NamedTuple):
    requests_per_s: float
    p50_ms: float
    p99_ms: float


async def turn(target: Target, bodies: Sequence[bytes], concurrency: int, lasts_s: float) -> Turn:
    """A closed loop for so many seconds, after a tenth of it to warm up; the bodies take turns."""
    loop = asyncio.get_running_loop()
    requests = cycle([target.request(body) for body in bodies])
    latencies_ns: list[int] = []
    begin = time.perf_counter() + lasts_s / 10
    end = begin + lasts_s

    async def one() -> None:
        _, connection = await loop.create_connection(lambda: Connection(lambda _: None), target.address, target.port)
        done = loop.create_future()

        def send() -> None:
            start_ns = time.perf_counter_ns()

            def answered(status: int | None) -> None:
                now = time.perf_counter()
                if status != 200:
                    done.set_exception(RuntimeError(f"status {status}: {connection.body!r}"))
                elif now > end:
                    done.set_result(None)
                else:
                    if now > begin:
                        latencies_ns.append(time.perf_counter_ns() - start_ns)
                    send()

            connection.send(next(requests), answered)

        send()
        await done
        connection.close()

    await asyncio.gather(*(one() for _ in range(concurrency)))
    p50, p99 = np.quantile(latencies_ns, (0.5, 0.99)) / 1e6
    return Turn(len(latencies_ns) / lasts_s, float(p50), float(p99))


class AnswerAtOnce(asyncio.Protocol):
    """Answers a request when its body is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.came = b""

    def data_received(self, data: bytes) -> None:
        self.came += data
        head, mark, body = self.came.partition(b"\r\n\r\n")
        if mark and len(body) >= int(head.split(b"content-length: ")[1].split(b"\r\n")[0]):
            self.came = b""
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 120\r\n\r\n" + b" " * 120)


async def answer_at_once(port: int) -> None:
    async with await asyncio.get_running_loop().create_server(AnswerAtOnce, "127.0.0.1", port) as server:
        await server.serve_forever()


def bare_call_ms(folder: Path, body: bytes, calls: int) -> float:
    """The median of a call of the runtime with one row, in this process."""
    with SavedModelSession(folder, threads=1) as session:
        row = np.array(json.loads(body)["instances"], np.float32)
        inputs = dict.fromkeys(session.signature.inputs, row)
        times = []
        for _ in range(calls):
            start = time.perf_counter_ns()
            session.run(inputs)
            times.append(time.perf_counter_ns() - start)
    return float(np.median(times[calls // 10 :])) / 1e6


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_open(port: int) -> None:
    for _ in range(600):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"nothing listens on {port}")


def say(where: str, taken: Turn) -> None:
    """Tells on standard error how far a program is."""
    print(f"{where}: {taken.requests_per_s:.0f} requests/s, p99 {taken.p99_ms:.2f} ms", file=sys.stderr, flush=True)


def shown(interval: Interval) -> str:
    return f"{interval.value:.3f} (95%: {interval.low:.3f} to {interval.high:.3f})"


def main() -> None:
    if sys.argv[1:2] == ["--at-once"]:
        uvloop.run(answer_at_once(int(sys.argv[2])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--round-s", type=float, default=3.0)
    parser.add_argument("--concurrency", type=int, default=32)
    parser.add_argument("--before", type=Path)
    arguments = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    base = arguments.folder / arguments.name
    version = version_folder(base, versions_in(base)[-1])
    serve = ["-m", "kcost", "serve", arguments.folder.resolve(), "--threads", 1, "--port"]
    programs = {
        "kcost": serve,
        "bare": [Path(__file__).parent / "bare_asgi.py", version],
        "at once": [__file__, "--at-once"],
        **({"before": serve} if arguments.before else {}),
    }
    ports = {name: free_port() for name in programs}
    started = [
        subprocess.Popen(
            [sys.executable, *map(str, program), str(ports[name])],
            stdout=subprocess.DEVNULL,
            env=os.environ | ({"PYTHONPATH": str(arguments.before.resolve())} if name == "before" else {}),
            cwd=arguments.before if name == "before" else None,  # python -m looks there first
        )
        for name, program in programs.items()
    ]
    try:
        for port in ports.values():
            wait_until_open(port)
        uvloop.run(measure(arguments, ports, version))
    finally:
        for process in started:
            process.terminate()
            process.wait()


async def measure(arguments: argparse.Namespace, ports: dict[str, int], version: Path) -> None:
    path = f"/v1/models/{arguments.name}:predict"
    targets = {name: Target("127.0.0.1", "127.0.0.1", port, path) for name, port in ports.items()}
    body = await made_up_body(targets["kcost"], seed=0)
    rounds: dict[tuple[str, int], list[Turn]] = {}
    bare_ms: list[float] = []
    for number in range(arguments.rounds):
        for concurrency in (arguments.concurrency, 1):
            names = list(targets) if number % 2 else list(reversed(targets))
            for name in names if concurrency == 1 else [name for name in names if name != "at once"]:
                taken = await turn(targets[name], [body], concurrency, arguments.round_s)
                rounds.setdefault((name, concurrency), []).append(taken)
                say(f"round {number + 1} of {arguments.rounds}, {name}, concurrency {concurrency}", taken)
        bare_ms.append(bare_call_ms(version, body, 2000))
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {arguments.rounds} rounds in turns")
    for (name, concurrency), turns in sorted(rounds.items()):
        rate, p50, p99 = (np.median([t[i] for t in turns]) for i in range(3))
        print(f"{name:7} concurrency {concurrency:3}: {rate:8.0f} requests/s, p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    many = arguments.concurrency

    def over(name: str, what: str, concurrency: int) -> str:
        ours, theirs = ([getattr(t, what) for t in rounds[of, concurrency]] for of in ("kcost", name))
        return shown(paired_ratio(ours, theirs))

    for name in ("bare", "before") if arguments.before else ("bare",):
        print(f"requests/s, kcost over {name}: {over(name, 'requests_per_s', many)}")
        print(f"p99, kcost over {name}: {over(name, 'p99_ms', many)}")
        print(f"p50 at one connection, kcost over {name}: {over(name, 'p50_ms', 1)}")
    p50_ms = {name: np.array([t.p50_ms for t in rounds[name, 1]]) for name in targets}
    for name in ("kcost", "bare"):
        whole = np.median(p50_ms[name] - bare_ms)
        own = p50_ms[name] - p50_ms["at once"] - bare_ms
        print(
            f"{name}, one connection, p50 over a bare call of {np.median(bare_ms):.3f} ms: {np.median(own):.3f} ms of "
            f"its own ({own.min():.3f} to {own.max():.3f} by round), {whole:.3f} ms with the client's and the way"
        )


if __name__ == "__main__":
    main()
