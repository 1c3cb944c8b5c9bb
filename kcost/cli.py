"""The command line: parse, one call, print. The answer goes to standard output, all else to standard error.

Exit codes: 0 done; 1 a gate failed; 2 wrong usage or bad input; 3 something asked for is not there.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Which way of running a Keras 3 model is the cheapest, in dollars, that still meets its limits.",
)
data_app = typer.Typer(no_args_is_help=True, help="Data sets: where from, licence, size, checksum.")
prices_app = typer.Typer(no_args_is_help=True, help="The price book.")
app.add_typer(data_app, name="data")
app.add_typer(prices_app, name="prices")

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of tables.")]
BackendOption = Annotated[
    str | None,
    typer.Option("--backend", help="tensorflow, jax or torch; else KERAS_BACKEND, else the first installed."),
]
ModelArgument = Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An artifact folder, or any .keras file.")]
Limit = Annotated[int | None, typer.Option(help="Most examples of each split, for a quick look.")]


@app.command()
def doctor(
    json_: Json = False,
    devices: Annotated[bool, typer.Option(help="Start each backend to list its devices.")] = True,
) -> None:
    """Say what is installed, what this machine is, and what works on it."""
    from kcost import api
    from kcost.report import answers

    found = api.run_doctor(devices=devices)
    _answer(json_, found, lambda console: answers.show_doctor(console, found))


@data_app.command("list")
def data_list(json_: Json = False) -> None:
    """List the data sets that are known by name."""
    from kcost import api
    from kcost.report import answers

    entries = api.data_sets()
    _answer(json_, entries, lambda console: answers.show_data_sets(console, entries))


@data_app.command("fetch")
def data_fetch(name: str) -> None:
    """Find a data set, or download and check it; print the folder."""
    from kcost import api

    for part, path in api.fetch_data(name).items():
        print(f"{part}\t{path}")  # noqa: T201 -- the answer


@app.command()
def train(
    family: Annotated[str, typer.Argument(help="cnn for images, bert for tagged sentences.")],
    data: Annotated[str, typer.Option(help="Name of a data set, or a path.")],
    out: Annotated[Path, typer.Option(help="Artifact folder to make.")],
    size: Annotated[str | None, typer.Option(help="cnn: seed, small. bert: tiny, mini, minilm, base.")] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.")] = None,
    epochs: int = 5,
    batch_size: int = 32,
    learning_rate: Annotated[float | None, typer.Option(help="Default: 1e-3 for cnn, 5e-4 for bert.")] = None,
    patience: Annotated[int, typer.Option(help="Epochs without a better validation loss before it stops.")] = 2,
    max_length: Annotated[int, typer.Option(help="bert: word pieces of a sentence.")] = 128,
    vocabulary_size: Annotated[int, typer.Option(help="bert: word pieces to learn from the training texts.")] = 8000,
    init: Annotated[
        Path | None, typer.Option(help="bert: a Hugging Face BERT folder, or a Keras preset folder.")
    ] = None,
    freeze: Annotated[str, typer.Option(help="Layers that keep their weights: none, embeddings, backbone.")] = "none",
    freeze_layers: Annotated[int, typer.Option(help="bert: freeze embeddings and this many encoder layers.")] = 0,
    lora_rank: Annotated[int | None, typer.Option(help="bert: train low-rank updates of this rank only.")] = None,
    layer_decay: Annotated[float, typer.Option(help="Factor of the learning rate, a layer towards the input.")] = 1.0,
    schedule: Annotated[str, typer.Option(help="Of the learning rate: constant, linear, cosine.")] = "constant",
    warmup_fraction: Annotated[float, typer.Option(help="Share of all steps in which the rate rises.")] = 0.0,
    clip_norm: Annotated[float | None, typer.Option(help="Largest global norm of the gradient.")] = None,
    weight_decay: float = 0.01,
    dropout: float = 0.1,
    label_smoothing: float = 0.0,
    class_weights: Annotated[str, typer.Option(help="none, or balanced: rare classes weigh more.")] = "none",
    precision: Annotated[str, typer.Option(help="float32, or mixed_bfloat16.")] = "float32",
    augment: Annotated[bool, typer.Option(help="Images: rotation of 10 degrees, shifts of 10%.")] = False,
    augment_strength: Annotated[float, typer.Option(help="Factor of these; few epochs want less.")] = 1.0,
    flip: Annotated[bool, typer.Option(help="Images: mirror left and right as well.")] = False,
    adversarial_epsilon: Annotated[float, typer.Option(help="Train on FGSM examples of this size too.")] = 0.0,
    tensorboard: Annotated[Path | None, typer.Option(help="Folder for TensorBoard files.")] = None,
    repair: Annotated[bool, typer.Option(help="Mend bad tag sequences; --no-repair refuses them.")] = True,
    limit: Limit = None,
    seed: int = 0,
    backend: BackendOption = None,
    json_: Json = False,
) -> None:
    """Train or fine-tune a model into an artifact folder; a run that was killed goes on where it stopped."""
    from kcost import api
    from kcost.report import answers

    artifact = api.train(
        family,  # type: ignore[arg-type]  # checked by api.train
        data,
        out,
        name=name,
        backend=backend,  # type: ignore[arg-type]  # checked by api.train
        size=size,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        patience=patience,
        max_length=max_length,
        vocabulary_size=vocabulary_size,
        init=None if init is None else init.absolute(),
        freeze=freeze,
        freeze_layers=freeze_layers,
        lora_rank=lora_rank,
        layer_decay=layer_decay,
        schedule=schedule,
        warmup_fraction=warmup_fraction,
        clip_norm=clip_norm,
        weight_decay=weight_decay,
        dropout=dropout,
        label_smoothing=label_smoothing,
        class_weights=class_weights,
        precision=precision,
        augment=augment,
        augment_strength=augment_strength,
        flip=flip,
        adversarial_epsilon=adversarial_epsilon,
        tensorboard=None if tensorboard is None else tensorboard.absolute(),
        repair=repair,
        limit=limit,
        seed=seed,
    )
    _answer(json_, artifact, lambda console: answers.show_artifact(console, artifact, out))


@app.command()
def evaluate(
    artifact: ModelArgument,
    data: Annotated[str | None, typer.Option(help="Name or path; default: what the model was trained on.")] = None,
    attack: Annotated[str | None, typer.Option(help="Score under attack too: fgsm or pgd.")] = None,
    epsilon: Annotated[str, typer.Option(help="Comma-separated sizes of the attacker's change.")] = "0.1",
    limit: Limit = None,
    backend: BackendOption = None,
    json_: Json = False,
) -> None:
    """Score a model on the test split of a data set, as it is or under attack."""
    from kcost import api
    from kcost.report import answers

    if attack is not None:
        sizes = _numbers(epsilon)
        told = api.attack(artifact, sizes, method=attack, data=data, backend=backend, limit=limit)  # type: ignore[arg-type]
        _answer(json_, told, lambda console: answers.show_attack(console, told))
        return
    found = api.evaluate(artifact, data=data, backend=backend, limit=limit)  # type: ignore[arg-type]  # checked there
    _answer(json_, found, lambda console: answers.show_evaluation(console, found))


@app.command()
def search(
    family: Annotated[str, typer.Argument(help="cnn or bert.")],
    data: Annotated[str, typer.Option(help="Name of a data set, or a path.")],
    out: Annotated[Path, typer.Option(help="Folder of the study; one that is there goes on.")],
    trials: Annotated[int, typer.Option(help="Trials in all, over every process on the study.")] = 20,
    minutes: Annotated[float | None, typer.Option(help="No trial begins after this time.")] = None,
    objective: Annotated[str, typer.Option(help="Dollars per million inferences, or per training run.")] = "inference",
    storage: Annotated[str | None, typer.Option(help="PostgreSQL or MySQL URL that many machines share.")] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study in the storage.")] = None,
    size: Annotated[str | None, typer.Option(help="Fixes the size; it is searched otherwise.")] = None,
    init: Annotated[Path | None, typer.Option(help="bert: checkpoint folder that trials start from.")] = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    learning_rate: float | None = None,
    max_length: int | None = None,
    vocabulary_size: int | None = None,
    patience: int | None = None,
    freeze: str | None = None,
    limit: Limit = None,
    seed: int | None = None,
    provider: str | None = None,
    region: str | None = None,
    instance: str | None = None,
    prices: Annotated[Path | None, typer.Option(help="A price book of your own (CSV).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.")] = None,
    backend: BackendOption = None,
    json_: Json = False,
) -> None:
    """Search hyperparameters: score on validation data against predicted dollars."""
    from kcost import api
    from kcost.report.search_terminal import show_search

    options = {
        "trials": trials,
        "minutes": minutes,
        "objective": objective,
        "storage": storage,
        "study": study,
        "seed": seed,
        "provider": provider,
        "region": region,
        "instance": instance,
        "prices_file": prices,
    }
    with _progress() as on_progress:
        result = api.run_search(
            family,  # type: ignore[arg-type]  # checked by api.run_search
            data,
            out,
            backend=backend,  # type: ignore[arg-type]  # checked by api.run_search
            html=html,
            on_progress=on_progress,
            options=options,
            size=size,
            init=None if init is None else str(init.absolute()),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            max_length=max_length,
            vocabulary_size=vocabulary_size,
            patience=patience,
            freeze=freeze,
            limit=limit,
        )
    _answer(json_, result, lambda console: show_search(console, result))


@app.command()
def bench(
    what: Annotated[list[str], typer.Argument(metavar="PLAN|ARTIFACT...", help="A .toml plan, or models to measure.")],
    out: Annotated[Path, typer.Option(help="Run folder; one that is there goes on where it stopped.")],
    backends: Annotated[str | None, typer.Option(help="Comma-separated; default: all that are installed.")] = None,
    devices: Annotated[str | None, typer.Option(help="Comma-separated: cpu, gpu, tpu. Default: cpu.")] = None,
    precisions: Annotated[str | None, typer.Option(help="Comma-separated: float32, bfloat16.")] = None,
    batches: Annotated[str | None, typer.Option(help="Comma-separated batch sizes. Default: 1,32.")] = None,
    phases: Annotated[str | None, typer.Option(help="Comma-separated: inference, training.")] = None,
    methods: Annotated[
        str | None, typer.Option(help="Comma-separated: predict, eager, graph, xla, jit, compile, train_on_batch.")
    ] = None,
    threads: Annotated[int | None, typer.Option(help="CPU threads of a worker; 0 is every core.")] = None,
    rounds: Annotated[int | None, typer.Option(help="Rounds in which each cell has one turn.")] = None,
    json_: Json = False,
) -> None:
    """Measure models over backends, devices, precisions and batch sizes."""
    from kcost import api
    from kcost.report import answers

    axes = {
        "backends": _list(backends),
        "devices": _list(devices),
        "precisions": _list(precisions),
        "batches": _list(batches),
        "phases": _list(phases),
        "methods": _list(methods),
        "threads": threads,
    }
    plan = api.make_plan(what, rounds=rounds, **axes)
    with _progress() as on_progress:
        run = api.run_bench(plan, out, on_progress=on_progress)
    if json_:
        _answer(True, run, None)
    else:
        costed = api.estimate_cost(out)
        _answer(False, costed, lambda console: answers.show_cost(console, costed))


@app.command()
def cost(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    provider: Annotated[str | None, typer.Option(help="aws, gcp, azure, ...")] = None,
    region: str | None = None,
    instance: Annotated[str | None, typer.Option(help="Instance type; default: the closest to the machine.")] = None,
    p99_ms: Annotated[float | None, typer.Option(help="Rank only cells whose p99 latency holds this limit.")] = None,
    max_drop: Annotated[float | None, typer.Option(help="Largest drop of the score allowed; default 0.01.")] = None,
    prices: Annotated[Path | None, typer.Option(help="A price book of your own (CSV).")] = None,
    json_: Json = False,
) -> None:
    """Turn measured times into dollars, and say which cell is the cheapest."""
    from kcost import api
    from kcost.report import answers

    costed = api.estimate_cost(
        run,
        provider=provider,
        region=region,
        instance=instance,
        p99_ms=p99_ms,
        max_drop=max_drop,
        prices_file=prices,
    )
    _answer(json_, costed, lambda console: answers.show_cost(console, costed))


@prices_app.command("list")
def prices_list(
    file: Annotated[Path | None, typer.Argument(help="A price book; default: the one in the package.")] = None,
    provider: str | None = None,
    region: str | None = None,
    json_: Json = False,
) -> None:
    """List prices, each with its source and date."""
    from kcost import api
    from kcost.report import answers

    rows = api.prices(file).find(provider=provider, region=region)
    _answer(json_, list(rows), lambda console: answers.show_prices(console, rows))


@prices_app.command("check")
def prices_check(
    file: Annotated[Path | None, typer.Argument(help="A price book; default: the one in the package.")] = None,
    json_: Json = False,
) -> None:
    """Refuse a price book with rows that cannot be trusted."""
    from kcost import api
    from kcost.report import answers

    checked = api.check_prices(file)
    _answer(json_, checked, lambda console: answers.show_price_check(console, checked))
    if checked.problems:
        raise typer.Exit(2)


@app.command()
def export(
    artifact: ModelArgument,
    out: Annotated[Path, typer.Option(help="Folder for the model base path, NAME/VERSION below it.")],
    name: Annotated[str | None, typer.Option(help="Name of the model in TensorFlow Serving.")] = None,
    version: Annotated[int, typer.Option(help="Version number; never overwritten.")] = 1,
    form: Annotated[
        str, typer.Option("--format", help="serving, or huggingface: a folder for transformers.")
    ] = "serving",
    json_: Json = False,
) -> None:
    """Export a model for TensorFlow Serving, checked with TensorFlow's own loader; or a bert for transformers."""
    from kcost import api
    from kcost.report import answers

    if form not in ("serving", "huggingface"):
        raise typer.BadParameter(f"{form!r} is neither serving nor huggingface", param_hint="--format")
    if form == "huggingface":
        written = api.export_huggingface(artifact, out)
        _answer(json_, written, lambda console: answers.show_checkpoint(console, written))
        return
    if name is None:
        raise typer.BadParameter("TensorFlow Serving knows a model by its name", param_hint="--name")
    exported = api.export(artifact, out, name=name, version=version)
    _answer(json_, exported, lambda console: answers.show_export(console, exported))


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="Run folder.")],
    html: Annotated[Path | None, typer.Option(help="Write one self-contained page here.")] = None,
    json_: Json = False,
) -> None:
    """Show a run: ranking, verdicts, parity, warnings; as tables, and as a page."""
    from kcost import api
    from kcost.report import answers

    costed = api.make_report(run, html=html)
    _answer(json_, costed, lambda console: answers.show_cost(console, costed))
    if html is not None:
        print(f"page: {html}", file=sys.stderr)  # noqa: T201 -- progress


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for all that the demo makes.")] = Path("demo"),
    json_: Json = False,
) -> None:
    """Run the whole flow on the built-in data: train, bench, cost, verdict, export, report."""
    from kcost import api
    from kcost.report import answers

    with _progress() as on_progress:
        made = api.run_demo(out, on_progress=on_progress)
    _answer(json_, made, lambda console: answers.show_demo(console, made))


