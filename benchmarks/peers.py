"""The fastest file that kcost makes of a model against int8 by the runtimes' own converters, in turns of one process.

    python benchmarks/peers.py MODEL OUT [--static FILE.keras] [--batches 1,32] [--threads 1] [--rounds 10]

MODEL is an artifact folder or a float32 `.keras` file; --static names the same model after `kcost optimize --int8
static`, which becomes a SavedModel. A peer's way uses nothing of kcost to convert: PyTorch's ONNX exporter, then ONNX
Runtime's quantizer or OpenVINO's reader with NNCF. All files are run by the same code, on the same made-up inputs (128
word pieces a sentence for a tagger). Files are kept in OUT.
"""

from __future__ import annotations

import argparse
import functools
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

CALIBRATION_ROWS = 64
CALIBRATION_BATCH = 4
INPUTS_FILE = "inputs.npz"


def make_peers(keras_file: Path, folder: Path) -> None:
    """The child, in a torch process: made-up inputs and the peers' files."""
    import keras
    import keras_nlp  # noqa: F401 -- registers its layers
    import openvino
    import torch
    from onnxruntime.quantization import quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    from kcost.worker.inputs import make_samples

    os.environ["NNCF_CI"] = "1"  # or it reports each use to its maker
    import nncf

    model = keras.saving.load_model(keras_file, compile=False)
    inputs = make_samples(model, CALIBRATION_ROWS, 0).inputs
    np.savez(folder / INPUTS_FILE, allow_pickle=False, **inputs)
    names = list(inputs)

    class Flat(torch.nn.Module):  # type: ignore[misc]  # torch is not read by the type checker
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: Any) -> Any:
            return self.model(dict(zip(names, tensors, strict=True)), training=False)

    example = tuple(torch.from_numpy(inputs[name][:3]) for name in names)
    sizes = {tensor.name: tensor.shape for tensor in model.inputs}
    free = tuple({i: torch.export.Dim.DYNAMIC for i, n in enumerate(sizes[name]) if n is None} for name in names)
    with torch.no_grad():
        program = torch.export.export(Flat().eval(), example, dynamic_shapes={"tensors": free}, strict=False)
        plain = folder / "plain.onnx"
        torch.onnx.export(program, (), str(plain), input_names=names, dynamo=True, external_data=False, verbose=False)
    prepared = folder / "prepared.onnx"
    quant_pre_process(plain, prepared, skip_symbolic_shape=True)  # it does not get through this graph
    quantize_dynamic(prepared, folder / "onnxruntime-int8-dynamic.onnx")
    read = openvino.Core().read_model(plain)
    feeds = [
        {name: array[start : start + CALIBRATION_BATCH] for name, array in inputs.items()}
        for start in range(0, CALIBRATION_ROWS, CALIBRATION_BATCH)
    ]
    kind = nncf.ModelType.TRANSFORMER if any(x.get_type_name() == "MVN" for x in read.get_ops()) else None
    quantized = nncf.quantize(read, nncf.Dataset(feeds), subset_size=len(feeds), model_type=kind)
    openvino.save_model(quantized, folder / "openvino-int8.xml", compress_to_fp16=False)


def entrants(given: argparse.Namespace) -> tuple[dict[str, Callable[..., Any]], dict[str, Callable[..., Any]]]:
    """Name -> a function of inputs by name: what kcost makes, and the peers."""
    from kcost.core.artifact import open_model
    from kcost.core.process import worker_environment
    from kcost.forward.runtime_driver import RuntimeDriver
    from kcost.runtimes.base import open_file
    from kcost.ship.convert import converted

    model = open_model(given.model)
    peers_folder = given.out / "peers"
    if not (peers_folder / "openvino-int8.xml").exists():
        peers_folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "--make-peers", str(model.keras_file), str(peers_folder)]
        subprocess.run(command, env=worker_environment("torch", 0, str(peers_folder), "cpu"), check=True)
    wanted: list[tuple[str, Any, Any, Any]] = [
        ("openvino int8", model, "openvino", "int8"),
        ("openvino bfloat16", model, "openvino", "bfloat16"),
        ("onnx int8_dynamic", model, "onnx", "int8_dynamic"),
        ("litert int8_dynamic", model, "litert", "int8_dynamic"),
    ]
    if given.static is not None:
        wanted.append(("saved_model int8 static", open_model(given.static), "saved_model", "float32"))
    ours: dict[str, Callable[..., Any]] = {}
    for name, source, runtime, precision in wanted:
        driver = RuntimeDriver(runtime)
        driver.set_threads(given.threads)
        ours[name] = driver.load(converted(source, runtime, precision, given.out / "kcost"), precision).run
    files: list[tuple[str, Any]] = [("onnxruntime-int8-dynamic.onnx", "onnx"), ("openvino-int8.xml", "openvino")]
    theirs = {
        file: open_file(runtime, peers_folder / file, threads=given.threads, precision="int8").run
        for file, runtime in files
    }
    return ours, theirs


def in_turns(steps: dict[str, Callable[[], Any]], rounds: int, round_s: float) -> dict[str, list[tuple[int, ...]]]:
    """Durations of steps in each round, each entrant once a round in an order of chance."""
    order = random.Random(0)
    taken: dict[str, list[tuple[int, ...]]] = {name: [] for name in steps}
    for number in range(-1, rounds):  # the first warms up
        for name in order.sample(list(steps), len(steps)):
            durations_ns: list[int] = []
            end = time.perf_counter() + round_s
            while time.perf_counter() < end or len(durations_ns) < 2:
                start = time.perf_counter_ns()
                steps[name]()
                durations_ns.append(time.perf_counter_ns() - start)
            if number >= 0:
                taken[name].append(tuple(durations_ns))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--static", type=Path, help="the model's .keras file in static int8")
    parser.add_argument("--batches", default="1,32")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--round-s", type=float, default=1.0)
    given = parser.parse_args()

    from kcost.core.stats import median_per_round, paired_ratio

    ours, theirs = entrants(given)
    with np.load(given.out / "peers" / INPUTS_FILE) as file:
        arrays = {name: file[name] for name in file.files}
    for batch in (int(b) for b in given.batches.split(",")):
        inputs = {name: array[:batch] for name, array in arrays.items()}
        steps = {name: functools.partial(run, inputs) for name, run in (ours | theirs).items()}
        medians = {name: median_per_round(r) for name, r in in_turns(steps, given.rounds, given.round_s).items()}
        print(f"batch {batch}, {given.threads} threads, median ms a step of {given.rounds} rounds")
        for name in sorted(medians, key=lambda n: float(np.median(medians[n]))):
            whose = "kcost" if name in ours else "peer"
            print(f"  {whose:5} {name:32} {np.median(medians[name]) / 1e6:.2f}")
        best, peer = (min(group, key=lambda n: float(np.median(medians[n]))) for group in (ours, theirs))
        ratio = paired_ratio(medians[peer], medians[best])
        print(f"  {best} is {ratio.value:.2f} times as fast as {peer} (95%: {ratio.low:.2f} to {ratio.high:.2f})")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--make-peers"]:
        make_peers(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        main()
