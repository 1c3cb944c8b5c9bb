"""Commands that look at a live proxy, and that make what it needs to know."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from kcost.cli.shared import (
    DATA,
    OUTPUT,
    All,
    BackendOption,
    Json,
    Limit,
    PixelsOption,
    Quiet,
    app,
    examples,
    print_answer,
    print_text,
    stage,
)
from kcost.core.suggestion import did_you_mean

if TYPE_CHECKING:
    from rich.console import Console

    from kcost.serving.monitor.report import MonitorReport

KINDS = ("rollout", "reference", "rules", "dashboard")
PROMOTE, ROLL_BACK, CANNOT_TELL = 0, 1, 3
"""Exit codes of `kcost monitor rollout`: a script that promotes goes on at 0 alone."""


@app.command(
    epilog=examples(
        "kcost monitor reference digits            # once, before: what live traffic is held against",
        "kcost monitor http://127.0.0.1:8502       # now: healthy or drifted, how sure, dollars a month",
        "kcost monitor rollout http://127.0.0.1:8502 --watch   # until it is decided",
        "kcost monitor rules --out rules.yml       # alerts for Prometheus",
    )
)
def monitor(
    words: Annotated[
        list[str],
        typer.Argument(
            metavar="WHAT",
            help="The URL of a live proxy; rollout URL; or what to write: reference ARTIFACT, rules, dashboard.",
        ),
    ],
    watch: Annotated[
        bool,
        typer.Option(
            "--watch",
            help="Again every --every-s seconds, until Ctrl-C; of rollout, until it is decided.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
    every_s: Annotated[float, typer.Option(min=0.5, help="With --watch.", rich_help_panel=OUTPUT)] = 5.0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="File to write: reference.json in the artifact, kcost-rules.yml or kcost-grafana.json.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    p99_ms: Annotated[
        float | None, typer.Option(help="With rules: alert above this p99.", rich_help_panel=OUTPUT)
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="With reference: name or path; default: what the model was trained on.", rich_help_panel=DATA
        ),
    ] = None,
    split: Annotated[
        str,
        typer.Option(
            help="With reference: train, validation or test. Held-out data is what live traffic is like.",
            rich_help_panel=DATA,
        ),
    ] = "test",
    pixels: PixelsOption = None,
    limit: Limit = None,
    backend: BackendOption = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Say whether a live proxy's traffic is healthy or has drifted, how sure, and what it costs; exit code 1 if not.

    rollout: what is to be done with a new version; exit code 0 to promote, 1 to roll back, 3 where it can't tell yet.
    """
    import kcost
    from kcost.report import monitor_terminal

    if words[0] == "rollout":
        if len(words) != 2:
            raise typer.BadParameter(f"{' '.join(words)!r} is not: rollout URL")
        _rollout(words[1], every_s if watch else None, json_=json_)
        return
    if words[0] in KINDS:
        if len(words) != (2 if words[0] == "reference" else 1) or watch:
            raise typer.BadParameter(f"{' '.join(words)!r} is none of: reference ARTIFACT, rules, dashboard")
        if words[0] == "rules":
            print_text(str(kcost.write_alert_rules(out or "kcost-rules.yml", p99_ms=p99_ms)))
            return
        if words[0] == "dashboard":
            print_text(str(kcost.write_dashboard(out or "kcost-grafana.json")))
            return
        with stage(f"predicting with {words[1]}", quiet):
            reference = kcost.make_reference(
                words[1],
                data=data,
                split=split,  # type: ignore[arg-type]  # checked there
                out=out,
                backend=backend,  # type: ignore[arg-type]  # checked there
                limit=limit,
                pixels=pixels,
            )
        print_answer(
            json_, reference, lambda console: monitor_terminal.show_reference(console, reference, everything=all_)
        )
        return
    if len(words) != 1 or "//" not in words[0]:
        meant = did_you_mean(words[0], KINDS)
        said = f"{' '.join(words)!r} is no URL such as http://127.0.0.1:8502"
        raise typer.BadParameter(f"{said}, nor rollout URL, reference ARTIFACT, rules or dashboard. {meant}")

    def show(console: Console, report: MonitorReport) -> None:
        monitor_terminal.show_monitor(console, report, words[0], everything=all_)

    while True:
        report = kcost.monitor_proxy(words[0])
        read = print_answer(json_, report, lambda console, current=report: show(console, current))
        if not watch or not read or not _comes_again(every_s, json_=json_):
            break
    if report.outcome in ("drifted", "failing"):
        raise typer.Exit(1)


def _rollout(url: str, every_s: float | None, *, json_: bool) -> None:
    """Shows the rollouts of a proxy once; or, every so many seconds, until each is decided."""
    import kcost
    from kcost.core.errors import InputError
    from kcost.report import monitor_terminal

    while True:
        report = kcost.monitor_proxy(url)
        if not report.rollouts:
            raise InputError(
                "A rollout is a shadow or a canary that the proxy was started with.",
                received=f"{url}, a proxy without one",
                remedy="Write [canary.NAME] or [shadow.NAME] into the file of kcost serve --upstream --monitor.",
            )
        decisions = {state.rollout.decision for state in report.rollouts}
        print_answer(json_, report, lambda console, current=report: monitor_terminal.show_rollouts(console, current))
        if every_s is None or "can't tell" not in decisions or not _comes_again(every_s, json_=json_):
            break
    code = ROLL_BACK if "roll back" in decisions else CANNOT_TELL if "can't tell" in decisions else PROMOTE
    if code:
        raise typer.Exit(code)


def _comes_again(every_s: float, *, json_: bool) -> bool:
    """Waits until what was printed is printed again; False where Ctrl-C ends that."""
    try:
        time.sleep(every_s)
    except KeyboardInterrupt:
        return False
    if not json_:
        print_text("")
    return True
