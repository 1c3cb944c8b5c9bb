"""Ten minutes of mixed load through the proxy, and its invoice held against clocks and counts outside of it.

    python benchmarks/invoice.py DIR NAME [--minutes 10] [--usd-per-hour 0.34]

DIR is what `kcost export --name NAME` wrote. Callers a, b and c send requests of one and of eight rows by REST and by
the Open Inference Protocol, some of them wrong, in phases of no, few and many requests. Held against one another:

- every 15 s, requests + overhead + idle against the total that the invoice has itself: exact by construction;
- the total between two looks against the price x this process's wall clock (the proxy's own clock is another one);
- requests and failures of each caller against what was sent;
- the time that was not idle against the time in which this client had a request under way, which has the way there
  and back in it too, and is therefore longer;
- the share of each caller in what requests cost, against equal shares of each moment by this client's clock.

Ends with 1 where the first two miss by more than 0.1% or a count is another.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import uvloop
from served import Served

from kcost.serving.http_client import Connection, Target, read_url, take_open
from kcost.serving.made_up import made_up_body

WITHIN = 0.001
LOOK_S = 15.0
CALLERS = ("a", "b", "c")
WEIGHTS = (6, 3, 1)
PHASES = (("few", 5.0), ("none", 0.0), ("many", 300.0), ("some", 60.0))


class Sent(NamedTuple):
    """A request by this client's clock."""

    caller: str
    start_ns: int
    end_ns: int
    status: int


class Look(NamedTuple):
    """An invoice, and when it was asked for by the wall clock: about the middle of the request."""

    at_s: float
    bill: dict[str, Any]


def messages(target: Target, name: str, one_row: bytes) -> list[tuple[bytes, bytes, int]]:
    """Path, body and weight of each kind of request."""
    document = json.loads(one_row)
    (row,) = document["instances"]
    eight = json.dumps({"instances": [row] * 8}).encode()
    array = np.array(row, np.float64)
    columns = json.dumps({"inputs": [row, row]}).encode()
    predict, infer = target.path.encode(), f"/v2/models/{name}/infer".encode()
    wrong = json.dumps({"instances": [array.ravel().tolist()[:3]]}).encode()
    return [
        (predict, one_row, 60),
        (predict, eight, 20),
        (predict, columns, 10),
        (predict, wrong, 4),
        (infer, b'{"inputs": []}', 3),
        (predict.replace(b":predict", b"/versions/99:predict"), one_row, 3),
    ]


class Client:
    """Sends requests when they are due, each on a connection of its own while it is under way."""

    def __init__(self, target: Target, kinds: list[tuple[bytes, bytes, int]]) -> None:
        self.target = target
        self.kinds = kinds
        self.rng = random.Random(0)
        self.free: list[Connection] = []
        self.sent: list[Sent] = []

    async def one(self) -> None:
        (caller,) = self.rng.choices(CALLERS, WEIGHTS)
        ((path, body, _),) = self.rng.choices(self.kinds, [weight for _, _, weight in self.kinds])
        plain = self.target.request(body, path=path.decode())
        head, _, rest = plain.partition(b"\r\n\r\n")
        request = head + f"\r\nx-team: {caller}\r\n\r\n".encode() + rest
        connection = take_open(self.free)
        loop = asyncio.get_running_loop()
        if connection is None:
            _, connection = await loop.create_connection(
                lambda: Connection(lambda _: None), self.target.address, self.target.port
            )
        answered: asyncio.Future[int | None] = loop.create_future()
        start_ns = time.perf_counter_ns()
        connection.send(request, answered.set_result)
        status = await answered
        self.sent.append(Sent(caller, start_ns, time.perf_counter_ns(), status or 0))
        if connection.is_open:
            self.free.append(connection)

    async def phases(self, until_s: float) -> None:
        tasks: set[asyncio.Task[None]] = set()
        number = 0
        while time.monotonic() < until_s:
            name, rate = PHASES[number % len(PHASES)]
            number += 1
            end_s = min(until_s, time.monotonic() + self.rng.uniform(4, 12))
            print(f"{name} requests for {end_s - time.monotonic():.0f} s", file=sys.stderr, flush=True)
            while (now_s := time.monotonic()) < end_s:
                pause_s = self.rng.expovariate(rate) if rate else end_s - now_s
                await asyncio.sleep(min(pause_s, end_s - now_s))
                if rate:
                    tasks.add(task := asyncio.create_task(self.one()))
                    task.add_done_callback(tasks.discard)
        await asyncio.gather(*tasks)


