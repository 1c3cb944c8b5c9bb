"""The three interfaces of one `kcost serve` in turns: REST, the Open Inference Protocol in JSON and as bytes, gRPC.

    python benchmarks/interfaces.py DIR NAME [--rounds 4] [--round-s 2] [--concurrency 32]

DIR is what `kcost export --name NAME` wrote. As it stands it takes a minute and a half, and says on standard error
where it is. The client, in this process, sends one row a request; each of its
connections (of gRPC: calls on one connection) sends the next when the last is answered. Client, server and model share
the cores of this machine; the client of gRPC is another library than that of HTTP, and its time is in the figures.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import grpc.aio
import numpy as np
import uvloop
from serving import Turn, bare_call_ms, free_port, say, shown, turn, wait_until_open

from kcost.core.stats import paired_ratio
from kcost.serving.config import version_folder, versions_in
from kcost.serving.http_client import Target
from kcost.serving.made_up import made_up_body
from kcost.serving.messages import message_class
from kcost.serving.open_inference_tensors import DATATYPES, JSON_BYTES_HEADER
from kcost.serving.tensor_messages import fill

PREDICT = "/tensorflow.serving.PredictionService/Predict"


class WithHeader(Target):
    """A target whose requests have bytes behind their JSON."""

    def request(self, body: bytes, method: str = "POST", path: str | None = None) -> bytes:
        head, _, rest = super().request(body, method, path).partition(b"\r\n\r\n")
        return head + b"\r\n" + JSON_BYTES_HEADER + b": %d\r\n\r\n" % (body.index(b"\n") + 1) + rest


async def grpc_turn(address: str, request: bytes, concurrency: int, lasts_s: float) -> Turn:
    """As `turn`, over gRPC."""
    latencies_ns: list[int] = []
    begin = time.perf_counter() + lasts_s / 10
    end = begin + lasts_s

    async with grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(PREDICT)

        async def one() -> None:
            while (now := time.perf_counter()) < end:
                start_ns = time.perf_counter_ns()
                await call(request)
                if now > begin:
                    latencies_ns.append(time.perf_counter_ns() - start_ns)

        await asyncio.gather(*(one() for _ in range(concurrency)))
    p50, p99 = np.quantile(latencies_ns, (0.5, 0.99)) / 1e6
    return Turn(len(latencies_ns) / lasts_s, float(p50), float(p99))


def bodies(name: str, rest: bytes, tensor: str) -> dict[str, bytes]:
    """The same row for each interface."""
    row = np.array(json.loads(rest)["instances"], np.float32)
    entry = {"name": tensor, "shape": row.shape, "datatype": DATATYPES["float32"]}
    binary = {**entry, "parameters": {"binary_data_size": row.nbytes}}
    document = {"inputs": [binary], "parameters": {"binary_data_output": True}}
    message = message_class("PredictRequest")()
    message.model_spec.name = name
    fill(message.inputs.add(key=tensor).value, row)
    return {
        "rest": rest,
        "open": json.dumps({"inputs": [{**entry, "data": row.ravel().tolist()}]}).encode(),
        "open bytes": json.dumps(document).encode() + b"\n" + row.tobytes(),
        "grpc": message.SerializeToString(),
    }


async def measure(arguments: argparse.Namespace, port: int, grpc_port: int, version: Path) -> None:
    place = ("127.0.0.1", "127.0.0.1", port)
    rest = Target(*place, f"/v1/models/{arguments.name}:predict")
    infer = f"/v2/models/{arguments.name}/infer"
    targets = {"rest": rest, "open": Target(*place, infer), "open bytes": WithHeader(*place, infer)}
    body = await made_up_body(rest, seed=0)
    sent = bodies(arguments.name, body, arguments.input)
    rounds: dict[tuple[str, int], list[Turn]] = {}
    for number in range(arguments.rounds):
        for concurrency in (arguments.concurrency, 1):
            for name in list(sent) if number % 2 else list(reversed(sent)):
                if name == "grpc":
                    taken = await grpc_turn(f"127.0.0.1:{grpc_port}", sent[name], concurrency, arguments.round_s)
                else:
                    taken = await turn(targets[name], [sent[name]], concurrency, arguments.round_s)
                rounds.setdefault((name, concurrency), []).append(taken)
                say(f"round {number + 1} of {arguments.rounds}, {name}, concurrency {concurrency}", taken)
    bare_ms = bare_call_ms(version, body, 3000)
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores; {arguments.rounds} rounds in turns")
    for (name, concurrency), turns in sorted(rounds.items()):
        rate, p50, p99 = (np.median([t[i] for t in turns]) for i in range(3))
        print(f"{name:10} concurrency {concurrency:3}: {rate:8.0f} requests/s, p50 {p50:.3f} ms, p99 {p99:.3f} ms")
    for name in sent:
        own = np.median([t.p50_ms - bare_ms for t in rounds[name, 1]])
        print(f"{name:10} own time at p50, one connection, over a bare call of {bare_ms:.3f} ms: {own:.3f} ms")
        rates = [[t.requests_per_s for t in rounds[which, arguments.concurrency]] for which in (name, "rest")]
        if name != "rest":
            print(f"{name:10} requests/s over REST: {shown(paired_ratio(*rates))}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--input", default="images", help="of the model, one of float32")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--round-s", type=float, default=2.0)
    parser.add_argument("--concurrency", type=int, default=32)
    arguments = parser.parse_args()
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
    base = arguments.folder / arguments.name
    version = version_folder(base, versions_in(base)[-1])
    port, grpc_port = free_port(), free_port()
    options = ["--port", port, "--grpc-port", grpc_port, "--threads", 1]
    command = [sys.executable, "-m", "kcost", "serve", arguments.folder, *options]
    process = subprocess.Popen([str(part) for part in command], stdout=subprocess.DEVNULL)
    try:
        wait_until_open(port)
        uvloop.run(measure(arguments, port, grpc_port, version))
    finally:
        process.terminate()
        process.wait()


if __name__ == "__main__":
    main()
