"""100,000 malformed requests to each interface of `kcost serve`: which status each kind got, and the memory.

    python -m tests.serving.make_saved_models FOLDER
    python benchmarks/malformed.py FOLDER [--count 100000] [--interfaces rest,open,grpc]

Kinds: damaged at random, cut short, wrong ranks, numbers of no dtype, wrong types, bad base64, nesting up to 100,000
deep, text that is no UTF-8, bodies that are not what their encoding says, HTTP that is none, bytes that are no
message, requests that end in the middle, and such that are sent too slowly. Each kind has the statuses that are right
for it; what is damaged at random may be valid by chance, and is then answered. Ends with 1 where a status is another,
a process of a model has ended, a request is not answered within 20 s, or memory grew.
"""

from __future__ import annotations

import argparse
import asyncio
import gzip
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import checkout  # noqa: F401 -- finds `testing`
import grpc.aio
import numpy as np
import uvloop
from google.protobuf.message import DecodeError
from served import Served, mib

from kcost.serving.http_client import Connection, Target, read_url, take_open
from kcost.serving.messages import message_class
from kcost.serving.tensor_messages import fill
from testing.damaged_bytes import bytes_changed

MOST_GROWTH_MIB = 16.0
AT_A_TIME = 16
WAIT_S = 20.0
CLIENT_TIMEOUT_S = 2.0
NUMBERS = (
    "1e400",
    "-1e400",
    "9" * 400 + ".5",
    "1e39",
    "1" * 5000,
    "0x10",
    "1_000",
    "+1",
    "01",
    "--1",
    "1e",
    ".5",
    "NaNN",
)
DEPTHS = (65, 1000, 10_000, 100_000)
PIECES = (b"", b"[", b"]", b"{", b'"', b",", b"9" * 30, b"\xff", b"null", b"true", b"NaN", b"1e999")

SENT_LATE = "refused as sent too slowly"
"""Beside other work the client itself may not have sent a call within the two seconds that the server waits."""

Maker = Callable[[random.Random], bytes]


class Kind(NamedTuple):
    """A kind of malformed request, and the statuses that are right for it."""

    name: str
    weight: int
    make: Maker
    right: frozenset[str]
    whole: bool = False
    """Whether `make` gives all bytes of a connection, on one of its own, and not a body."""
    ends: bool = False
    """Whether the client then closes its side."""


def damaged(rng: random.Random, whole: bytes) -> bytes:
    body = bytearray(whole)
    for _ in range(rng.randint(1, 5)):
        at = rng.randrange(len(body) or 1)
        body[at : at + rng.randint(0, 3)] = rng.choice((*PIECES, bytes([rng.randrange(256)])))
    return bytes(body)


def nested(rng: random.Random) -> str:
    depth = rng.choice(DEPTHS)
    form = rng.choice(("[]", "[", "{}", "[NaN"))
    if form == "{}":
        return '{"a":' * depth + "1" + "}" * depth
    return "[" * depth + ("]" * depth if form == "[]" else form[1:])


def bad_base64(rng: random.Random) -> str:
    return rng.choice(
        ("?", "a", "a===", "aGk=\u0000", "äöü", "=" * 9, "aGk\n k", "\\", "a" * rng.randint(1, 999) * 4 + "a")
    )


def http(path: str, body: bytes, *headers: str, length: int | None = None) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "host: x", *headers, f"content-length: {len(body) if length is None else length}"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def no_http(rng: random.Random, path: str) -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\n".encode()
    return rng.choice(
        (
            rng.randbytes(rng.randint(4, 60)) + b"\r\n\r\n",
            b"GET\r\n\r\n",
            b"GET / HTTP/9.9\r\n\r\n",
            head + b"content-length: -1\r\n\r\n",
            head + b"content-length: 1e3\r\n\r\n",
            head + b"content-length: " + b"9" * rng.randint(20, 60) + b"\r\n\r\n",
            head + b"content-length: 3\r\ncontent-length: 4\r\n\r\nabc",
            head + b"transfer-encoding: chunked\r\n\r\nZZ\r\n",
            head + b"no colon\r\n\r\n",
            head + b"x: " + b"a" * 70_000 + b"\r\n\r\n",
            head + b"".join(b"x%d: a\r\n" % i for i in range(20_000)) + b"\r\n",
        )
    )