def equal_shares(sent: list[Sent]) -> tuple[float, dict[str, float]]:
    """Seconds in which something was under way, and each caller's equal shares of them: by a sweep over all moments."""
    moments = sorted([(s.start_ns, 1, s.caller) for s in sent] + [(s.end_ns, -1, s.caller) for s in sent])
    under_way: Counter[str] = Counter()
    busy_ns, shares = 0.0, dict.fromkeys(CALLERS, 0.0)
    last_ns = moments[0][0]
    for at_ns, step, caller in moments:
        count = under_way.total()
        if count:
            busy_ns += at_ns - last_ns
            for name, mine in under_way.items():
                shares[name] += (at_ns - last_ns) * mine / count
        under_way[caller] += step
        last_ns = at_ns
    return busy_ns / 1e9, {name: share / 1e9 for name, share in shares.items()}


async def look(proxy: Served) -> Look:
    before_s = time.time()
    bill = await asyncio.to_thread(proxy.get, "/kcost/invoice")
    return Look((before_s + time.time()) / 2, bill)


async def measure(proxy: Served, server: Served, arguments: argparse.Namespace) -> bool:
    path = f"/v1/models/{arguments.name}:predict"
    body = await made_up_body(read_url(server.url + path, remote=False), seed=0)
    target = read_url(proxy.url + path, remote=False)
    client = Client(target, messages(target, arguments.name, body))
    looks = [await look(proxy)]
    load = asyncio.create_task(client.phases(time.monotonic() + arguments.minutes * 60))
    while not load.done():
        await asyncio.wait({load}, timeout=LOOK_S)
        looks.append(await look(proxy))
    load.result()
    return print_findings(client.sent, looks, arguments.usd_per_hour)


def print_findings(sent: list[Sent], looks: list[Look], usd_per_hour: float) -> bool:
    bill, seconds = looks[-1].bill, looks[-1].bill["seconds"]
    sums = [sum(x.bill[k] for k in ("requests_usd", "overhead_usd", "idle_usd")) / x.bill["total_usd"] for x in looks]
    off = max(abs(s - 1) for s in sums)
    print(
        f"{len(sent)} requests in {seconds / 60:.1f} min: ${bill['total_usd']:.6f} = requests "
        f"${bill['requests_usd']:.6f} + overhead ${bill['overhead_usd']:.6f} + idle ${bill['idle_usd']:.6f}"
    )
    print(f"their sum over the total, {len(looks)} looks: off by {off:.2e} at most")
    passed_s = looks[-1].at_s - looks[0].at_s
    passed_usd = bill["total_usd"] - looks[0].bill["total_usd"]
    clock = passed_usd / (usd_per_hour * passed_s / 3600) - 1
    print(f"the total against the price x {passed_s:.3f} s by another process's wall clock: off by {clock:+.2e}")
    alike = True
    for caller in CALLERS:
        lines = [line for line in bill["lines"] if line["caller"] == caller]
        mine = [s for s in sent if s.caller == caller]
        counts = [sum(line[key] for line in lines) for key in ("requests", "failed")]
        expected = [len(mine), sum(s.status != 200 for s in mine)]
        alike &= counts == expected
        print(f"caller {caller}: {counts[0]} requests, {counts[1]} failed; sent {expected[0]}, {expected[1]} failed")
    busy_s, shares = equal_shares(sent)
    billed_s = seconds * (1 - bill["idle_usd"] / bill["total_usd"])
    print(
        f"not idle for {billed_s:.2f} s by the invoice; with a request under way for {busy_s:.2f} s by the client: "
        f"{(busy_s - billed_s) / len(sent) * 1e3:.3f} ms a request more, the way there and back"
    )
    whole = sum(line["seconds"] for line in bill["lines"] if line["caller"] in CALLERS)
    for caller in CALLERS:
        part = sum(line["seconds"] for line in bill["lines"] if line["caller"] == caller) / whole
        print(f"caller {caller}: {part:.4f} of what requests cost; {shares[caller] / busy_s:.4f} by the client's clock")
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    return alike and off < WITHIN and abs(clock) < WITHIN


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--usd-per-hour", type=float, default=0.34)
    arguments = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as logs,
        Served(Path(logs, "server.log"), arguments.folder, "--threads", 1) as server,
    ):
        options = ("--upstream", server.url, "--usd-per-hour", arguments.usd_per_hour, "--caller-header", "x-team")
        with Served(Path(logs, "proxy.log"), *options) as proxy:
            held = uvloop.run(measure(proxy, server, arguments))
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
