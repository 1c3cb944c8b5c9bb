"""Which versions are loaded and unloaded as the files change, and what the application answers meanwhile."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import kcost.serving.models as models_module
from kcost.core.errors import ArtifactError, InputError
from kcost.serving.application import Application
from kcost.serving.bodies import Bodies
from kcost.serving.http_server import HttpSettings
from kcost.serving.model_info import status_document
from kcost.serving.model_version import Limits, ModelVersion
from kcost.serving.models import Models
from kcost.serving.server import Server, Serving
from kcost.serving.status import RequestError
from tests.unit.serving.fakes import FakeRunner, ask, with_models, write_versions


async def look(models: Models) -> None:
    """A look at the files, and the work that follows from it."""
    for _ in range(2):
        models.poll()
        await asyncio.sleep(0.02)


def states(models: Models, name: str = "m") -> dict[int, str]:
    return {v.version: v.state for v in models.statuses(name)}


def test_the_latest_version_takes_the_place_of_the_one_before(tmp_path: Path) -> None:
    async def steps(models: Models) -> None:
        assert states(models) == {3: "AVAILABLE"}
        write_versions(tmp_path / "m", 20)
        await look(models)
        assert states(models) == {20: "AVAILABLE", 3: "END"}
        shutil.rmtree(tmp_path / "m" / "20")
        await look(models)
        assert states(models) == {20: "END", 3: "AVAILABLE"}
        shutil.rmtree(tmp_path / "m" / "3")
        shutil.rmtree(tmp_path / "m" / "1")
        await look(models)
        assert states(models)[3] == "AVAILABLE"  # what is gone from the disk is served until something takes its place

    write_versions(tmp_path / "m", 1, 3)
    with_models(tmp_path, steps)


def test_a_damaged_version_is_tried_once_and_again_when_it_changed(tmp_path: Path) -> None:
    async def steps(models: Models) -> None:
        write_versions(tmp_path / "m", 2, content=b"damaged")
        await look(models)
        await look(models)
        assert states(models) == {2: "END", 1: "AVAILABLE"}
        (tmp_path / "m" / "2" / "saved_model.pb").write_bytes(b"mended")
        await look(models)
        assert states(models) == {2: "AVAILABLE", 1: "END"}

    write_versions(tmp_path / "m", 1)
    messages = with_models(tmp_path, steps)
    assert sum("version 2 was not loaded" in text for text in messages) == 1


@pytest.mark.parametrize(("kills", "state"), [(1, "AVAILABLE"), (2, "END")])
def test_a_process_that_is_killed_while_it_loads_is_started_once_more(tmp_path: Path, kills: int, state: str) -> None:
    """The files are not to blame: a version that was given up would not be tried again before they change."""

    async def steps(models: Models) -> None:
        write_versions(tmp_path / "m", 2)
        for number in range(kills):
            (tmp_path / "m" / "2" / f"kill-{number}").touch()
        await look(models)
        assert states(models)[2] == state

    write_versions(tmp_path / "m", 1)
    messages = with_models(tmp_path, steps)
    assert sum("was killed while it loaded" in text for text in messages) == 1


@pytest.mark.parametrize(
    ("fault", "words"), [("aborts", "killed by SIGABRT"), ("hangs", "they did not end within 0.05 s")]
)
def test_a_version_whose_trial_fails_is_served_without_one(tmp_path: Path, fault: str, words: str) -> None:
    """Nobody asked for these calls: TensorFlow Serving makes none, and serves what it can load."""

    async def steps(models: Models) -> None:
        write_versions(tmp_path / "m", 2)
        (tmp_path / "m" / "2" / fault).touch()
        models.poll()
        await asyncio.sleep(0.02)
        if fault == "hangs":
            assert states(models) == {2: "LOADING", 1: "AVAILABLE"}  # the one before answers meanwhile
            assert models.find("m").version == 1
            await asyncio.sleep(0.1)
        await look(models)
        assert states(models) == {2: "AVAILABLE", 1: "END"}
        (status,) = status_document(models.statuses("m", 2))["model_version_status"]
        assert status["status"]["error_code"] == "OK"
        assert status["status"]["error_message"].startswith("Served without a trial: ")
        assert words in status["status"]["error_message"]
        answer = await ask(Application(models, None, Bodies(100)), "POST", "/v1/models/m:predict", b'{"inputs":[[1]]}')
        assert answer == (200, b'{"outputs":[[2.0]]}')

    write_versions(tmp_path / "m", 1)
    messages = with_models(tmp_path, steps, trial_s=0.05)
    notices = [text for text in messages if "without a trial" in text]
    assert len(notices) == 1
    assert notices[0].startswith("m version 2 is served without a trial")
    assert words in notices[0]


def test_a_trial_that_takes_long_holds_up_no_other_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "PATIENCE_S", 0.05)

    async def steps(models: Models) -> None:
        assert states(models, "good") == {1: "AVAILABLE"}
        assert states(models, "hung") == {1: "LOADING"}
        assert not models.ready()

    for name in ("good", "hung"):
        write_versions(tmp_path / name, 1)
    (tmp_path / "hung" / "1" / "hangs").touch()
    began_s = time.monotonic()
    with_models(tmp_path, steps, trial_s=60)
    assert time.monotonic() - began_s < 30


def test_a_server_of_one_model_waits_for_its_trial(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models_module, "PATIENCE_S", 0.05)

    async def steps(models: Models) -> None:
        assert states(models) == {1: "AVAILABLE"}

    write_versions(tmp_path / "m", 1)
    (tmp_path / "m" / "1" / "hangs").touch()
    with_models(tmp_path, steps, trial_s=0.3)


def test_a_server_ends_while_it_loads(tmp_path: Path) -> None:
    write_versions(tmp_path / "m", 1)
    (tmp_path / "m" / "1" / "hangs").touch()
    started: list[Serving] = []

    async def run() -> None:
        server = Server(tmp_path, HttpSettings(port=0), Limits(trial_s=60), 1.0, lambda _: None, FakeRunner)
        asyncio.get_running_loop().call_later(0.1, os.kill, os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(server.serve(started.append), 20)

    asyncio.run(run())
    assert started == []


def test_no_trial_is_made_where_none_is_asked_for(tmp_path: Path) -> None:
    async def steps(models: Models) -> None:
        (status,) = status_document(models.statuses("m"))["model_version_status"]
        assert (status["state"], status["status"]["error_message"]) == ("AVAILABLE", "")

    write_versions(tmp_path / "m", 1)
    (tmp_path / "m" / "1" / "aborts").touch()
    assert with_models(tmp_path, steps, trial_s=0)[0] == "m version 1 is available"


def test_it_is_told_how_rows_of_several_lengths_run_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def steps(models: Models) -> None:
        pass

    write_versions(tmp_path / "m", 1)
    monkeypatch.setattr(ModelVersion, "rows_together", "rows of several lengths are padded")
    assert with_models(tmp_path, steps)[0] == "m version 1 is available; rows of several lengths are padded"


def test_a_folder_that_goes_while_it_is_looked_at_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What keeps up with the files keeps up with deadlines, too, and nobody starts it again."""
    real = models_module.version_folder

    def gone(base: Path, version: int) -> Path:
        if version == 2:
            raise FileNotFoundError(f"{base / '2'} went away")
        return real(base, version)

    monkeypatch.setattr(models_module, "version_folder", gone)

    async def steps(models: Models) -> None:
        keeping_up = asyncio.create_task(models.keep_up(0.05))
        write_versions(tmp_path / "m", 2)
        await asyncio.sleep(0.3)
        assert states(models) == {1: "AVAILABLE"}
        write_versions(tmp_path / "m", 3)
        async with asyncio.timeout(20):
            while states(models) != {3: "AVAILABLE", 1: "END"}:
                await asyncio.sleep(0.02)
        keeping_up.cancel()

    write_versions(tmp_path / "m", 1)
    messages = with_models(tmp_path, steps)
    assert sum("went away" in text for text in messages) == 1