def rest_kinds() -> list[Kind]:
    path = "/v1/models/half_plus_two:predict"
    seeds = [
        json.dumps({"instances": [[1, 2.5e3, -0.0], "text", {"b64": "aGVsbG8="}]}).encode(),
        json.dumps({"signature_name": "two", "instances": [{"a": [1, 2], "b": 3}]}).encode(),
        b'{"inputs": {"x": [NaN, Infinity, 1e10]}}',
        b'{"instances": [1.0, 2.0]}',
    ]

    def body_of(text: str, rng: random.Random) -> bytes:
        return rng.choice((f'{{"instances": {text}}}', f'{{"inputs": {text}}}', text)).encode()

    def wrong_rank(rng: random.Random) -> bytes:
        value = rng.choice(
            ([[[1.0]] * 8] * 8, [[[1.0] * 8] * 8], 1.0, [], [[[[1.0] * 2] * 8] * 8], [[]], [[[[[1.0]]]]])
        )
        return http("/v1/models/images:predict", json.dumps({rng.choice(("inputs", "instances")): value}).encode())

    def number(rng: random.Random) -> bytes:
        text, tail = rng.choice(NUMBERS), rng.choice(("", ", NaN"))
        kinds = f'{{"signature_name": "kinds", "inputs": {{"bool": [true], "uint8": [{text}{tail}]}}}}'
        return rng.choice((kinds, f'{{"inputs": [{text}{tail}]}}')).encode()

    def types(rng: random.Random) -> bytes:
        wrong = rng.choice((True, None, "1", {"a": 1}, {"b64": "aGk="}, [1, [2]]))
        return json.dumps({rng.choice(("instances", "inputs")): [wrong]}).encode()

    def base64(rng: random.Random) -> bytes:
        return json.dumps({"signature_name": "text", "instances": [{"b64": bad_base64(rng)}]}).encode()

    def encoded(rng: random.Random) -> bytes:
        whole = gzip.compress(seeds[3])
        body, encoding = rng.choice(
            ((seeds[3], "gzip"), (whole[:-9], "gzip"), (whole, "br"), (rng.randbytes(40), "gzip"))
        )
        return http(path, body, f"content-encoding: {encoding}")

    def paths(rng: random.Random) -> bytes:
        wrong = rng.choice(
            (
                "/",
                "/v1",
                "//v1/models/x",
                "/%00",
                "/v1/models/none:predict",
                "/v1/models/half_plus_two/versions/99:predict",
            )
        )
        return http(wrong, seeds[3])

    only_400 = frozenset({"400"})
    return [
        Kind("damaged at random", 60, lambda rng: damaged(rng, rng.choice(seeds)), frozenset({"200", "400"})),
        Kind("cut short", 10, lambda rng: (b := rng.choice(seeds))[: rng.randrange(len(b) - 1)], only_400),
        Kind("wrong rank", 8, wrong_rank, only_400, whole=True),
        Kind("numbers of no dtype", 8, number, only_400),
        Kind("wrong types", 4, types, only_400),
        Kind("bad base64", 4, base64, only_400),
        Kind("nested 65 to 100,000 deep", 2, lambda rng: body_of(nested(rng), rng), only_400),
        Kind("no UTF-8", 2, lambda rng: b'{"instances": ["\xff' + rng.randbytes(5) + b'"]}', only_400),
        Kind("not what its encoding says", 1, encoded, frozenset({"400", "415"}), whole=True),
        Kind("no such path, model or version", 1, paths, frozenset({"400", "404"}), whole=True),
        Kind(
            "no HTTP",
            1,
            lambda rng: no_http(rng, path),
            frozenset({"400", "413", "431", "broken"}),
            whole=True,
            ends=True,
        ),
    ]


