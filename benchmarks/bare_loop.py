"""kcost's forward time against a bare loop by hand, in turns: KERAS_BACKEND=jax python benchmarks/bare_loop.py MODEL

The loop imports nothing of kcost: it loads the .keras file, compiles the forward pass as a user of the backend would,
and times it over the same batches, numpy in, numpy out. Both run in processes of their own, one at a time, in shuffled
order; the ratio is taken round by round.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kcost.bench.pool import Pool
    from kcost.core.request import MeasureRequest

METHODS = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}


def by_hand(keras_file: str, samples_file: str, batch: int) -> None:
    """The child: a line with a time in, a line with the durations of steps out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a framework prints
    import keras
    import numpy as np

    model = keras.saving.load_model(keras_file)
    with np.load(samples_file) as file:
        arrays = {name: file[name] for name in file.files if name not in ("labels", "unseen_labels")}
    count = min(8, len(next(iter(arrays.values()))) // batch)
    batches = [
        {k: np.ascontiguousarray(a[i * batch : (i + 1) * batch]) for k, a in arrays.items()} for i in range(count)
    ]
    single = not isinstance(model.input, dict)
    forward = compiled(model)

    def step(i: int) -> None:
        inputs = batches[i % count]
        np.asarray(forward(next(iter(inputs.values())) if single else inputs))

    timed(step, 1.0)
    for line in sys.stdin:
        print(json.dumps(timed(step, float(line))), file=answers, flush=True)


def compiled(model: Any) -> Any:
    import keras

    if keras.backend.backend() == "jax":
        import jax

        weights = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        call = jax.jit(lambda t, n, x: model.stateless_call(t, n, x, training=False)[0])
        return lambda x: call(*weights, x)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        call = tf.function(lambda x: model(x, training=False))
        return lambda x: call(tf.nest.map_structure(tf.convert_to_tensor, x)).numpy()
    import torch

    def forward(x: Any) -> Any:
        with torch.inference_mode():
            tensors = {k: torch.from_numpy(v) for k, v in x.items()} if isinstance(x, dict) else torch.from_numpy(x)
            return model(tensors, training=False).numpy()

    return forward


def timed(step: Any, seconds: float) -> list[int]:
    durations_ns, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        step(len(durations_ns))
        durations_ns.append(time.perf_counter_ns() - start)
    return durations_ns


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="an artifact folder")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument(
        "--launches", type=int, default=1, help="times that both start anew: memory lies elsewhere then"
    )
    parser.add_argument("--round-s", type=float, default=0.15)
    given = parser.parse_args()

    from kcost.bench.pool import Pool
    from kcost.bench.runner import request_for
    from kcost.core.artifact import open_model
    from kcost.core.plan import Plan, expand
    from kcost.core.process import chosen_backend
    from kcost.core.stats import location, median_per_round

    backend, model = chosen_backend(), open_model(given.model)
    axes = {"backends": [backend], "precisions": ["float32"], "batches": [given.batch], "phases": ["inference"]}
    settings = {"round_s": given.round_s, "warmup_s": 1.0}
    plan = Plan.parse({"models": [str(given.model)], "methods": [METHODS[backend]], "settings": settings, **axes})
    (spec,) = expand(plan, {model.name: model.sha256})
    if model.samples_file is None:
        parser.error("the model needs samples: name an artifact folder")
    arguments = [str(model.keras_file), str(model.samples_file), str(given.batch)]
    order = random.Random(0)
    ratios: list[float] = []
    for _ in range(given.launches):
        with tempfile.TemporaryDirectory() as folder, Pool(Path(folder), plan.settings) as pool:
            request = request_for(spec, model, plan.settings, Path(folder))
            pool.prepare(request)
            ours, theirs = in_turns(pool, request, arguments, given.rounds, order)
        ratios.extend(median_per_round(ours) / median_per_round(theirs))
    ratio = location(ratios)
    print(
        f"{spec.label}: kcost over the bare loop {ratio.value:.4f} (95%: {ratio.low:.4f} to {ratio.high:.4f}), "
        f"{len(ratios)} paired rounds in {given.launches} launches of both"
    )


def in_turns(
    pool: Pool, request: MeasureRequest, arguments: list[str], rounds: int, order: random.Random
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """Durations of steps in each round, kcost's and the bare loop's."""
    from kcost.core.process import worker_environment

    child = subprocess.Popen(
        [sys.executable, __file__, "--by-hand", *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=worker_environment(request.spec.backend, 0, str(request.outputs_file.parent), "cpu"),
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    ours: list[tuple[int, ...]] = []
    theirs: list[tuple[int, ...]] = []
    for number in range(-2, rounds):  # the first two warm up both
        for turn in order.sample(("ours", "theirs"), 2):
            if turn == "ours":
                steps = pool.measure(request, "bare-loop", number + 2).step_ns
            else:
                print(request.settings.round_s, file=child.stdin, flush=True)
                steps = tuple(json.loads(child.stdout.readline()))
            if number >= 0:
                (ours if turn == "ours" else theirs).append(steps)
    child.stdin.close()
    child.wait()
    return ours, theirs


if __name__ == "__main__":
    if sys.argv[1:2] == ["--by-hand"]:
        by_hand(sys.argv[2], sys.argv[3], int(sys.argv[4]))
    else:
        main()