def _numbers(text: str) -> list[float]:
    try:
        return [float(part) for part in _list(text) or []]
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a list of numbers such as 0.05,0.1") from error


def _list(text: str | None) -> list[str] | None:
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def _answer(as_json: bool, answer: Any, show: Any) -> None:
    if as_json:
        plain = (
            [a.model_dump(mode="json") for a in answer] if isinstance(answer, list) else answer.model_dump(mode="json")
        )
        print(json.dumps(plain, indent=1))  # noqa: T201 -- the answer
        return
    from rich.console import Console

    # A pipe has no width: tables keep their columns there.
    show(Console() if sys.stdout.isatty() else Console(width=160))


@contextmanager
def _progress() -> Iterator[Any]:
    """A progress bar on standard error, as the function that the API tells its progress to."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.percentage:3.0f}%"), BarColumn(bar_width=20), TimeElapsedColumn())
    # Refreshed only when something happens: a thread that redraws would disturb what is measured.
    with Progress(*columns, TextColumn("{task.description}"), console=console, auto_refresh=False) as bar:
        task = bar.add_task("starting", total=None)

        def on_progress(done: int, total: int, text: str) -> None:
            bar.update(task, completed=done, total=total or None, description=text or None)
            if console.is_terminal:
                bar.refresh()

        yield on_progress


def main() -> NoReturn:
    """The console script. Every error that kcost raises on purpose becomes a message and an exit code."""
    from kcost.core.errors import KcostError

    try:
        app(standalone_mode=True)
    except KcostError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 -- the one place that prints errors
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        print("interrupted; what was measured stays, the same command goes on from here", file=sys.stderr)  # noqa: T201
        sys.exit(130)
    except BrokenPipeError:
        # The reader of a pipe (head, less) has gone: nothing is left to say, not even at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(0)


if __name__ == "__main__":
    main()
