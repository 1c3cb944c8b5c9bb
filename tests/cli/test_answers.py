"""What commands print, on runs of the simulated backend."""

from __future__ import annotations

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.commands import kcost, kcost_process


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "fake.keras").write_text("{}")
    (folder / "plan.toml").write_text(
        'models = ["fake.keras"]\nbackends = ["fake"]\nphases = ["inference"]\n'
        "[settings]\nrounds = 4\nround_s = 0.01\nwarmup_s = 0.0\n"
    )
    finished = kcost("bench", folder / "plan.toml", "--out", folder / "run")
    assert finished.returncode == 0, finished.stderr
    assert "[simulated]" in finished.stdout
    return folder / "run"


@pytest.mark.parametrize(
    ("command", "key"),
    [(("cost",), "conclusions"), (("report",), "rankings"), (("cost", "--p99-ms", "1000"), "notices")],
)
def test_json_is_one_document_on_standard_output(run: Path, command: tuple[str, ...], key: str) -> None:
    finished = kcost(command[0], run, *command[1:], "--json")
    assert finished.returncode == 0, finished.stderr
    assert key in json.loads(finished.stdout)


def test_the_page_is_written(run: Path, tmp_path: Path) -> None:
    finished = kcost("report", run, "--html", tmp_path / "page.html")
    assert finished.returncode == 0, finished.stderr
    assert "simulated" in (tmp_path / "page.html").read_text()


def test_a_price_can_be_chosen(run: Path) -> None:
    finished = kcost("cost", run, "--provider", "aws", "--instance", "c7i.large", "--json")
    (match,) = json.loads(finished.stdout)["prices"].values()
    assert (match["price"]["instance"], match["is_assumption"]) == ("c7i.large", False)
    assert kcost("cost", run, "--instance", "none.such").returncode == 2


@pytest.mark.parametrize("arguments", [("data", "list"), ("prices", "list"), ("doctor", "--no-devices")])
def test_lists_are_tables_or_json(arguments: tuple[str, ...]) -> None:
    table = kcost(*arguments)
    assert (table.returncode, bool(table.stdout)) == (0, True), table.stderr
    json.loads(kcost(*arguments, "--json").stdout)


def test_the_own_price_book_has_no_problems() -> None:
    finished = kcost("prices", "check", "--json")
    assert finished.returncode == 0
    assert json.loads(finished.stdout)["problems"] == []


def test_every_command_says_what_it_does() -> None:
    root = kcost("--help")
    for command in (
        "doctor",
        "data",
        "train",
        "evaluate",
        "search",
        "optimize",
        "bench",
        "compare",
        "cost",
        "prices",
        "export",
        "report",
        "open",
        "demo",
    ):
        assert re.search(rf"\n\W+{command} ", root.stdout)
        assert kcost(command, "--help").returncode == 0


def test_the_version_is_that_of_the_package() -> None:
    import kcost as package

    finished = kcost("--version")
    assert (finished.returncode, finished.stdout) == (0, f"kcost {package.__version__}\n")


def test_a_typo_is_told_what_it_may_have_meant(run: Path) -> None:
    for arguments, meant in (
        (("benhc",), "bench"),
        (("bench", "x.keras", "--out", "o", "--batchs", "1"), "--batches"),
        (("cost", run, "--instance", "c7i.larg"), "c7i.large"),
        (("data", "fetch", "fashion-mnits"), "fashion_mnist"),
        (("evaluate", run.parent / "fake.keras", "--backend", "tensorfow"), "tensorflow"),
    ):
        refused = kcost(*arguments)
        assert refused.returncode in (2, 3), refused.stdout
        assert re.search(rf"(Did you mean|Possible options:)[^?]*{meant}", refused.stderr), refused.stderr


