"""The command that says how far a model can be trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import (
    DATA,
    LIMITS,
    MEASURING,
    MODEL,
    OUTPUT,
    All,
    BackendOption,
    Json,
    Limit,
    ModelArgument,
    OutputOption,
    PixelsOption,
    Quiet,
    TaskOption,
    ThresholdOption,
    app,
    examples,
    print_answer,
    print_text,
    progress,
    stage,
    tell,
)
from kcost.core.suggestion import did_you_mean

VERBS = ("verify", "pages")


@app.command(
    epilog=examples(
        "kcost risk digits",
        "kcost risk digits-int8 --against digits --gates gates.toml",
        "kcost risk my.keras --data mine.npz --robustness",
    )
)
def risk(
    artifact: ModelArgument,
    data: Annotated[
        str | None, typer.Option(help="Name or path; default: what the model was trained on.", rich_help_panel=DATA)
    ] = None,
    gates: Annotated[
        Path | None, typer.Option(help="TOML file of limits; exit code 1 where one fails.", rich_help_panel=LIMITS)
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Exit code 1 where a gate can't tell, too.", rich_help_panel=LIMITS)
    ] = False,
    against: Annotated[
        Path | None,
        typer.Option(
            help="Model of before, such as in float32: which examples flip, and the drop.", rich_help_panel=MODEL
        ),
    ] = None,
    columns: Annotated[
        Path | None,
        typer.Option(
            help="CSV with a row for each test example: further slices, and groups to compare.", rich_help_panel=DATA
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder with this model: evidence for limits on time, dollars, memory.", rich_help_panel=LIMITS
        ),
    ] = None,
    target_error: Annotated[
        float | None,
        typer.Option(help="Error, of 1, that a threshold of abstention shall meet.", rich_help_panel=LIMITS),
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option(
            "--robustness",
            help="Also the score under noise, blur, typos and the like, and under attack.",
            rich_help_panel=MEASURING,
        ),
    ] = False,
    robustness_examples: Annotated[
        int,
        typer.Option(help="Most test examples that are changed for that, a seeded sample.", rich_help_panel=MEASURING),
    ] = 2000,
    ood: Annotated[
        str | None,
        typer.Option(help="Data that the model was not made for: whether it can tell them.", rich_help_panel=DATA),
    ] = None,
    other_seed: Annotated[
        list[Path] | None,
        typer.Option(
            help="Artifact of the same settings with another seed, more than once: the spread between them.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    cleanlab: Annotated[
        bool,
        typer.Option(
            "--cleanlab",
            help="Also look for wrong labels of a classifier with cleanlab, an extra.",
            rich_help_panel=MEASURING,
        ),
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            help="Folder of predictions and risk.json; default: risk in the artifact, or NAME-risk.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    train_examples: Annotated[
        int, typer.Option(help="Most training examples that are predicted.", rich_help_panel=DATA)
    ] = 10_000,
    output: OutputOption = None,
    task: TaskOption = None,
    threshold: ThresholdOption = None,
    pixels: PixelsOption = None,
    limit: Limit = None,
    backend: BackendOption = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Say how far a classifier or a tagger can be trusted: calibration, slices, data, and the gates that you set."""
    import kcost
    from kcost.report.risk_terminal import show_risk

    with progress(quiet) as on_progress:
        report = kcost.assess_risk(
            artifact,
            data=data,
            gates=gates,
            against=against,
            columns=columns,
            run=run,
            backend=backend,  # type: ignore[arg-type]  # checked there
            out=out,
            target_error=target_error,
            robustness=robustness,
            robustness_examples=robustness_examples,
            ood=ood,
            other_seeds=other_seed or (),
            cleanlab=cleanlab,
            output=output,
            task=task,
            threshold=threshold,
            pixels=pixels,
            limit=limit,
            train_examples=train_examples,
            on_progress=on_progress,
        )
    print_answer(json_, report, lambda console: show_risk(console, report, everything=all_))
    if report.failed or (strict and report.undecided):
        raise typer.Exit(1)
    if report.undecided:
        tell("warning: a gate can't tell; --strict makes that exit code 1")


@app.command(epilog=examples("kcost card digits", "kcost card verify digits", "kcost card pages digits"))
def card(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[verify|pages] ARTIFACT", help="The model that has a risk report."),
    ],
    out: Annotated[
        Path | None, typer.Option(help="The card to write or verify; default: card.md in risk.", rich_help_panel=OUTPUT)
    ] = None,
    risk_: Annotated[
        Path | None, typer.Option("--risk", help="Folder of the report, as --out of kcost risk.", rich_help_panel=DATA)
    ] = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Write a model card and a page for Annex IV of the EU AI Act, as Markdown and HTML, from a risk report.

    verify: exit code 1 where anything in them is not as its evidence has it. pages: make the HTML again.
    """
    import kcost
    from kcost.report.risk_terminal import show_verified

    verb = words[0] if len(words) == 2 and words[0] in VERBS else ""
    if len(words) != 1 + bool(verb):
        raise typer.BadParameter(
            f"{' '.join(words)!r} is neither ARTIFACT nor verify or pages ARTIFACT. {did_you_mean(words[0], VERBS)}"
        )
    if verb == "verify":
        with stage(f"verifying the card of {words[1]}", quiet):
            lines = kcost.verify_card(words[1], out, risk=risk_)
        if json_:
            print_text(json.dumps({"differing": lines}, indent=1))
        else:
            print_answer(False, lines, lambda console: show_verified(console, lines, everything=all_))
        if lines:
            raise typer.Exit(1)
        return
    with stage(f"writing the card of {words[-1]}", quiet):
        if verb:
            written = kcost.write_card_pages(words[1], out, risk=risk_)
        else:
            written = (kcost.write_card(words[0], out, risk=risk_),)
    print_text(json.dumps({"written": [str(p) for p in written]}, indent=1) if json_ else "\n".join(map(str, written)))
