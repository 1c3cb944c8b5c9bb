"""Commands that export models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import (
    MODEL,
    OUTPUT,
    SERVING,
    All,
    Json,
    ModelArgument,
    Quiet,
    app,
    examples,
    print_answer,
    progress,
    stage,
)
from kcost.core.suggestion import did_you_mean

FORMATS = ("serving", "huggingface")


@app.command(
    epilog=examples(
        "kcost export digits --out serving --name digits",
        "kcost export digits --out serving --name digits --version 2 --label stable --run run --qps 200 --p99-ms 50",
        "kcost export tagger --format huggingface --out tagger-hf",
    )
)
def export(
    artifact: ModelArgument,
    out: Annotated[
        Path, typer.Option(help="Folder for the model base path, NAME/VERSION below it.", rich_help_panel=OUTPUT)
    ],
    name: Annotated[
        str | None, typer.Option(help="Name of the model in TensorFlow Serving.", rich_help_panel=OUTPUT)
    ] = None,
    version: Annotated[int, typer.Option(help="Version number; never overwritten.", rich_help_panel=OUTPUT)] = 1,
    form: Annotated[
        str,
        typer.Option("--format", help="serving, or huggingface: a folder for transformers.", rich_help_panel=OUTPUT),
    ] = "serving",
    portable: Annotated[
        bool,
        typer.Option(
            "--portable",
            help="Public TensorFlow operations only, for a server of another build or CPU.",
            rich_help_panel=MODEL,
        ),
    ] = False,
    warm_up: Annotated[
        list[int] | None,
        typer.Option(
            help="Batch size that the server warms up with; may be repeated. Default: 1 and 8.", rich_help_panel=SERVING
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            help="Names this version in models.config, as stable does; may be repeated.", rich_help_panel=SERVING
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            help="Run folder with tensorflow/saved_model cells of the model: batching is chosen from them.",
            rich_help_panel=SERVING,
        ),
    ] = None,
    qps: Annotated[
        float | None, typer.Option(help="Requests a second of the traffic; with --run.", rich_help_panel=SERVING)
    ] = None,
    p99_ms: Annotated[
        float | None, typer.Option(help="Most that the p99 may be; with --run.", rich_help_panel=SERVING)
    ] = None,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibrated", help="Put probabilities at the temperature that kcost risk fitted.", rich_help_panel=MODEL
        ),
    ] = False,
    risk_: Annotated[
        Path | None,
        typer.Option("--risk", help="Folder of that report, as --out of kcost risk.", rich_help_panel=MODEL),
    ] = None,
    to: Annotated[
        list[str] | None,
        typer.Option(
            metavar="RUNTIME[:PRECISION]",
            help="Write the model for litert, onnx or openvino as well, for kcost serve --backend; may be repeated.",
            rich_help_panel=SERVING,
        ),
    ] = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Export a model for TensorFlow Serving, checked with TensorFlow's own loader; or a bert for transformers."""
    import kcost
    from kcost.cli import answers

    if form not in FORMATS:
        meant = did_you_mean(form, FORMATS)
        raise typer.BadParameter(f"{form!r} is neither {' nor '.join(FORMATS)}. {meant}", param_hint="--format")
    if form == "huggingface":
        if to:
            raise typer.BadParameter("other runtimes lie beside a SavedModel: --format serving", param_hint="--to")
        if calibrated:
            raise typer.BadParameter(
                "a Hugging Face folder holds the model with its own logits", param_hint="--calibrated"
            )
        with stage(f"exporting {artifact}", quiet):
            written = kcost.export_huggingface(artifact, out)
        print_answer(json_, written, lambda console: answers.show_checkpoint(console, written))
        return
    if name is None:
        raise typer.BadParameter("TensorFlow Serving knows a model by its name", param_hint="--name")
    with progress(quiet) as on_progress:
        exported = kcost.export(
            artifact,
            out,
            name=name,
            version=version,
            portable=portable,
            warm_up_batches=warm_up or None,
            labels=label or (),
            run=run,
            queries_per_s=qps,
            p99_ms=p99_ms,
            calibrated=calibrated,
            risk=risk_,
            to=to or (),
            on_progress=on_progress,
        )
    print_answer(json_, exported, lambda console: answers.show_export(console, exported, everything=all_))
