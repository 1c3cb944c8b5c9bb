"""What the proxy adds to a request: the same open load on a server directly, through the proxy, and with rows watched.

    python benchmarks/proxy_overhead.py [--rate 200] [--rounds 5] [--round-s 5]

The server is a bare one that answers at once with ten probabilities, so that what is measured is the proxy. A request
has one row of 28 x 28 numbers. They take turns in shuffled order; client, proxy and server share the machine. A
forwarder of bytes, which reads nothing of them, tells what one process more costs by itself. Beside the latency stands
the CPU time of each process for a request.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import cast

import checkout  # noqa: F401 -- finds `testing`
import numpy as np
import psutil
import uvloop

from kcost.risk.drift_features import class_columns, vector_columns
from kcost.risk.drift_reference import Reading, Reference, vector_basis
from kcost.serving.load_test import LoadSettings, run_load
from testing.references import made_up_reference

CLASSES, SHAPE = 10, (28, 28, 1)


async def serve_bare(port: int) -> None:
    answer = json.dumps({"predictions": [[0.91, *[0.01] * 9]]}).encode()
    reply = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(answer) + answer

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                writer.write(reply)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_server(one, "127.0.0.1", port) as server:
        await server.serve_forever()


async def forward_bytes(port: int, upstream_port: int) -> None:
    """Passes bytes on, a connection to the server for each of a client."""
    loop = asyncio.get_running_loop()

    class Back(asyncio.Protocol):
        def __init__(self, client: asyncio.Transport) -> None:
            self.client = client

        def data_received(self, data: bytes) -> None:
            self.client.write(data)

    class Forth(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            self.early: list[bytes] = []
            self.server: asyncio.Transport | None = None
            self.connecting = loop.create_task(self.connect(cast(asyncio.Transport, transport)))

        async def connect(self, client: asyncio.Transport) -> None:
            self.server, _ = await loop.create_connection(lambda: Back(client), "127.0.0.1", upstream_port)
            self.server.write(b"".join(self.early))

        def data_received(self, data: bytes) -> None:
            if self.server is None:
                self.early.append(data)
            else:
                self.server.write(data)

    async with await loop.create_server(Forth, "127.0.0.1", port) as server:
        await server.serve_forever()


def made_reference(rng: np.random.Generator) -> Reference:
    images = rng.random((2000, int(np.prod(SHAPE))))
    basis = vector_basis(images[:1000])
    logs = np.log(rng.dirichlet(np.ones(CLASSES), 1000))
    names = tuple(map(str, range(CLASSES)))
    outputs = class_columns(logs, logs.argmax(1), names)
    inputs = {f"input {name}": values for name, values in vector_columns(images[1000:], basis).items()}
    reading = Reading(kind="multiclass", logits=False, form="pixels", shape=SHAPE, basis=basis)
    return made_up_reference("m", names, reading, outputs, inputs, rng.random(1000) < 0.9)


def started(*options: str) -> tuple[subprocess.Popen[str], str]:
    """A proxy, and its URL."""
    command = [sys.executable, "-m", "kcost", "serve", "--usd-per-hour", "0.34", "--port", "0", *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    return process, process.stderr.readline().split(" ")[0]


async def measure(
    urls: dict[str, str],
    processes: dict[str, subprocess.Popen[str]],
    body: Path,
    rate_per_s: float,
    rounds: int,
    round_s: float,
) -> None:
    times: dict[str, list[tuple[float, float, float]]] = {name: [] for name in urls}
    order, rng = list(urls), random.Random(0)
    for number in range(rounds):
        rng.shuffle(order)
        for name in order:
            settings = LoadSettings(
                rate_per_s=rate_per_s,
                duration_s=round_s,
                log=None,
                body=body,
                bound_ms=1.0,
                seed=number,
                connections=64,
                timeout_s=30.0,
                remote=False,
            )
            before_s = cpu_s(processes[name])
            report = await run_load(f"{urls[name]}/v1/models/m:predict", settings)
            assert not report.failed, report.statuses
            own_ms = (cpu_s(processes[name]) - before_s) * 1000 / report.requests
            times[name].append((report.after_sending.p50_ms, report.after_sending.p99_ms, own_ms))
    base = np.array(times["direct"])
    for name, rows in times.items():
        numbers = np.array(rows)
        added = np.median(numbers - base, 0)
        p50_ms, p99_ms, own_ms = np.median(numbers, 0)
        print(
            f"{name}: p50 {p50_ms:.3f} ms, p99 {p99_ms:.3f} ms; adds {added[0]:.3f} ms and {added[1]:.3f} ms; "
            f"its process computes {own_ms:.3f} ms for a request"
        )


def cpu_s(process: subprocess.Popen[str]) -> float:
    times = psutil.Process(process.pid).cpu_times()
    return float(times.user + times.system)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rate", type=float, default=200.0)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--round-s", type=float, default=5.0)
    parser.add_argument("--bare-server", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--forward", type=int, nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.bare_server:
        asyncio.run(serve_bare(given.bare_server))
        return
    if given.forward:
        uvloop.run(forward_bytes(*given.forward))
        return
    rng = np.random.default_rng(0)
    port = 18600 + os.getpid() % 1000
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        reference, body = Path(folder, "reference.json"), Path(folder, "body.json")
        reference.write_text(made_reference(rng).model_dump_json())
        body.write_text(json.dumps({"instances": rng.random((1, *SHAPE)).round(3).tolist()}))
        upstream, forwarder = (f"http://127.0.0.1:{p}" for p in (port, port + 1))
        urls: dict[str, str] = {}
        processes: dict[str, subprocess.Popen[str]] = {}

        def joins(name: str, process: subprocess.Popen[str], url: str) -> None:
            stack.callback(process.wait, 30)
            stack.callback(process.terminate)
            processes[name], urls[name] = process, url

        own = [sys.executable, __file__]
        joins("direct", subprocess.Popen([*own, "--bare-server", str(port)], text=True), upstream)
        joins("forwarder", subprocess.Popen([*own, "--forward", str(port + 1), str(port)], text=True), forwarder)
        joins("through the proxy", *started("--upstream", upstream))
        joins("through it, rows watched", *started("--upstream", upstream, "--reference", f"m={reference}"))
        asyncio.run(measure(urls, processes, body, given.rate, given.rounds, given.round_s))


if __name__ == "__main__":
    main()
