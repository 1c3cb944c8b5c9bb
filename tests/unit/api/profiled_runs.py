"""Stored runs whose cells were looked into."""

import json
import zipfile
from pathlib import Path

from kcost.core.artifact import sha256_of
from kcost.core.profile import Profile, Work
from kcost.core.result import Run
from testing.runs import plan, simulated_run, write_run

GFLOP = 10**9


def keras_file(path: Path, *classes: str) -> Path:
    names = enumerate(classes)
    layers = [{"class_name": c, "module": "keras.layers", "config": {"name": f"{c}_{n}"}} for n, c in names]
    config = {"class_name": "Functional", "module": "keras", "config": {"name": "m", "layers": layers}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", b"")
    return path


def run_with_profiles(folder: Path, flops_per_example: int | None = 4 * GFLOP, *classes: str) -> Path:
    folder.mkdir(exist_ok=True)
    model = keras_file(folder / "simulated-cnn.keras", *(classes or ("Conv2D",) * 20 + ("Dense",)))
    run, _ = simulated_run(plan(batches=(1, 32), phases=("inference",), backends=("jax",)))
    entry = run.entry("simulated-cnn").model_copy(update={"path": str(model), "sha256": sha256_of(model)})
    cells = []
    for cell in run.cells:
        flops = None if flops_per_example is None else flops_per_example * cell.spec.batch
        work = Work(flops=flops, flops_source="a test", bytes=None, bytes_source="nobody")
        spec = cell.spec.model_copy(update={"model_sha256": entry.sha256})
        cells.append(
            cell.model_copy(update={"profile": Profile(status="ok", work=work), "spec": spec, "outputs_file": None})
        )
    index = run.index.model_copy(update={"models": (entry,)})
    write_run(folder / "run", Run(index=index, environments=run.environments, cells=tuple(cells)), {})
    return folder / "run"
