"""Ways to call a model, in turns with its cell: KERAS_BACKEND=jax python benchmarks/ways_to_call.py MODEL WAY...

The cell is what kcost's measuring worker times. The ways beside it, each in a process of its own:

- `loop`: a loop by hand, which compiles the forward pass as a user of the backend would and imports nothing of kcost
  but its layers, where the file has some;
- `load`: `kcost.load`;
- `code`: the program of `kcost code`;
- `predict`: the model's `predict`;
- `call`: `model(x)`, as in a notebook.

All of them take the same batches, numpy in, numpy out. One runs at a time, in shuffled order; the ratios are taken
round by round.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kcost.core.plan import CellSpec

LAYERS = tuple(
    f"kcost.optimize.{m}"
    for m in ("forms.layers", "forms.conv_layers", "forms.conv_chain", "forms.encoder_block", "rewrite")
)
"""What registers kcost's layers, for a file that has some."""

METHODS = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}
WAYS = ("loop", "load", "code", "predict", "call")
Forward = Callable[[Any], Any]


def run_way(way: str, keras_file: str, samples_file: str, batch: int, method: str) -> None:
    """The child: a line with a time in, a line with the durations of steps out."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a framework prints
    import numpy as np

    with np.load(samples_file) as file:
        arrays = {name: file[name] for name in file.files if name not in ("labels", "unseen_labels")}
    count = min(8, len(next(iter(arrays.values()))) // batch)
    batches = [
        {k: np.ascontiguousarray(a[i * batch : (i + 1) * batch]) for k, a in arrays.items()} for i in range(count)
    ]
    forward = forward_of(way, keras_file, batch, method)

    def step(i: int) -> None:
        np.asarray(forward(batches[i % count]))

    timed(step, 1.0)
    for line in sys.stdin:
        print(json.dumps(timed(step, float(line))), file=answers, flush=True)


def forward_of(way: str, keras_file: str, batch: int, method: str) -> Forward:
    """The forward pass over a batch, a dict of arrays."""
    if way == "load":
        import kcost

        return kcost.load(keras_file, backend=os.environ["KERAS_BACKEND"], method=method, batch=batch)
    if way == "code":
        names: dict[str, Any] = {}
        exec(program_text(keras_file, batch, method), names)  # it is kcost's own
        program: Forward = names["forward"]
        return program if "model" not in names else (lambda inputs: program(arranged(names["model"], inputs)))
    import keras

    with zipfile.ZipFile(keras_file) as archive:
        if b'"kcost' in archive.read("config.json"):
            for module in LAYERS:
                importlib.import_module(module)
    model = keras.saving.load_model(keras_file, compile=False)
    if way == "predict":
        return lambda inputs: model.predict(arranged(model, inputs), batch_size=batch, verbose=0)
    function = compiled(model, method) if way == "loop" else called(model)
    return lambda inputs: function(arranged(model, inputs))


def program_text(keras_file: str, batch: int, method: str) -> str:
    from kcost.core.plan import CellSpec
    from kcost.report.program import program_of

    spec = CellSpec(
        model="model",
        model_sha256="0" * 64,
        backend=os.environ["KERAS_BACKEND"],
        device="cpu",
        precision="float32",
        batch=batch,
        phase="inference",
        method=method,
        threads=0,
    )
    return program_of(spec, None, Path(keras_file), None).text


def arranged(model: Any, inputs: dict[str, Any]) -> Any:
    return inputs if isinstance(model.input, dict) else next(iter(inputs.values()))


def called(model: Any) -> Forward:
    import keras

    return lambda x: keras.ops.convert_to_numpy(model(x))


def compiled(model: Any, method: str) -> Forward:
    import keras

    if keras.backend.backend() == "jax":
        import jax

        weights = [v.value for v in model.trainable_variables], [v.value for v in model.non_trainable_variables]
        call = jax.jit(lambda t, n, x: model.stateless_call(t, n, x, training=False)[0])
        return lambda x: call(*weights, x)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        call = tf.function(lambda x: model(x, training=False), jit_compile=method == "xla")
        return lambda x: call(tf.nest.map_structure(tf.convert_to_tensor, x)).numpy()
    import torch

    def forward(x: Any) -> Any:
        with torch.inference_mode():
            tensors = {k: torch.from_numpy(v) for k, v in x.items()} if isinstance(x, dict) else torch.from_numpy(x)
            return model(tensors, training=False).numpy()

    return forward


def timed(step: Callable[[int], None], seconds: float) -> list[int]:
    durations_ns, end = [], time.perf_counter() + seconds
    while time.perf_counter() < end:
        start = time.perf_counter_ns()
        step(len(durations_ns))
        durations_ns.append(time.perf_counter_ns() - start)
    return durations_ns


class Child:
    """A process that calls the model one way, whenever it is its turn."""

    def __init__(self, way: str, spec: CellSpec, files: list[str], folder: str) -> None:
        from kcost.core.process import worker_environment

        self._process = subprocess.Popen(
            [sys.executable, __file__, "--child", way, *files, str(spec.batch), str(spec.method)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=worker_environment(spec.backend, 0, folder, "cpu"),
            text=True,
        )

    def steps(self, seconds: float) -> tuple[int, ...]:
        """Durations, ns."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(seconds, file=self._process.stdin, flush=True)
        return tuple(json.loads(self._process.stdout.readline()))

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


