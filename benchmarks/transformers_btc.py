"""kcost beside transformers on the Broad Twitter Corpus: the same checkpoint, data and settings.

    python benchmarks/transformers_btc.py score CHECKPOINT    F1 of transformers after 3 epochs of a plain torch loop
    python benchmarks/transformers_btc.py speed CHECKPOINT    sentences a second, paired: turns in one run

CHECKPOINT is a Hugging Face BERT folder. Both get the same pieces and labels: only model and training differ.
The loop of transformers pads each batch to its longest sentence, as the collator of its token classification example
does (`longest`), or to max_length (`full`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from kcost.core.stats import paired_ratio

MAX_LENGTH, BATCH, EPOCHS, RATE, WARMUP = 64, 32, 3, 1e-4, 0.1
BATCHES_A_TURN = 16


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("score", "speed", "child"))
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--backends", default="jax,torch,tensorflow", help="of kcost, for speed")
    parser.add_argument("--precision", default="float32", help="of kcost, for speed: float32 or mixed_bfloat16")
    parser.add_argument("--no-jit", action="store_true", help="of kcost, for speed: without Keras's choice of XLA")
    parser.add_argument("--who", help=argparse.SUPPRESS)
    options = parser.parse_args()
    {"score": score, "speed": speed, "child": child}[options.what](options)


def speed(options: argparse.Namespace) -> None:
    """Gives each trainer turns of as many batches, in shuffled order, and prints the paired ratios."""
    who = ["transformers-longest", "transformers-full", *(f"kcost-{b}" for b in options.backends.split(","))]
    workers = {name: _Worker(name, options) for name in who}
    ready_s = {name: worker.turn() for name, worker in workers.items()}  # compiles each shape once
    rates: dict[str, list[float]] = {name: [] for name in who}
    shuffle = np.random.default_rng(0).permutation
    for number in range(options.rounds):
        for name in shuffle(who):
            rates[name].append(BATCHES_A_TURN * BATCH / workers[name].turn())
        print(f"round {number + 1} of {options.rounds}", file=sys.stderr)
    for name in who:
        row = {
            "trainer": name,
            "sentences_per_s": round(statistics.median(rates[name]), 1),
            "first_pass_s": ready_s[name],
        }
        for base in ("transformers-longest", "transformers-full"):
            if name != base:
                ratio = paired_ratio([1 / r for r in rates[base]], [1 / r for r in rates[name]])
                row[f"times_{base}"] = [round(v, 2) for v in (ratio.value, ratio.low, ratio.high)]
        print(json.dumps(row))
    for worker in workers.values():
        worker.close()


class _Worker:
    """A trainer in a process of its own, which does nothing until it is given a turn."""

    def __init__(self, name: str, options: argparse.Namespace) -> None:
        backend = name.removeprefix("kcost-") if name.startswith("kcost-") else "torch"
        command = [
            sys.executable,
            __file__,
            "child",
            str(options.checkpoint),
            "--who",
            name,
            "--precision",
            options.precision,
        ]
        command += ["--no-jit"] if options.no_jit else []
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "KERAS_BACKEND": backend},
        )

    def turn(self) -> float:
        """Seconds that the trainer's next batches took."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write("go\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def child(options: argparse.Namespace) -> None:
    """Answers each line on standard input with the seconds of one turn; the first turn compiles."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a framework prints is no answer
    if options.who.startswith("kcost-"):
        warm_up, turn = _kcost_trainer(options)
    else:
        warm_up, turn = _transformers_trainer(options, full=options.who.endswith("full"))
    for number, _ in enumerate(sys.stdin):
        start = time.perf_counter()
        if number:
            turn()
        else:
            warm_up()
        answers.write(f"{time.perf_counter() - start}\n")
        answers.flush()


def _kcost_trainer(options: argparse.Namespace) -> tuple[Any, Any]:
    """kcost's own training step, batches and optimizer."""
    import keras

    from kcost.models.precision import with_precision
    from kcost.training.losses import loss_of
    from kcost.training.optimizer import make_optimizer
    from kcost.worker.train import make

    request = _request(options)
    task, plain = make(request)
    model = with_precision(plain, request.precision)
    batches = task.batches("train", BATCH, seed=0)
    steps = EPOCHS * len(batches)
    jit = False if options.no_jit else "auto"
    loss = loss_of(task.answers.main)
    model.compile(optimizer=make_optimizer(model, request, RATE, steps), loss=loss, jit_compile=jit)

    class Part(keras.utils.PyDataset):  # type: ignore[misc]  # keras has no types
        """Some batches of the epoch."""

        def __init__(self, indices: list[int]) -> None:
            super().__init__()
            self._indices = indices

        def __len__(self) -> int:
            return len(self._indices)

        def __getitem__(self, index: int) -> Any:
            return batches[self._indices[index]]

    full = [i for i in range(len(batches)) if len(batches.rows(i)[0]) == BATCH]
    a_shape_each = list({batches.rows(i)[1]: i for i in full}.values())
    first = Part(a_shape_each * 2)
    place = iter(full * 100)

    def turn() -> None:
        part = [next(place) for _ in range(BATCHES_A_TURN)]
        # The tensorflow trainer takes an axis for fixed unless the first two batches differ in it.
        other = next((i for i in part if batches.rows(i)[1] != batches.rows(part[0])[1]), part[1])
        part.remove(other)
        part.insert(1, other)
        model.fit(Part(part), epochs=1, shuffle=False, verbose=0)

    return lambda: model.fit(first, epochs=1, shuffle=False, verbose=0), turn


