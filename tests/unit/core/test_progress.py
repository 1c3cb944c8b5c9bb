"""How work tells of its progress, and what a stream shows of it."""

from __future__ import annotations

import io
import sys

import pytest

from kcost.core.progress import LINE_EVERY_S, ProgressLines, in_steps, shown_on, stage
from kcost.worker.progress import counted


class Terminal(io.StringIO):
    """A stream that says that it is one."""

    def isatty(self) -> bool:
        return True


def test_lines_come_where_a_stage_begins_and_then_once_in_a_while() -> None:
    now_s, lines = [0.0], []
    tell = ProgressLines(lines.append, lambda: now_s[0])
    for second in range(40):
        now_s[0] = float(second)
        tell(second, 40, f"scoring: {second} of 40 examples")
    tell(40, 40, "done: scoring")
    assert [line.partition(" (")[0] for line in lines] == [
        "  0% scoring: 0 of 40 examples",
        " 38% scoring: 15 of 40 examples",
        " 75% scoring: 30 of 40 examples",
        "100% done: scoring",
    ]
    assert LINE_EVERY_S == 15


def test_steps_are_told_as_they_begin_and_a_stage_where_it_ends_well() -> None:
    told_steps: list[tuple[int, int, str]] = []

    def on_progress(done: int, total: int, text: str) -> None:
        told_steps.append((done, total, text))

    tell = in_steps(on_progress, 2)
    tell("converting m")
    tell("checking m")
    with stage(on_progress, "scoring m"):
        pass
    with pytest.raises(ValueError, match="broken"), stage(on_progress, "scoring n"):
        raise ValueError("broken")
    assert told_steps == [
        *[(0, 2, "converting m, step 1 of 2"), (1, 2, "checking m, step 2 of 2")],
        *[(0, 1, "scoring m"), (1, 1, "done: scoring m"), (0, 1, "scoring n")],
    ]


@pytest.mark.parametrize("transient", [True, False])
def test_a_terminal_shows_a_bar_with_texts_as_they_are(transient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with shown_on(stream, transient=transient) as on_progress:
        on_progress(1, 4, "scoring [bold]m[/bold]")
    assert " 25%" in stream.getvalue()
    assert "scoring [bold]m[/bold]" in stream.getvalue()
    ends_with_a_cleared_line = stream.getvalue().rstrip("\x1b[?25h").endswith("\x1b[2K")
    assert ends_with_a_cleared_line == transient


def test_a_job_counts_its_examples_over_all_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kcost.core.progress.LINE_EVERY_S", -1)
    monkeypatch.setattr(sys, "stdout", stream := io.StringIO())
    with counted(1_100, "sentences") as of_pass:
        of_pass("predicting train")(1_000)
        count = of_pass("predicting test")
        count(64)
        count(64)
    assert [line.partition(" (")[0] for line in stream.getvalue().splitlines()] == [
        " 91% predicting train: 1,000 of 1,100 sentences",
        " 97% predicting test: 1,064 of 1,100 sentences",
        "100% predicting test: 1,100 of 1,100 sentences",
    ]
    assert "\x1b" not in stream.getvalue()
