"""Commands that make and score models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from kcost.cli.shared import (
    DATA,
    MEASURING,
    MODEL,
    OUTPUT,
    PRICES,
    SEARCH,
    TRAINING,
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
    numbers,
    parts,
    print_answer,
    progress,
)


@app.command(
    epilog=examples("kcost train cnn --data mnist --out digits", "kcost train bert --data my-texts.csv --out texts")
)
def train(
    family: Annotated[str, typer.Argument(help="cnn for images, bert for tagged sentences or labelled texts.")],
    data: Annotated[
        str, typer.Option(help="Name of a data set (`kcost data list`), or a path to your own.", rich_help_panel=DATA)
    ],
    out: Annotated[Path, typer.Option(help="Artifact folder to make.", rich_help_panel=OUTPUT)],
    size: Annotated[
        str | None, typer.Option(help="cnn: seed, small. bert: tiny, mini, minilm, base.", rich_help_panel=MODEL)
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the model.", rich_help_panel=MODEL)] = None,
    epochs: Annotated[int, typer.Option(help="Most passes over the training split.", rich_help_panel=TRAINING)] = 5,
    batch_size: Annotated[int, typer.Option(help="Examples a step.", rich_help_panel=TRAINING)] = 32,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Default: 1e-3 for cnn, 5e-4 for bert, 5e-5 with --init.", rich_help_panel=TRAINING),
    ] = None,
    patience: Annotated[
        int,
        typer.Option(
            help="It stops after more epochs than this without a better validation loss.", rich_help_panel=TRAINING
        ),
    ] = 2,
    max_length: Annotated[
        int, typer.Option(help="bert: word pieces of a sentence at most; later words are lost.", rich_help_panel=DATA)
    ] = 128,
    vocabulary_size: Annotated[
        int, typer.Option(help="bert: word pieces to learn from the training texts.", rich_help_panel=DATA)
    ] = 8000,
    init: Annotated[
        Path | None,
        typer.Option(help="bert: a Hugging Face BERT folder, or a Keras preset folder.", rich_help_panel=MODEL),
    ] = None,
    freeze: Annotated[
        str, typer.Option(help="Layers that keep their weights: none, embeddings, backbone.", rich_help_panel=TRAINING)
    ] = "none",
    freeze_layers: Annotated[
        int, typer.Option(help="bert: freeze embeddings and this many encoder layers.", rich_help_panel=TRAINING)
    ] = 0,
    lora_rank: Annotated[
        int | None,
        typer.Option(help="bert: train low-rank updates of this rank, and the head, only.", rich_help_panel=TRAINING),
    ] = None,
    layer_decay: Annotated[
        float, typer.Option(help="Factor of the learning rate, a layer towards the input.", rich_help_panel=TRAINING)
    ] = 1.0,
    schedule: Annotated[
        str, typer.Option(help="Of the learning rate: constant, linear, cosine.", rich_help_panel=TRAINING)
    ] = "constant",
    warmup_fraction: Annotated[
        float, typer.Option(help="Share of all steps in which the rate rises.", rich_help_panel=TRAINING)
    ] = 0.0,
    clip_norm: Annotated[
        float | None, typer.Option(help="Largest global norm of the gradient.", rich_help_panel=TRAINING)
    ] = None,
    weight_decay: Annotated[
        float, typer.Option(help="AdamW's; biases and normalisations are spared.", rich_help_panel=TRAINING)
    ] = 0.01,
    dropout: Annotated[
        float | None,
        typer.Option(
            help="Default: 0.1 for bert, 0.2 for cnn --size small; the seed cnn has none.", rich_help_panel=MODEL
        ),
    ] = None,
    label_smoothing: Annotated[
        float, typer.Option(help="Share of each label that is spread over all classes.", rich_help_panel=TRAINING)
    ] = 0.0,
    teacher: Annotated[
        Path | None,
        typer.Option(
            help="Artifact folder of another model, whose answers are learnt as well.", rich_help_panel=TRAINING
        ),
    ] = None,
    distill: Annotated[
        float | None,
        typer.Option(help="Share of the loss that goes by these; default 0.5.", rich_help_panel=TRAINING),
    ] = None,
    class_weights: Annotated[
        str, typer.Option(help="none, or balanced: rare classes weigh more.", rich_help_panel=TRAINING)
    ] = "none",
    precision: Annotated[str, typer.Option(help="float32, or mixed_bfloat16.", rich_help_panel=MODEL)] = "float32",
    augment: Annotated[
        bool, typer.Option(help="Images: rotation of 10 degrees, shifts of 10%.", rich_help_panel=DATA)
    ] = False,
    augment_strength: Annotated[
        float, typer.Option(help="Factor of these; few epochs want less.", rich_help_panel=DATA)
    ] = 1.0,
    flip: Annotated[bool, typer.Option(help="Images: mirror left and right as well.", rich_help_panel=DATA)] = False,
    adversarial_epsilon: Annotated[
        float, typer.Option(help="Train on FGSM examples of this size too; 0 for none.", rich_help_panel=TRAINING)
    ] = 0.0,
    tensorboard: Annotated[
        Path | None, typer.Option(help="Folder for TensorBoard files.", rich_help_panel=OUTPUT)
    ] = None,
    repair: Annotated[
        bool, typer.Option(help="Mend bad tag sequences; --no-repair refuses them.", rich_help_panel=DATA)
    ] = True,
    limit: Limit = None,
    labels: Annotated[
        int | None,
        typer.Option(
            help="Train with so many labels, validation included; the test stays whole. For `kcost next-dollar`.",
            rich_help_panel=DATA,
        ),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(help="Of weights, order, dropout, augmentation and the validation cut.", rich_help_panel=TRAINING),
    ] = 0,
    backend: BackendOption = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Train or fine-tune a model into an artifact folder; a run that was killed goes on where it stopped."""
    import kcost
    from kcost.cli import answers

    artifact = kcost.train(
        family,  # type: ignore[arg-type]  # checked by kcost.train
        data,
        out,
        name=name,
        backend=backend,  # type: ignore[arg-type]  # checked by kcost.train
        quiet=quiet,
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
        labels=labels,
        seed=seed,
        **({} if teacher is None else {"teacher": teacher}),
        **({} if distill is None else {"distill": distill}),
    )
    print_answer(json_, artifact, lambda console: answers.show_artifact(console, artifact, out, everything=all_))


