"""The examples in the docstrings of the public functions, in an order in which each finds what it needs."""

from __future__ import annotations

import doctest
import inspect
from pathlib import Path

import pytest

import kcost
from kcost.core.process import installed

IN_ORDER = (
    *("run_doctor", "data_sets", "fetch_data", "prices", "check_prices"),
    *("train", "evaluate", "attack", "assess_risk", "make_reference", "make_plan", "run_bench", "estimate_cost"),
    *("make_report", "estimate_training", "estimate_budget", "write_workbook", "write_budget_page", "program"),
    *("compare_runs",),
    *("next_dollar", "write_next_dollar_page"),
    *("write_alert_rules", "write_dashboard"),
    *("run_optimize", "export", "find_cheapest", "make_cheaper", "make_servable"),
)
WITHOUT = {
    *("export_huggingface", "open_model", "open_run", "run_demo", "run_search", "run_self_test"),
    *(
        "verify_card",
        "write_card",
        "write_card_pages",
        "load",
        "project_run",
        "run_probe",
        "diff_prices",
        "update_prices",
    ),
    *("serve_models", "serve_proxy", "run_loadtest", "find_rate", "monitor_proxy", "tag_texts"),
    *("run_recommend", "watch_recommendation", "read_recommendation", "recommendation_folder"),
}
"""Public functions whose examples would take minutes, need a server or a process of their own, or that a test of their
own calls in the same words."""


def test_every_public_function_has_its_place() -> None:
    functions = {name for name in kcost.__all__ if inspect.isfunction(getattr(kcost, name))}
    assert functions == {*IN_ORDER, *WITHOUT}


@pytest.mark.slow
@pytest.mark.skipif(not (installed("torch") and installed("tensorflow")), reason="needs kcost[torch,tensorflow]")
def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # What is measured beside other tests would have no figure.
    monkeypatch.setattr("kcost.cost.verdict.disturbances", lambda cell, environment: ())
    runner, names = doctest.DocTestRunner(), {"kcost": kcost}
    for name in IN_ORDER:
        (example,) = doctest.DocTestFinder(recurse=False).find(getattr(kcost, name), name, globs=names)
        assert example.examples, f"kcost.{name} has no example"
        said: list[str] = []
        runner.run(example, clear_globs=False, out=said.append)
        assert not said, "".join(said)
