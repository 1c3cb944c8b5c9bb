"""Encoder blocks and chains of convolutions in two checkouts, in turns: what a change of kernels does to their speed.

    python benchmarks/paired_kernels.py OLD NEW [--backends torch,jax,tensorflow] [--rounds 9]

OLD and NEW are folders of kcost. Each round measures both, each in a process of its own, the first of them by turns. A
ratio below 1 is faster. The spread of the rounds says what the machine makes of it: on one that others use, a few per
cent are noise.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from time import perf_counter_ns
from typing import Any

METHODS = {"tensorflow": "graph", "jax": "jit", "torch": "eager"}
BATCHES = {1: 60, 16: 20}
"""Batch size -> steps that are timed."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--backends", default="torch,jax,tensorflow")
    parser.add_argument("--rounds", type=int, default=9)
    arguments = parser.parse_args()
    for backend in arguments.backends.split(","):
        steps_ms: dict[str, list[dict[str, float]]] = {"old": [], "new": []}
        for number in range(arguments.rounds):
            for side in ("old", "new") if number % 2 == 0 else ("new", "old"):
                steps_ms[side].append(measured_in(getattr(arguments, side).resolve(), backend))
        for name in steps_ms["old"][0]:
            ratios = [new[name] / old[name] for old, new in zip(steps_ms["old"], steps_ms["new"], strict=True)]
            old_ms = statistics.median(old[name] for old in steps_ms["old"])
            spread = f"{min(ratios):.3f} to {max(ratios):.3f}"
            print(f"{backend} {name}: {old_ms:.3f} ms, times {statistics.median(ratios):.3f} ({spread})", flush=True)


def measured_in(checkout: Path, backend: str) -> dict[str, float]:
    """Median milliseconds of a step, by what runs."""
    environment = {**os.environ, "PYTHONPATH": str(checkout), "KERAS_BACKEND": backend, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", f"import runpy; runpy.run_path({__file__!r}, run_name='measure')"]
    return json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


def measure(backend: str) -> dict[str, float]:
    from kcost.worker.isolate import hide

    hide(tuple(name for name in METHODS if name != backend))
    import keras
    import numpy as np

    from kcost.backends import driver
    from kcost.backends.block_spec import BlockSpec
    from kcost.backends.chain_spec import ChainSpec, Stage
    from kcost.optimize.forms.conv_chain import ConvolutionChain
    from kcost.optimize.forms.encoder_block import EncoderBlock

    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    block = EncoderBlock(BlockSpec(256, 4, 64, 1024))
    first = Stage((3, 3, 16, 32), relu=True, padding="same", pool=(2, 2), pool_strides=(2, 2))
    chain = ConvolutionChain(ChainSpec((first, Stage((3, 3, 32, 32), padding="same"))))
    for layer in (block, chain):
        layer.build()
    for name, variable in chain.parts.items():
        if name.startswith("kernel"):
            variable.assign(0.1 * rng.normal(size=variable.shape).astype("float32"))
    places = np.full(256, 4.0, np.float32)
    ranges = {"input": places, "context": 4.0, "attended": places, "hidden": 4.0}
    forms: dict[str, tuple[Any, tuple[int, ...]]] = {
        **{f"block {c}": (block.converted(c, ranges), (64, 256)) for c in ("bfloat16", "int8_dynamic", "int8_static")},
        **{f"chain {c}": (chain.converted(c, [4.0, 8.0]), (32, 32, 16)) for c in ("bfloat16", "int8_static")},
        "block float32": (block, (64, 256)),
        "chain float32": (chain, (32, 32, 16)),
    }
    own, steps_ms = driver(backend), {}
    for name, (layer, shape) in sorted(forms.items()):
        inputs = keras.Input(shape, name="x")
        model = keras.Model(inputs, layer(inputs))
        for batch, count in BATCHES.items():
            step, rows = own.compile_forward(model, METHODS[backend]), rng.normal(size=(batch, *shape))
            given, times_ns = {"x": rows.astype("float32")}, []
            for _ in range(8 + count):
                start_ns = perf_counter_ns()
                own.to_host(step(given))
                times_ns.append(perf_counter_ns() - start_ns)
            steps_ms[f"{name}, batch {batch}"] = statistics.median(times_ns[8:]) / 1e6
    return steps_ms


if __name__ == "__main__":
    main()
elif __name__ == "measure":
    sys.stdout.write(json.dumps(measure(os.environ["KERAS_BACKEND"])))