@app.command(epilog=examples("kcost evaluate digits", "kcost evaluate my.keras --data my-images/"))
def evaluate(
    artifact: ModelArgument,
    data: Annotated[
        str | None, typer.Option(help="Name or path; default: what the model was trained on.", rich_help_panel=DATA)
    ] = None,
    attack: Annotated[
        str | None, typer.Option(help="Score under attack, and without: fgsm or pgd.", rich_help_panel=MEASURING)
    ] = None,
    epsilon: Annotated[
        str, typer.Option(help="With --attack: comma-separated sizes of the change.", rich_help_panel=MEASURING)
    ] = "0.1",
    output: OutputOption = None,
    task: TaskOption = None,
    threshold: ThresholdOption = None,
    auroc: Annotated[
        bool, typer.Option("--auroc", help="Binary: the area under the ROC curve as well.", rich_help_panel=MEASURING)
    ] = False,
    pixels: PixelsOption = None,
    limit: Limit = None,
    backend: BackendOption = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Score a model on the test split of a data set, as it is or under attack."""
    import kcost
    from kcost.cli import answers

    if attack is not None:
        plain_alone = {"--output": output, "--task": task, "--threshold": threshold, "--auroc": auroc or None}
        if given := [name for name, value in plain_alone.items() if value is not None]:
            raise typer.BadParameter(f"{', '.join(given)}: of scores without --attack alone", param_hint="--attack")
        sizes = numbers(epsilon)
        with progress(quiet) as on_progress:
            answer = kcost.attack(
                artifact,
                sizes,
                method=attack,
                data=data,
                backend=backend,  # type: ignore[arg-type]  # checked by kcost.attack
                limit=limit,
                pixels=pixels,
                on_progress=on_progress,
            )
        print_answer(json_, answer, lambda console: answers.show_attack(console, answer, everything=all_))
        return
    with progress(quiet) as on_progress:
        evaluation = kcost.evaluate(
            artifact,
            data=data,
            backend=backend,  # type: ignore[arg-type]  # checked there
            limit=limit,
            output=output,
            task=task,
            threshold=threshold,
            auroc=auroc,
            pixels=pixels,
            on_progress=on_progress,
        )
    print_answer(json_, evaluation, lambda console: answers.show_evaluation(console, evaluation, everything=all_))


@app.command(
    epilog=examples(
        "kcost search cnn --data fashion_mnist --trials 20 --out study",
        "kcost search bert --data texts.csv --minutes 60 --html study.html --out study",
    )
)
def search(
    family: Annotated[str, typer.Argument(help="cnn for images, bert for tagged sentences or labelled texts.")],
    data: Annotated[
        str, typer.Option(help="Name of a data set (`kcost data list`), or a path to your own.", rich_help_panel=DATA)
    ],
    out: Annotated[Path, typer.Option(help="Folder of the study; one that is there goes on.", rich_help_panel=OUTPUT)],
    trials: Annotated[
        int, typer.Option(help="Trials in all, over every process on the study.", rich_help_panel=SEARCH)
    ] = 20,
    minutes: Annotated[
        float | None, typer.Option(help="No trial begins after this time.", rich_help_panel=SEARCH)
    ] = None,
    objective: Annotated[
        str, typer.Option(help="Dollars per million inferences, or per training run.", rich_help_panel=SEARCH)
    ] = "inference",
    storage: Annotated[
        str | None, typer.Option(help="PostgreSQL or MySQL URL that many machines share.", rich_help_panel=SEARCH)
    ] = None,
    study: Annotated[str | None, typer.Option(help="Name of the study in the storage.", rich_help_panel=SEARCH)] = None,
    size: Annotated[
        str | None, typer.Option(help="Fixes the size; it is searched otherwise.", rich_help_panel=MODEL)
    ] = None,
    init: Annotated[
        Path | None, typer.Option(help="bert: checkpoint folder that trials start from.", rich_help_panel=MODEL)
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Most epochs of a trial; default: as `kcost train`.", rich_help_panel=TRAINING)
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Fixes it; it is searched otherwise.", rich_help_panel=TRAINING)
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Fixes it; it is searched otherwise.", rich_help_panel=TRAINING)
    ] = None,
    max_length: Annotated[
        int | None, typer.Option(help="bert: fixes it; it is searched otherwise.", rich_help_panel=DATA)
    ] = None,
    vocabulary_size: Annotated[
        int | None, typer.Option(help="bert: word pieces to learn, as `kcost train`.", rich_help_panel=DATA)
    ] = None,
    patience: Annotated[
        int | None, typer.Option(help="Early stopping of a trial, as `kcost train`.", rich_help_panel=TRAINING)
    ] = None,
    freeze: Annotated[
        str | None, typer.Option(help="Layers that keep their weights, as `kcost train`.", rich_help_panel=TRAINING)
    ] = None,
    limit: Limit = None,
    seed: Annotated[
        int | None, typer.Option(help="Of the search and of each trial; default 0.", rich_help_panel=SEARCH)
    ] = None,
    provider: Annotated[
        str | None, typer.Option(help="Price at this provider, such as aws.", rich_help_panel=PRICES)
    ] = None,
    region: Annotated[str | None, typer.Option(help="Price in this region.", rich_help_panel=PRICES)] = None,
    instance: Annotated[
        str | None, typer.Option(help="Price as this instance; default: the closest one.", rich_help_panel=PRICES)
    ] = None,
    prices: Annotated[Path | None, typer.Option(help="A price book of your own (CSV).", rich_help_panel=PRICES)] = None,
    html: Annotated[
        Path | None, typer.Option(help="Write one self-contained page here.", rich_help_panel=OUTPUT)
    ] = None,
    backend: BackendOption = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Search hyperparameters: score on validation data against predicted dollars."""
    import kcost
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
    with progress(quiet) as on_progress:
        result = kcost.run_search(
            family,  # type: ignore[arg-type]  # checked by kcost.run_search
            data,
            out,
            backend=backend,  # type: ignore[arg-type]  # checked by kcost.run_search
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
    print_answer(json_, result, lambda console: show_search(console, result, everything=all_))


@app.command(
    epilog=examples(
        "kcost optimize digits --out digits-int8 --int8 static",
        "kcost optimize my.keras --out smaller --int8 dynamic --data my-images/",
    )
)
def optimize(
    artifact: ModelArgument,
    out: Annotated[
        Path,
        typer.Option(
            help="Artifact folder to make; OUT-refused where the model lost too much.", rich_help_panel=OUTPUT
        ),
    ],
    prune: Annotated[
        str | None,
        typer.Option(
            help="magnitude:0.5[,global][,schedule=polynomial], 2:4, block:1x4:0.5, "
            "structured:ffn=0.5,heads=0.33,filters=0.5; importance=taylor may follow.",
            rich_help_panel=MODEL,
        ),
    ] = None,
    int8: Annotated[
        str | None, typer.Option(help="dynamic, static, weight-only, or keras to compare.", rich_help_panel=MODEL)
    ] = None,
    bfloat16: Annotated[
        bool, typer.Option(help="Products in bfloat16; needs no calibration.", rich_help_panel=MODEL)
    ] = False,
    max_drop: Annotated[
        float, typer.Option(help="Largest drop of the score that is allowed, of 1.", rich_help_panel=MEASURING)
    ] = 0.01,
    data: Annotated[
        str | None, typer.Option(help="Name or path; default: what the model was trained on.", rich_help_panel=DATA)
    ] = None,
    skip: Annotated[
        str | None, typer.Option(help="Comma-separated names or patterns of layers to leave.", rich_help_panel=MODEL)
    ] = None,
    epochs: Annotated[
        int, typer.Option(help="Of fine-tuning with --prune; 0 prunes once.", rich_help_panel=TRAINING)
    ] = 3,
    batch_size: Annotated[
        int | None, typer.Option(help="Of fine-tuning; default: as trained, else 32.", rich_help_panel=TRAINING)
    ] = None,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Default: as trained, else 1e-3 for images, 5e-5 for texts.", rich_help_panel=TRAINING),
    ] = None,
    flip: Annotated[
        bool | None,
        typer.Option(
            "--flip/--no-flip", help="Images: mirror left and right; default: as trained.", rich_help_panel=TRAINING
        ),
    ] = None,
    distill: Annotated[
        float,
        typer.Option(help="Share of the loss that goes by the model's own answers before.", rich_help_panel=TRAINING),
    ] = 0.5,
    calibration_examples: Annotated[
        int, typer.Option(help="Training examples that static int8 looks at.", rich_help_panel=DATA)
    ] = 256,
    batches: Annotated[
        str, typer.Option(help="Comma-separated batch sizes to measure before and after.", rich_help_panel=MEASURING)
    ] = "1,32",
    threads: Annotated[
        int,
        typer.Option(
            help="CPU threads to measure with; 0 is every core, or as many as a CPU quota allows.",
            rich_help_panel=MEASURING,
        ),
    ] = 0,
    rounds: Annotated[
        int, typer.Option(help="Rounds in which both models have a turn.", rich_help_panel=MEASURING)
    ] = 10,
    name: Annotated[str | None, typer.Option(help="Name of the new model.", rich_help_panel=MODEL)] = None,
    output: OutputOption = None,
    task: TaskOption = None,
    threshold: ThresholdOption = None,
    pixels: PixelsOption = None,
    limit: Limit = None,
    seed: Annotated[int, typer.Option(help="Of order, dropout and sampled rows.", rich_help_panel=TRAINING)] = 0,
    backend: BackendOption = None,
    all_: All = False,
    quiet: Quiet = False,
    json_: Json = False,
) -> None:
    """Prune and quantize a model, measure it before and after, and say whether it paid."""
    import kcost
    from kcost.cli import answers

    if int8 is not None and bfloat16:
        raise typer.BadParameter("a model gets one precision", param_hint="--int8 and --bfloat16")
    with progress(quiet) as on_progress:
        payoff = kcost.run_optimize(
            artifact,
            out,
            max_drop=max_drop,
            backend=backend,  # type: ignore[arg-type]  # checked by kcost.run_optimize
            batches=[int(b) for b in numbers(batches)],
            threads=threads,
            rounds=rounds,
            on_progress=on_progress,
            name=name,
            prune=prune,
            quantize="bfloat16" if bfloat16 else int8,
            data=data,
            pixels=pixels,
            skip=tuple(parts(skip) or ()),
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=learning_rate,
            flip=flip,
            distill=distill,
            calibration_examples=calibration_examples,
            output=output,
            task=task,
            threshold=threshold,
            limit=limit,
            seed=seed,
        )
    print_answer(json_, payoff, lambda console: answers.show_payoff(console, payoff, everything=all_))
    if payoff.refused:
        raise typer.Exit(1)