def test_a_version_that_the_system_had_no_room_for_is_tried_again(tmp_path: Path) -> None:
    """That says nothing of its files: given up, it would not be tried again before they change."""

    async def steps(models: Models) -> None:
        write_versions(tmp_path / "m", 2)
        for number in range(3):
            (tmp_path / "m" / "2" / f"full-{number}").touch()
        models.poll()
        await asyncio.sleep(0.02)
        assert states(models) == {2: "END", 1: "AVAILABLE"}
        for _ in range(2):
            await look(models)
        assert states(models) == {2: "AVAILABLE", 1: "END"}

    write_versions(tmp_path / "m", 1)
    messages = with_models(tmp_path, steps)
    assert sum("none could be started" in text for text in messages) == 1


def test_a_model_that_cannot_be_looked_at_does_not_stop_the_watch_over_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = models_module.versions_in

    def unreadable(base: Path, *arguments: Any) -> tuple[int, ...]:
        if base.name == "a":
            raise PermissionError(f"Permission denied: {base}")
        return real(base, *arguments)

    async def steps(models: Models) -> None:
        monkeypatch.setattr(models_module, "versions_in", unreadable)
        write_versions(tmp_path / "b", 2)
        await look(models)
        await look(models)
        assert states(models, "b") == {2: "AVAILABLE", 1: "END"}
        assert states(models, "a") == {1: "AVAILABLE"}
        config = (tmp_path / "models.config").read_text()
        (tmp_path / "models.config").write_text(config.replace('config { name: "c" base_path: "c" }', ""))
        await look(models)
        assert states(models, "c") == {1: "END"}

    for name in "abc":
        write_versions(tmp_path / name, 1)
    entries = " ".join(f'config {{ name: "{name}" base_path: "{name}" }}' for name in "abc")
    (tmp_path / "models.config").write_text(f"model_config_list {{ {entries} }}")
    messages = with_models(tmp_path, steps)
    assert [text for text in messages if "Permission denied" in text] == [
        f"what is served of a stays as it is. Permission denied: {tmp_path / 'a'}"
    ]