def open_kinds() -> list[Kind]:
    x = {"name": "x", "shape": [2], "datatype": "FP32", "data": [1.0, 2.0]}
    seed = json.dumps({"id": "a", "inputs": [x], "outputs": [{"name": "y"}]}).encode()

    def document(rng: random.Random) -> bytes:
        wrong = rng.choice(
            (
                {"shape": 2},
                {"shape": [-1]},
                {"shape": [True]},
                {"shape": [3]},
                {"shape": [2**62]},
                {"datatype": "FP64"},
                {"datatype": None},
                {"name": "z"},
                {"data": None},
                {"data": [1, "2"]},
                {"data": [1, True]},
                {"data": [1e39, 1]},
                {"parameters": {"binary_data_size": 8}},
            )
        )
        return json.dumps({"inputs": [{**x, **wrong}]}).encode()

    def wrong_rank(rng: random.Random) -> bytes:
        shape = rng.choice(([8, 8, 1], [1, 8, 8], [1, 8, 8, 2], [], [1, 8, 8, 1, 1]))
        entry = {"name": "images", "shape": shape, "datatype": "FP32", "data": [1.0] * int(np.prod(shape))}
        return http("/v2/models/images/infer", json.dumps({"inputs": [entry]}).encode())

    def number(rng: random.Random) -> bytes:
        entry = json.dumps({**x, "data": ["?", 1.0]})
        return f'{{"inputs": [{entry}]}}'.replace('"?"', rng.choice(NUMBERS)).encode()

    def deep(rng: random.Random) -> bytes:
        entry = json.dumps({**x, "data": "?"})
        return f'{{"inputs": [{entry}]}}'.replace('"?"', nested(rng)).encode()

    def binary(rng: random.Random) -> bytes:
        size, blob, length = rng.choice(
            ((8, 7, None), (8, 9, None), (7, 7, None), (-8, 8, None), (8, 8, 5), (8, 8, 10**6))
        )
        entry = {"name": "x", "shape": [2], "datatype": "FP32", "parameters": {"binary_data_size": size}}
        head = json.dumps({"inputs": [entry]}).encode()
        said = f"inference-header-content-length: {len(head) if length is None else length}"
        return http("/v2/models/half_plus_two/infer", head + rng.randbytes(blob), said)

    only_400 = frozenset({"400"})
    return [
        Kind("damaged at random", 60, lambda rng: damaged(rng, seed), frozenset({"200", "400"})),
        Kind("cut short", 10, lambda rng: seed[: rng.randrange(len(seed) - 1)], only_400),
        Kind("wrong names, shapes, types", 10, document, only_400),
        Kind("wrong rank", 8, wrong_rank, only_400, whole=True),
        Kind("numbers of no dtype", 6, number, only_400),
        Kind("bytes that do not fit", 4, binary, only_400, whole=True),
        Kind("nested 65 to 100,000 deep", 2, deep, only_400),
    ]


