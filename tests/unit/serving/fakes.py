"""A runner that a test holds in its hands, in the place of a process with a model."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import numpy as np

from kcost.core.errors import ArtifactError, WorkerError
from kcost.core.serving import ServedModel, ServedSignature, ServedTensor
from kcost.serving.model_process import Done, Outputs, TrialError
from kcost.serving.model_version import Limits
from kcost.serving.models import Models
from kcost.serving.status import RequestError


def tensor(name: str, shape: tuple[int | None, ...] | None, dtype: str = "float32") -> ServedTensor:
    return ServedTensor(name=name, dtype=dtype, shape=shape, graph_name=f"{name}:0")


def signature(
    name: str, inputs: tuple[ServedTensor, ...], outputs: tuple[ServedTensor, ...], method: str = "predict"
) -> ServedSignature:
    return ServedSignature(name=name, method=f"tensorflow/serving/{method}", inputs=inputs, outputs=outputs)


MODEL = ServedModel(
    signatures=(
        signature("serving_default", (tensor("x", (None, None)),), (tensor("y", (None, None)),)),
        signature("whole", (tensor("x", (None,)),), (tensor("y", ()),)),
        signature("pads", (tensor("x", (None, None)),), (tensor("y", (None, None)),)).model_copy(
            update={"pads": True, "step_places": 20}
        ),
    ),
    library_version="0",
)
"""The first doubles its input, of any length; the second gives a sum that no batch can be taken apart from; the third
is the first, where lengths may be padded and a step costs as much as 20 places."""


class FakeRunner:
    """Keeps what it is given until the test answers; `by_itself` answers at once."""

    def __init__(self, folder: Path, on_end: Callable[[], None], *, by_itself: bool = True) -> None:
        self.folder = folder
        self.on_end = on_end
        self.by_itself = by_itself
        self.runs: list[list[np.ndarray]] = []
        self.given: list[tuple[int, list[np.ndarray], Done]] = []
        self.closed = False

    async def start(self, trial_s: float, on_loaded: Callable[[], None]) -> ServedModel:
        await asyncio.sleep(0)
        kills = sorted(self.folder.glob("kill-*"))  # a file for each process that is killed before it has loaded
        if kills:
            kills[0].unlink()
            raise WorkerError("A worker stays alive.", received="it was killed", cause="killed", signal_number=9)
        full = sorted(self.folder.glob("full-*"))  # a file for each process that the system has no room for
        if full:
            full[0].unlink()
            raise WorkerError("A model is run by a process.", received="none could be started", cause="not_started")
        if (self.folder / "saved_model.pb").read_bytes() == b"damaged":
            raise ArtifactError("A SavedModel is whole.", received=str(self.folder))
        if trial_s:
            on_loaded()
            if (self.folder / "aborts").exists():  # as a signature that ends its process on zeros
                raise TrialError("the process was killed by SIGABRT")
            if (self.folder / "hangs").exists():  # as one that never returns
                await asyncio.sleep(trial_s)
                raise TrialError(f"they did not end within {trial_s:g} s")
        return MODEL

    def run(self, place: int, arrays: list[np.ndarray], done: Done) -> None:
        self.runs.append(arrays)
        self.given.append((place, arrays, done))
        if self.by_itself:
            asyncio.get_running_loop().call_soon(self.answer)

    def answer(self, error: RequestError | None = None) -> None:
        """Answers the oldest that was given and is not answered."""
        if not self.given or self.closed:
            return
        place, arrays, done = self.given.pop(0)
        outputs = [arrays[0].sum()[()].reshape(())] if place == 1 else [arrays[0] * 2]
        done(error or Outputs(outputs, 1000))

    def end(self) -> None:
        """As a process that is killed."""
        self.given.clear()
        self.closed = True
        self.on_end()

    def close(self) -> None:
        self.closed = True


def write_versions(base: Path, *versions: int, content: bytes = b"a model") -> Path:
    """Model base path with such versions."""
    for version in versions:
        (base / str(version)).mkdir(parents=True)
        (base / str(version) / "saved_model.pb").write_bytes(content)
    return base


async def ask(application: Any, method: str, path: str, *pieces: bytes, **headers: str) -> tuple[int, bytes]:
    """Asks an ASGI application, the body in pieces."""
    sent: list[dict[str, Any]] = []
    messages = [{"type": "http.request", "body": piece, "more_body": True} for piece in pieces]
    messages.append({"type": "http.request", "body": b"", "more_body": False})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": method, "raw_path": path.encode(), "headers": named}
    await application(scope, receive, send)
    return sent[0]["status"], sent[1]["body"]


def with_models(folder: Path, steps: Callable[[Models], Awaitable[None]], **limits: float) -> list[str]:
    """Runs steps with the models of a folder; what they logged."""
    messages: list[str] = []

    async def run() -> None:
        models = Models(folder, Limits.model_validate(limits), folder / "log", messages.append, new_runner=FakeRunner)
        await models.load_first()
        await steps(models)
        await models.close()

    asyncio.run(run())
    return messages
