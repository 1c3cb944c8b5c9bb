"""The command that says how far a model can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import (
    BackendOption,
    Json,
    Limit,
    ModelArgument,
    OutputOption,
    PixelsOption,
    TaskOption,
    ThresholdOption,
    app,
    print_answer,
)


@app.command()
def risk(
    artifact: ModelArgument,
    data: Annotated[str | None, typer.Option(help="Name or path; default: what the model was trained on.")] = None,
    gates: Annotated[Path | None, typer.Option(help="TOML file of limits; exit code 1 where one fails.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Exit code 1 where a gate can't tell, too.")] = False,
    against: Annotated[
        Path | None, typer.Option(help="Model of before, such as in float32: which examples flip, and the drop.")
    ] = None,
    columns: Annotated[
        Path | None, typer.Option(help="CSV with a row for each test example: further slices, and groups to compare.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run folder with this model: evidence for limits on time, dollars, memory.")
    ] = None,
    target_error: Annotated[
        float | None, typer.Option(help="Error, of 1, that a threshold of abstention shall meet.")
    ] = None,
    robustness: Annotated[
        bool,
        typer.Option("--robustness", help="Also the score under noise, blur, typos and the like, and under attack."),
    ] = False,
    robustness_examples: Annotated[
        int, typer.Option(help="Most test examples that are changed for that, a seeded sample.")
    ] = 2000,
    ood: Annotated[
        str | None, typer.Option(help="Data that the model was not made for: whether it can tell them.")
    ] = None,
    other_seed: Annotated[
        list[Path] | None,
        typer.Option(help="Artifact of the same settings with another seed, more than once: the spread between them."),
    ] = None,
    cleanlab: Annotated[
        bool, typer.Option("--cleanlab", help="Also look for wrong labels of a classifier with cleanlab, an extra.")
    ] = False,
    out: Annotated[
        Path | None,
        typer.Option(help="Folder of predictions and risk.json; default: risk in the artifact, or NAME-risk."),
    ] = None,
    train_examples: Annotated[int, typer.Option(help="Most training examples that are predicted.")] = 10_000,
    output: OutputOption = None,
    task: TaskOption = None,
    threshold: ThresholdOption = None,
    pixels: PixelsOption = None,
    limit: Limit = None,
    backend: BackendOption = None,
    json_: Json = False,
) -> None:
    """Say how far a classifier or a tagger can be trusted: calibration, slices, data, and the gates that you set."""
    import kcost
    from kcost.report.risk_terminal import show_risk

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
    )
    print_answer(json_, report, lambda console: show_risk(console, report))
    if report.failed or (strict and report.undecided):
        raise typer.Exit(1)
    if report.undecided:
        typer.echo("warning: a gate can't tell; --strict makes that exit code 1", err=True)


@app.command()
def card(
    words: Annotated[
        list[str],
        typer.Argument(metavar="[verify|pages] ARTIFACT", help="The model that has a risk report."),
    ],
    out: Annotated[Path | None, typer.Option(help="The card to write or verify; default: card.md in risk.")] = None,
    risk_: Annotated[Path | None, typer.Option("--risk", help="Folder of the report, as --out of kcost risk.")] = None,
) -> None:
    """Write a model card and a page for Annex IV of the EU AI Act, as Markdown and HTML, from a risk report.

    verify: exit code 1 where anything in them is not as its evidence has it. pages: make the HTML again.
    """
    import kcost

    verb = words[0] if len(words) == 2 and words[0] in ("verify", "pages") else ""
    if len(words) != 1 + bool(verb):
        raise typer.BadParameter(f"{' '.join(words)!r} is neither ARTIFACT nor verify or pages ARTIFACT")
    if not verb:
        typer.echo(str(kcost.write_card(words[0], out, risk=risk_)))
        return
    if verb == "pages":
        for page in kcost.write_card_pages(words[1], out, risk=risk_):
            typer.echo(str(page))
        return
    lines = kcost.verify_card(words[1], out, risk=risk_)
    typer.echo("every figure is as its evidence has it" if not lines else f"{len(lines)} line(s) differ:")
    for line in lines:
        typer.echo(f"  {line}")
    if lines:
        raise typer.Exit(1)
