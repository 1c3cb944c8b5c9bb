"""What commands print, on runs of the simulated backend."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli.commands import kcost


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    (folder / "fake.keras").write_text("{}")
    (folder / "plan.toml").write_text(
        'models = ["fake.keras"]\nbackends = ["fake"]\nphases = ["inference"]\n'
        "[settings]\nrounds = 4\nround_s = 0.01\nwarmup_s = 0.0\n"
    )
    found = kcost("bench", folder / "plan.toml", "--out", folder / "run")
    assert found.returncode == 0, found.stderr
    assert "[simulated]" in found.stdout
    return folder / "run"


@pytest.mark.parametrize(
    ("command", "key"),
    [(("cost",), "conclusions"), (("report",), "rankings"), (("cost", "--p99-ms", "1000"), "notices")],
)
def test_json_is_one_document_on_standard_output(run: Path, command: tuple[str, ...], key: str) -> None:
    found = kcost(command[0], run, *command[1:], "--json")
    assert found.returncode == 0, found.stderr
    assert key in json.loads(found.stdout)


def test_the_page_is_written(run: Path, tmp_path: Path) -> None:
    found = kcost("report", run, "--html", tmp_path / "page.html")
    assert found.returncode == 0, found.stderr
    assert "simulated" in (tmp_path / "page.html").read_text()


def test_a_price_can_be_chosen(run: Path) -> None:
    found = kcost("cost", run, "--provider", "aws", "--instance", "c7i.large", "--json")
    (match,) = json.loads(found.stdout)["prices"].values()
    assert (match["price"]["instance"], match["is_assumption"]) == ("c7i.large", False)
    assert kcost("cost", run, "--instance", "none.such").returncode == 2


@pytest.mark.parametrize("arguments", [("data", "list"), ("prices", "list"), ("doctor", "--no-devices")])
def test_lists_are_tables_or_json(arguments: tuple[str, ...]) -> None:
    table = kcost(*arguments)
    assert (table.returncode, bool(table.stdout)) == (0, True), table.stderr
    json.loads(kcost(*arguments, "--json").stdout)


def test_the_own_price_book_has_no_problems() -> None:
    found = kcost("prices", "check", "--json")
    assert found.returncode == 0
    assert json.loads(found.stdout)["problems"] == []


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
        "demo",
    ):
        assert f"\n  {command} " in root.stdout
        assert kcost(command, "--help").returncode == 0


def test_the_version_is_that_of_the_package() -> None:
    import kcost as package

    found = kcost("--version")
    assert (found.returncode, found.stdout) == (0, f"kcost {package.__version__}\n")
