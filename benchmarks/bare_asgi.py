"""A bare program that serves one SavedModel: uvicorn, orjson, batches of what waits; no checks, no limits, no restarts.

`benchmarks/serving.py` holds `kcost serve` against it. `python benchmarks/bare_asgi.py FOLDER PORT`, FOLDER with
saved_model.pb.
"""

from __future__ import annotations

import asyncio
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import orjson
import uvicorn

from kcost.runtimes.saved_model import SavedModelSession

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
MODEL = SavedModelSession(sys.argv[1], threads=1, caller_thread=True)
NAME = next(iter(MODEL.signature.inputs))
WORKER = ThreadPoolExecutor(1)
waiting: list[tuple[np.ndarray, asyncio.Future[np.ndarray]]] = []
running = False


def run(x: np.ndarray) -> np.ndarray:
    return next(iter(MODEL.run({NAME: x}).values()))


async def drain() -> None:
    global running
    running = True
    while waiting:
        batch = waiting[:64]
        del waiting[:64]
        inputs = np.concatenate([x for x, _ in batch])
        outputs = await asyncio.get_running_loop().run_in_executor(WORKER, run, inputs)
        at = 0
        for x, future in batch:
            future.set_result(outputs[at : at + len(x)])
            at += len(x)
    running = False


async def app(scope: Any, receive: Any, send: Any) -> None:
    body = (await receive())["body"]
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    waiting.append((np.array(orjson.loads(body)["instances"], np.float32), future))
    if not running:
        loop.create_task(drain())  # noqa: RUF006 -- it ends with what waits
    text = orjson.dumps({"predictions": await future}, option=orjson.OPT_SERIALIZE_NUMPY)
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": text})


if __name__ == "__main__":
    config = {"port": int(sys.argv[2]), "lifespan": "off", "log_level": "critical", "access_log": False}
    uvicorn.run(app, loop="uvloop", http="httptools", ws="none", **config)
