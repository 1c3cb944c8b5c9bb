"""Events: a line in a file, and a POST to each webhook by a thread that nothing waits for."""

from __future__ import annotations

import os
import queue
import threading
import urllib.request
from typing import Any, BinaryIO

import orjson

from kcost.core.errors import storage
from kcost.serving.monitor.settings import EventSettings

TRIES = 3
TIMEOUT_S = 5.0
MOST_WAITING = 100


class Events:
    """Tells of events.

    Args:
        settings: the file and the webhooks.

    Raises:
        StorageError: the file cannot be written to.
    """

    def __init__(self, settings: EventSettings) -> None:
        self.count = 0
        self.webhook_failures = 0
        """POSTs that no try of three brought to an answer of 2xx."""
        self._webhooks = settings.webhooks
        self._file: BinaryIO | None = None
        if settings.file is not None:
            with storage(settings.file):
                settings.file.parent.mkdir(parents=True, exist_ok=True)
                self._file = settings.file.open("ab")
        self._queue: queue.Queue[bytes] = queue.Queue(MOST_WAITING)
        if self._webhooks:
            threading.Thread(target=self._post, daemon=True).start()

    def tell(self, event: dict[str, Any]) -> None:
        """Writes an event down, synced, and gives it to the webhooks."""
        body = orjson.dumps(event)
        self.count += 1
        if self._file is not None:
            self._file.write(body + b"\n")
            self._file.flush()
            os.fsync(self._file.fileno())
        if self._webhooks:
            try:
                self._queue.put_nowait(body)
            except queue.Full:
                self.webhook_failures += len(self._webhooks)

    def close(self, wait_s: float = 2.0) -> None:
        """Gives the webhooks a moment for what waits, and ends."""
        deadline = threading.Event()
        waited = 0.0
        while self._queue.unfinished_tasks and waited < wait_s:
            deadline.wait(0.05)
            waited += 0.05
        if self._file is not None:
            self._file.close()

    def _post(self) -> None:
        while True:
            body = self._queue.get()
            for url in self._webhooks:
                if not any(_posted(url, body) for _ in range(TRIES)):
                    self.webhook_failures += 1
            self._queue.task_done()


def _posted(url: str, body: bytes) -> bool:
    request = urllib.request.Request(url, data=body, method="POST", headers={"content-type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_S) as response:
            return bool(200 <= response.status < 300)
    except (OSError, ValueError):  # counted by the caller: a webhook that fails ends nothing
        return False
