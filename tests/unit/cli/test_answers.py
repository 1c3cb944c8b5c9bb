from __future__ import annotations

from rich.console import Console

from kcost.api.doctor import DoctorReport, Finding
from kcost.cli.answers import show_doctor
from kcost.core import environment


def test_square_brackets_of_an_extra_are_shown() -> None:
    finding = Finding(subject="jax backend", state="missing", detail="pip install 'kcost[jax]'")
    report = DoctorReport(environment=environment.collect(), backends=(), findings=(finding,), load_1min=0.0)
    console = Console(width=160)
    with console.capture() as captured:
        show_doctor(console, report)
    assert "kcost[jax]" in captured.get()