REFUSED = frozenset({"INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "RESOURCE_EXHAUSTED"})


def grpc_kinds() -> list[Kind]:
    def request(model: str, name: str, array: np.ndarray) -> bytes:
        message = message_class("PredictRequest")()
        message.model_spec.name = model
        fill(message.inputs.add(key=name).value, array)
        return bytes(message.SerializeToString())

    seed = request("half_plus_two", "x", np.ones(2, np.float32))
    parse = message_class("PredictRequest").FromString

    def wrong_rank(rng: random.Random) -> bytes:
        shape = rng.choice(((8, 8, 1), (1, 8, 8), (1, 8, 8, 2), (), (1, 8, 8, 1, 1)))
        return request("images", "images", np.ones(shape, np.float32))

    def huge(rng: random.Random) -> bytes:
        message = parse(seed)
        for size in rng.choice(((2**40,), (2**62,), (2**63 - 1,) * 60, (-5,))):
            message.inputs[0].value.tensor_shape.dim.add(size=size)
        return bytes(message.SerializeToString())

    def no_message(rng: random.Random) -> bytes:
        return b"\xff" + rng.randbytes(rng.randint(0, 60))

    def groups(rng: random.Random) -> bytes:
        return b"\x5b" * rng.choice(DEPTHS)  # a group in a group, and so on, of a field that is none of the message's

    def broken(rng: random.Random) -> bytes:
        return seed[: rng.randrange(1, len(seed) - 1)]

    any_code = REFUSED | {"OK", "INTERNAL"}
    return [
        Kind("damaged at random", 70, lambda rng: bytes_changed(rng, seed), any_code),
        Kind("cut short", 10, broken, REFUSED | {"INTERNAL"}),
        Kind("wrong rank", 8, wrong_rank, frozenset({"INVALID_ARGUMENT"})),
        Kind("shapes of up to 2^62", 6, huge, frozenset({"INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"})),
        Kind("no message", 4, no_message, frozenset({"INTERNAL"})),
        Kind("nested 65 to 100,000 deep", 2, groups, frozenset({"INTERNAL"})),
    ]


class HttpClient:
    """Bodies on connections that are kept open; whole requests on one of their own."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.free: list[Connection] = []

    async def status(self, kind: Kind, content: bytes) -> str:
        if kind.whole:
            return await self.alone(content, end=kind.ends)
        connection = take_open(self.free) or await self.connect()
        answered: asyncio.Future[int | None] = asyncio.get_running_loop().create_future()
        connection.send(self.target.request(content), answered.set_result)
        try:
            code = await asyncio.wait_for(answered, WAIT_S)
        except TimeoutError:
            connection.close()
            return "no answer"
        if connection.is_open:
            self.free.append(connection)
        return "broken" if code is None else str(code)

    async def connect(self) -> Connection:
        _, connection = await asyncio.get_running_loop().create_connection(
            lambda: Connection(lambda _: None), self.target.address, self.target.port
        )
        return connection

    async def alone(self, content: bytes, *, end: bool) -> str:
        """The status for all bytes of a connection; `end` closes this side behind them."""
        reader, writer = await asyncio.open_connection(self.target.address, self.target.port)
        try:
            writer.write(content)
            if end:
                writer.write_eof()
            answer = await asyncio.wait_for(reader.read(4096), WAIT_S)
        except TimeoutError:
            return "no answer"
        except ConnectionError:
            return "broken"
        finally:
            writer.close()
        return answer[9:12].decode("latin-1") if answer.startswith(b"HTTP/1.1 ") else "broken"


class GrpcClient:
    """Calls on one channel."""

    def __init__(self, address: str) -> None:
        self.channel = grpc.aio.insecure_channel(address)
        self.call = self.channel.unary_unary("/tensorflow.serving.PredictionService/Predict")
        self.parse = message_class("PredictRequest").FromString

    async def status(self, kind: Kind, content: bytes) -> str:
        try:
            await self.call(content, timeout=WAIT_S)
            code = "OK"
        except grpc.aio.AioRpcError as error:
            code = str(error.code().name)
            if code == "DEADLINE_EXCEEDED":
                return SENT_LATE if (error.details() or "").startswith("A request is sent within") else "no answer"
        try:
            self.parse(content)
        except DecodeError:
            return code if code == "INTERNAL" else f"{code} for what is no message"
        return f"{code} for a message" if code == "INTERNAL" else code


async def all_of(kinds: list[Kind], client: HttpClient | GrpcClient, count: int, server: Served, seed: int) -> bool:
    """Sends them; prints what came of each kind."""
    rng = random.Random(seed)
    weights = [kind.weight for kind in kinds]
    came: dict[str, Counter[str]] = {kind.name: Counter() for kind in kinds}
    wrong: list[str] = []
    memory: list[float] = []
    left = iter(range(count))
    began_s = time.monotonic()

    async def some() -> None:
        for number in left:
            (kind,) = rng.choices(kinds, weights)
            content = kind.make(rng)
            status = await client.status(kind, content)
            came[kind.name][status] += 1
            if status not in kind.right and status != SENT_LATE and len(wrong) < 20:
                wrong.append(f"{kind.name}: {status} for {content[:200]!r}")
            if number % max(1, count // 50) == 0:
                memory.append(mib(server.mother))
            if number and number % max(1, count // 5) == 0:
                print(f"  {number} of {count}", file=sys.stderr, flush=True)

    await asyncio.gather(*(some() for _ in range(AT_A_TIME)))
    for name, counts in came.items():
        print(f"  {name}: " + ", ".join(f"{n} {status}" for status, n in sorted(counts.items())))
    quarter = len(memory) // 4
    first, last = np.median(memory[quarter : 2 * quarter]), np.median(memory[-quarter:])
    print(
        f"  {count} in {time.monotonic() - began_s:.0f} s; memory {first:.1f} MiB in the second quarter, "
        f"{last:.1f} in the last"
    )
    for line in wrong:
        print(f"  WRONG {line}")
    return not wrong and last - first < MOST_GROWTH_MIB


async def slow(client: HttpClient, count: int) -> bool:
    """Connections that send half a request and wait, all at once, while others are answered."""
    path, body = client.target.path, b'{"instances": [1.0]}'
    halves = (b"POST /v1/mod", http(path, b"{", length=20), http(path, body)[:-1])
    came = Counter(await asyncio.gather(*(client.alone(halves[i % 3], end=False) for i in range(count))))
    print(f"  sent too slowly, {count} connections at once: " + ", ".join(f"{n} {s}" for s, n in sorted(came.items())))
    gone = Counter(await asyncio.gather(*(client.alone(halves[i % 3], end=True) for i in range(count))))
    print(
        f"  gone in the middle, {count} connections at once: " + ", ".join(f"{n} {s}" for s, n in sorted(gone.items()))
    )
    return set(came) <= {"408"} and set(gone) <= {"400", "408", "broken"}


def goes_on(server: Served) -> bool:
    target = read_url(f"{server.url}/v1/models/half_plus_two:predict", remote=False)

    async def status() -> str:
        return await HttpClient(target).alone(http(target.path, b'{"instances": [1.0]}'), end=False)

    return asyncio.run(status()) == "200"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--slow", type=int, default=300, help="connections at once that are too slow")
    parser.add_argument("--interfaces", default="rest,open,grpc")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    held = True
    with tempfile.TemporaryDirectory() as logs:
        options = ("--threads", 1, "--client-timeout-s", CLIENT_TIMEOUT_S, "--most-mib", 1, "--grpc-port", 0)
        with Served(Path(logs, "server.log"), given.folder, *options) as server:
            rest = read_url(f"{server.url}/v1/models/half_plus_two:predict", remote=False)
            workers = sorted(process.pid for process in server.workers())

            async def one(name: str) -> bool:
                if name == "rest":
                    client = HttpClient(rest)
                    return await all_of(rest_kinds(), client, given.count, server, given.seed) & await slow(
                        client, given.slow
                    )
                if name == "open":
                    there = HttpClient(rest._replace(path="/v2/models/half_plus_two/infer"))
                    return await all_of(open_kinds(), there, given.count, server, given.seed)
                address = server.started["grpc_address"]
                return await all_of(grpc_kinds(), GrpcClient(address), given.count, server, given.seed)

            names: Iterable[str] = given.interfaces.split(",")
            for name in names:
                print(f"{name}:", flush=True)
                held &= uvloop.run(one(name))
            same = sorted(process.pid for process in server.workers()) == workers
            alive = goes_on(server)
            traceback = "Traceback" in server.said()
            print(f"the same processes run the models: {same}; requests are answered: {alive}; tracebacks: {traceback}")
            print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
            held &= same and alive and not traceback
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
