"""Commands that export models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import Json, ModelArgument, app, examples, print_answer


@app.command(epilog=examples("kcost export digits --out serving --name digits"))
def export(
    artifact: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for the model base path, NAME/VERSION below it.")],
    name: Annotated[str | None, typer.Option(help="Name of the model in TensorFlow Serving.")] = None,
    version: Annotated[int, typer.Option(help="Version number; never overwritten.")] = 1,
    form: Annotated[
        str, typer.Option("--format", help="serving, or huggingface: a folder for transformers.")
    ] = "serving",
    portable: Annotated[
        bool,
        typer.Option("--portable", help="Public TensorFlow operations only, for a server of another build or CPU."),
    ] = False,
    calibrated: Annotated[
        bool, typer.Option("--calibrated", help="Put probabilities at the temperature that kcost risk fitted.")
    ] = False,
    risk_: Annotated[Path | None, typer.Option("--risk", help="Folder of that report, as --out of kcost risk.")] = None,
    json_: Json = False,
) -> None:
    """Export a model for TensorFlow Serving, checked with TensorFlow's own loader; or a bert for transformers."""
    import kcost
    from kcost.cli import answers

    if form not in ("serving", "huggingface"):
        raise typer.BadParameter(f"{form!r} is neither serving nor huggingface", param_hint="--format")
    if form == "huggingface":
        if calibrated:
            raise typer.BadParameter(
                "a Hugging Face folder holds the model with its own logits", param_hint="--calibrated"
            )
        written = kcost.export_huggingface(artifact, out)
        print_answer(json_, written, lambda console: answers.show_checkpoint(console, written))
        return
    if name is None:
        raise typer.BadParameter("TensorFlow Serving knows a model by its name", param_hint="--name")
    exported = kcost.export(
        artifact, out, name=name, version=version, portable=portable, calibrated=calibrated, risk=risk_
    )
    print_answer(json_, exported, lambda console: answers.show_export(console, exported))