def _request(options: argparse.Namespace) -> Any:
    from kcost.core.request import TrainRequest

    return TrainRequest(
        family="bert",
        data="btc",
        out=Path("unused"),
        name="btc",
        init=options.checkpoint.absolute(),
        epochs=EPOCHS,
        batch_size=BATCH,
        max_length=MAX_LENGTH,
        learning_rate=RATE,
        schedule="linear",
        warmup_fraction=WARMUP,
        clip_norm=1.0,
        precision=options.precision,
        usd_per_hour=1.0,
        usd_basis="not used",
    )


class _TransformersLoop:
    """BertForTokenClassification in the plain torch loop: AdamW, linear warm-up and decay, clipping."""

    def __init__(self, options: argparse.Namespace, *, full: bool) -> None:
        import torch
        import transformers

        from kcost import data
        from kcost.data.tokenizer_files import read_tokenizer

        torch.manual_seed(0)
        self.data = data.load("btc", seed=0)
        pieces = read_tokenizer(options.checkpoint)
        self.encoded = {
            s: pieces.encode(self.data.splits[s], self.data.tag_names, MAX_LENGTH) for s in ("train", "test")
        }
        self.full = full
        self.model = transformers.BertForTokenClassification.from_pretrained(
            options.checkpoint, num_labels=len(self.data.tag_names)
        )
        decayed = [p for p in self.model.parameters() if p.ndim > 1]
        spared = [p for p in self.model.parameters() if p.ndim <= 1]
        self.optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}], lr=RATE
        )
        steps = EPOCHS * -(-len(self.encoded["train"]) // BATCH)
        self.schedule = transformers.get_linear_schedule_with_warmup(self.optimizer, round(WARMUP * steps), steps)
        self.model.train()

    def step(self, rows: np.ndarray) -> None:
        """One optimizer step on these sentences."""
        import torch

        encoded = self.encoded["train"]
        length = MAX_LENGTH if self.full else int(encoded.lengths[rows].max())
        labels = encoded.labels[rows, :length].astype(np.int64)
        labels[labels < 0] = -100  # what transformers leaves out of the loss
        loss = self.model(
            input_ids=torch.from_numpy(encoded.token_ids[rows, :length]).long(),
            attention_mask=torch.from_numpy(encoded.padding_mask[rows, :length]).long(),
            labels=torch.from_numpy(labels),
        ).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()

    def epoch(self, number: int) -> list[np.ndarray]:
        """The rows of each batch of an epoch, shuffled."""
        order = np.random.default_rng((0, number)).permutation(len(self.encoded["train"]))
        return [order[i : i + BATCH] for i in range(0, len(order), BATCH)]


def _transformers_trainer(options: argparse.Namespace, *, full: bool) -> tuple[Any, Any]:
    loop = _TransformersLoop(options, full=full)
    place = iter([rows for number in range(50) for rows in loop.epoch(number) if len(rows) == BATCH])

    def turn(batches: int = BATCHES_A_TURN) -> None:
        for _ in range(batches):
            loop.step(next(place))

    return lambda: turn(4), turn


def score(options: argparse.Namespace) -> None:
    """Trains with transformers and prints the strict entity F1 on the test split."""
    import torch

    from kcost.core.entities import entity_counts
    from kcost.core.scores import entity_f1_of

    loop = _TransformersLoop(options, full=False)
    start = time.perf_counter()
    for number in range(EPOCHS):
        for rows in loop.epoch(number):
            loop.step(rows)
        print(f"epoch {number + 1} of {EPOCHS}: {time.perf_counter() - start:.0f} s", file=sys.stderr)
    loop.model.eval()
    encoded = loop.encoded["test"]
    predictions = np.zeros_like(encoded.labels)
    with torch.inference_mode():
        for i in range(0, len(encoded), 128):
            logits = loop.model(
                input_ids=torch.from_numpy(encoded.token_ids[i : i + 128]).long(),
                attention_mask=torch.from_numpy(encoded.padding_mask[i : i + 128]).long(),
            ).logits
            predictions[i : i + 128] = logits.argmax(-1).numpy()
    counts = entity_counts(encoded.labels, predictions, encoded.unseen_labels, loop.data.tag_names)
    f1 = entity_f1_of(counts, "test")
    print(json.dumps(f1.model_dump()))


if __name__ == "__main__":
    main()