def test_the_answer_is_on_one_screen_and_all_of_it_on_request(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    short, whole = kcost("cost", run), kcost("cost", run, "--all")
    first = short.stdout.splitlines()[0]
    assert first.startswith("fake: ")  # what it says depends on what else runs here
    assert len(short.stdout.splitlines()) <= 40
    assert "95% interval" not in short.stdout
    assert "95% interval" in whole.stdout
    assert f"kcost report {run} --all" in short.stdout
    for listed in ("prices", "data"):
        assert not any(line.endswith(" source") for line in kcost(listed, "list").stdout.splitlines()[:3])
        assert any(line.rstrip().endswith(" source") for line in kcost(listed, "list", "--all").stdout.splitlines()[:3])


def test_progress_is_plain_lines_where_there_is_no_terminal(run: Path, tmp_path: Path) -> None:
    plan = run.parent / "plan.toml"
    bench = kcost("bench", plan, "--out", tmp_path / "told")
    assert re.search(r"(?m)^ *\d+% .*\(.* gone", bench.stderr), bench.stderr
    assert "\x1b" not in bench.stderr
    assert kcost("bench", plan, "--out", tmp_path / "quiet", "--quiet").stderr == ""


def test_ctrl_c_says_what_is_kept_and_how_to_go_on(run: Path, tmp_path: Path) -> None:
    plan = tmp_path / "long.toml"
    plan.write_text((run.parent / "plan.toml").read_text().replace("rounds = 4", "rounds = 1000"))
    (tmp_path / "fake.keras").write_text("{}")
    command = [sys.executable, "-m", "kcost", "bench", str(plan), "--out", str(tmp_path / "run")]
    # Tests that a shell started in the background ignore Ctrl-C, and so would what they start.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as bench:
        assert bench.stderr is not None
        while "round 1" not in bench.stderr.readline():
            assert bench.poll() is None
        bench.send_signal(signal.SIGINT)
        output, error = bench.communicate(timeout=30)
    assert (bench.returncode, output) == (130, "")
    assert error.endswith("interrupted; what was measured stays, the same command goes on from here\n")


def test_opening_a_run_writes_its_page(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BROWSER", "true")  # a browser that does nothing
    opened = kcost("open", run)
    assert (opened.returncode, opened.stdout.strip()) == (0, str(run / "report.html"))
    assert "simulated" in (run / "report.html").read_text()


LONG_ANSWERS: tuple[tuple[str, ...], ...] = (
    ("cost", "{run}"),
    ("cost", "{run}", "--all"),
    ("prices", "list"),
    ("data", "list"),
    ("bench", "--help"),
)


@pytest.mark.parametrize("arguments", LONG_ANSWERS)
def test_a_narrow_terminal_without_colours_and_unicode_shows_all_of_it(run: Path, arguments: tuple[str, ...]) -> None:
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "NO_COLOR": "1"}
    shown = kcost_process(*(a.format(run=run) for a in arguments), COLUMNS="60", **plain)
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.isascii()
    assert "?" not in shown.stdout
    assert_whole(shown.stdout, 60)


@pytest.mark.parametrize("arguments", LONG_ANSWERS)
def test_a_terminal_of_a_hundred_columns_shows_all_of_it(run: Path, arguments: tuple[str, ...]) -> None:
    shown = kcost(*(a.format(run=run) for a in arguments), COLUMNS="100", NO_COLOR="1")
    assert shown.returncode == 0, shown.stderr
    assert_whole(shown.stdout, 100)


def assert_whole(shown: str, columns: int) -> None:
    assert not re.search(r"\.\.\.|\u2026", re.sub(r"PLAN\|ARTIFACT\.\.\.|[\]}]\.\.\.", "", shown))
    assert max(map(len, shown.splitlines())) <= columns


def test_a_pipe_that_is_closed_early_is_no_error(run: Path) -> None:
    program = f"{shlex.quote(sys.executable)} -m kcost"
    # `true` reads nothing, so that the first thing that is written meets a closed pipe, however much a pipe holds.
    for answer in ("prices list --all", f"cost {shlex.quote(str(run))} --json", f"cost {shlex.quote(str(run))} --all"):
        command = f"{program} {answer} | true; exit ${{PIPESTATUS[0]}}"
        piped = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
        assert (piped.returncode, piped.stderr) == (0, "")


def test_the_program_of_a_cell_is_chosen_by_name_or_by_cost(run: Path) -> None:
    ids = json.loads(kcost("cost", run, "--json").stdout)["rankings"][0]["cells"]
    assert kcost("code", run, "--model", "fakee").returncode == 2
    assert "which 0 cells begin with" in kcost("code", run, "--cell", "zzz").stderr
    # The simulated model is no real .keras file: what comes is a refusal of that, after the cell was chosen.
    chosen = kcost("code", run, "--cell", ids[0]["cell_id"])
    assert (chosen.returncode, "A .keras file is a zip archive" in chosen.stderr) == (2, True), chosen.stderr