@contextlib.contextmanager
def children(ways: list[str], spec: CellSpec, files: list[str]) -> Iterator[dict[str, Child]]:
    with tempfile.TemporaryDirectory() as folder:
        started = {way: Child(way, spec, files, folder) for way in ways}
        try:
            yield started
        finally:
            for child in started.values():
                child.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, help="an artifact folder")
    parser.add_argument("ways", nargs="+", choices=WAYS, metavar="WAY", help=", ".join(WAYS))
    parser.add_argument("--method", help="of the cell; the backend's ordinary one where it is left out")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--launches", type=int, default=1, help="times that all start anew: memory lies elsewhere then")
    parser.add_argument("--round-s", type=float, default=0.15)
    given = parser.parse_args()

    from kcost.bench.plan_models import request_for
    from kcost.bench.pool import Pool
    from kcost.core.artifact import open_model
    from kcost.core.plan import Plan, expand
    from kcost.core.process import chosen_backend
    from kcost.core.stats import location, median_per_round

    backend, model = chosen_backend(), open_model(given.model)
    method = given.method or METHODS[backend]
    axes = {"backends": [backend], "precisions": ["float32"], "batches": [given.batch], "phases": ["inference"]}
    settings = {"round_s": given.round_s, "warmup_s": 1.0}
    plan = Plan.parse({"models": [str(given.model)], "methods": [method], "settings": settings, **axes})
    (spec,) = expand(plan, {model.name: model.sha256})
    if model.samples_file is None:
        parser.error("the model needs samples: name an artifact folder")
    files = [str(model.keras_file), str(model.samples_file)]
    order, ratios = random.Random(0), {way: list[float]() for way in given.ways}
    for _ in range(given.launches):
        with tempfile.TemporaryDirectory() as folder, Pool(Path(folder), plan.settings) as pool:
            request = request_for(spec, model, plan.settings, Path(folder))
            pool.prepare(request)
            with children(given.ways, spec, files) as started:
                durations: dict[str, list[tuple[int, ...]]] = {turn: [] for turn in ("cell", *given.ways)}
                for number in range(given.rounds + 2):
                    for turn in order.sample(list(durations), len(durations)):
                        if turn == "cell":
                            steps = pool.measure(request, "ways-to-call", number).step_ns
                        else:
                            steps = started[turn].steps(given.round_s)
                        if number > 1:  # the first two warm all of them up
                            durations[turn].append(steps)
        cell = median_per_round(durations.pop("cell"))
        for way, rounds in durations.items():
            ratios[way].extend(median_per_round(rounds) / cell)
    for way, values in ratios.items():
        ratio = location(values)
        print(
            f"{spec.label}: {way} over the cell {ratio.value:.4f} (95%: {ratio.low:.4f} to {ratio.high:.4f}), "
            f"{len(values)} paired rounds in {given.launches} launches of all"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        way, keras_file, samples_file, batch, method = sys.argv[2:]
        run_way(way, keras_file, samples_file, int(batch), method)
    else:
        main()
