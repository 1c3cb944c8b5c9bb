"""No input ends in a traceback: an error that nobody foresaw is a sentence with the place of a log."""

import importlib
from pathlib import Path

import pytest

from kcost.core import unforeseen
from kcost.core.errors import WorkerError
from kcost.core.jobs import DEVICES
from kcost.core.process import run_job
from kcost.core.request import DevicesRequest


def raised() -> Exception:
    try:
        raise ZeroDivisionError("what was not foreseen\nand more of it")
    except ZeroDivisionError as error:
        return error


def test_the_traceback_goes_to_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
    sentence = unforeseen.logged(raised())
    (path,) = (tmp_path / "logs").iterdir()
    assert sentence == f"The traceback is in {path}."
    assert "ZeroDivisionError: what was not foreseen" in path.read_text()
    assert "in raised" in path.read_text()


def test_it_goes_to_the_users_state_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KCOST_LOG_DIR", raising=False)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    assert str(tmp_path / "kcost") in unforeseen.logged(raised())


def test_a_folder_that_cannot_be_made_leaves_the_temporary_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "file"))
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "temporary"))
    assert str(tmp_path / "temporary") in unforeseen.logged(raised())
    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path / "file"))
    assert "KCOST_LOG_DIR" in unforeseen.logged(raised())


def test_the_place_is_a_line() -> None:
    place = unforeseen.place_of(raised())
    assert place.startswith("ZeroDivisionError: what was not foreseen (test_unforeseen.py:")
    assert "\n" not in place


def test_the_command_line_tells_it_and_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cli = importlib.import_module("kcost.cli")

    def fail(**options: object) -> None:
        raise raised()

    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path))
    monkeypatch.setattr(cli, "app", fail)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    (path,) = tmp_path.iterdir()
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: kcost did not foresee this: ZeroDivisionError: what was not foreseen")
    assert stderr.endswith(f"The traceback is in {path}.\n")
    assert stderr.count("\n") == 1


@pytest.mark.parametrize("own_log", [False, True])
def test_a_worker_tells_it_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], own_log: bool
) -> None:
    monkeypatch.setenv("KCOST_LOG_DIR", str(tmp_path / "logs"))
    log = tmp_path / "worker.log" if own_log else None
    with pytest.raises(WorkerError) as ended:
        run_job(DEVICES, "fake", DevicesRequest(), log=log)  # which has no devices
    path = log or next((tmp_path / "logs").iterdir())
    assert str(ended.value).endswith(f"The traceback is in {path}.")
    assert "ModuleNotFoundError: No module named 'kcost.backends.numpy'" in str(ended.value)
    assert "Traceback" in path.read_text()
    assert "Traceback" not in capfd.readouterr().err