def test_models_come_and_go_with_models_config(tmp_path: Path) -> None:
    def config(*names: str) -> None:
        label = 'version_labels { key: "l" value: 1 }'
        entries = "".join(f'config {{ name: "{name}" base_path: "m" {label} }}' for name in names)
        (tmp_path / "models.config").write_text(f"model_config_list {{ {entries} }}")

    async def steps(models: Models) -> None:
        assert models.find("a", label="l").version == 1
        config("b")
        await look(models)
        assert states(models, "b") == {1: "AVAILABLE"}
        with pytest.raises(RequestError, match=r"Latest\(a\)"):
            models.find("a")
        (tmp_path / "models.config").write_text("model_config_list {")
        await look(models)
        assert models.find("b").state == "AVAILABLE"

    write_versions(tmp_path / "m", 1)
    config("a")
    messages = with_models(tmp_path, steps)
    assert sum("stays as it is" in text for text in messages) == 1


def test_what_serves_nothing_is_refused(tmp_path: Path) -> None:
    async def nothing(_: Models) -> None: ...

    with pytest.raises(InputError, match="is not there"):
        with_models(tmp_path / "none", nothing)
    with pytest.raises(InputError, match="holds none"):
        with_models(tmp_path, nothing)
    write_versions(tmp_path / "m", 1, content=b"damaged")
    with pytest.raises(ArtifactError, match="whole"):
        with_models(tmp_path, nothing)
    (tmp_path / "models.config").write_text('model_config_list { config { name: "x" base_path: "empty" } }')
    with pytest.raises(InputError, match="x in "):
        with_models(tmp_path, nothing)


def test_a_log_that_raises_ends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a full disk: what is told in the middle of a start, a restart or a look must not be the end of it."""
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
    folder = tmp_path / "served"
    write_versions(folder / "m", 1)
    (folder / "m" / "1" / "aborts").touch()  # its trial fails, which is told while it loads
    lines = list[str]()

    def full(text: str) -> None:
        lines.append(text)
        raise OSError(28, "No space left on device")

    async def run() -> None:
        server = Server(folder, HttpSettings(port=0), Limits(trial_s=60), 0.05, full, FakeRunner)
        started = asyncio.Event()
        serving = asyncio.create_task(server.serve(lambda _: started.set()))
        async with asyncio.timeout(20):
            await started.wait()
            models = server._models
            lane = models.find("m")._lanes[0]
            runner = lane.runner
            assert isinstance(runner, FakeRunner)
            runner.end()
            while lane.runner is None:
                await asyncio.sleep(0.01)
            (folder / "models.config").write_text("model_config_list {")  # cannot be read, which a look tells
            while not any("stays as it is" in text for text in lines):
                await asyncio.sleep(0.01)
            (folder / "models.config").unlink()
            write_versions(folder / "m", 2)
            while states(models) != {2: "AVAILABLE", 1: "END"}:
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), signal.SIGTERM)
            await serving

    asyncio.run(run())
    assert lines[0].startswith("m version 1 is served without a trial")
    assert lines[1:3] == ["m version 1 is available", "a process of m version 1 ended; it is started again"]
    (traceback,) = (tmp_path / "logs").iterdir()  # once, not for each line
    assert "No space left on device" in traceback.read_text()


def test_a_version_that_loads_at_the_end_is_not_served(tmp_path: Path) -> None:
    async def steps(models: Models) -> None:
        first = models.find("m")
        runner = first._lanes[0].runner
        assert isinstance(runner, FakeRunner)
        runner.by_itself = False
        waiting = first.run(first.signature(""), [np.ones((1, 1), np.float32)])
        write_versions(tmp_path / "m", 2)
        (tmp_path / "m" / "2" / "hangs").touch()  # for the time of a trial; then it would be served without one
        models.poll()
        await asyncio.sleep(0.02)
        assert states(models) == {2: "LOADING", 1: "AVAILABLE"}
        closing = asyncio.create_task(models.close())
        await asyncio.sleep(0.4)  # an end takes as long as what was accepted
        runner.answer()
        await closing
        assert (await waiting).arrays[0].tolist() == [[2.0]]
        assert states(models) == {2: "END", 1: "END"}
        assert [lane.runner for version in models.all_versions() for lane in version._lanes] == [None, None]

    write_versions(tmp_path / "m", 1)
    messages = with_models(tmp_path, steps, trial_s=0.2)
    assert messages == ["m version 1 is available"]
