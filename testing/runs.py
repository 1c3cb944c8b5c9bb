"""Simulated runs for tests: plausible in shape, drawn from a seeded generator, measured on nothing.

run, outputs = simulated_run(plan(batches=(1, 32)))
store = write_run(tmp_path / "run", run, outputs)
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from kcost.bench.store import RunStore
from kcost.core.plan import JIT_METHODS, CellSpec, Plan, Settings, expand
from kcost.core.result import CellResult, Environment, ModelEntry, Preparation, Round, Run, RunIndex, Watch

Outputs = dict[str, dict[str, np.ndarray]]
"""cell_id -> the arrays of its npz file."""

SHA256 = "0" * 64
EXAMPLES = 400
TOKENS = 12

MODELS = {
    "simulated-cnn": ModelEntry(
        name="simulated-cnn",
        path="artifacts/simulated-cnn",
        sha256=SHA256,
        task="image-classification",
        dataset="simulated-digits",
        synthetic_data=True,
        label_names=tuple(str(n) for n in range(10)),
        train_examples=1437,
        train_epochs=10,
    ),
    "simulated-bert": ModelEntry(
        name="simulated-bert",
        path="artifacts/simulated-bert",
        sha256=SHA256,
        task="token-classification",
        dataset="simulated-tags",
        synthetic_data=True,
        label_names=("O", "B-PER", "I-PER", "B-LOC", "I-LOC"),
        train_examples=2000,
        train_epochs=3,
    ),
}

OVERHEAD_MS = {"predict": 30.0, "graph": 0.8, "xla": 0.5, "jit": 0.4, "eager": 1.2, "compile": 0.6, "saved_model": 0.7}
"""Simulated fixed time of a step by method; a training step takes 2 ms."""

SPEED = {"tensorflow": 1.0, "jax": 0.8, "torch": 0.9, "fake": 1.0}
"""Simulated relative time of an example by backend."""


def environment(**changes: Any) -> Environment:
    """A simulated machine with two cores and no accelerator."""
    fields: dict[str, Any] = {
        "host": "simulated-host",
        "os": "Linux 6.1",
        "machine": "x86_64",
        "cpu_model": "Simulated CPU @ 2.50GHz",
        "cpu_features": ("avx2", "avx512f", "amx_bf16"),
        "cores": 2,
        "memory_bytes": 8 << 30,
        "python": "3.12.0",
        "packages": {"keras": "3.15.0", "tensorflow": "2.21.0", "jax": "0.10.0", "torch": "2.13.0"},
        "variables": {"OMP_NUM_THREADS": "2"},
    }
    return Environment(**{**fields, **changes})


def plan(**changes: Any) -> Plan:
    """A small plan over the first simulated model."""
    fields: dict[str, Any] = {"models": ("simulated-cnn",), "batches": (1, 32), "settings": Settings(rounds=6)}
    return Plan(**{**fields, **changes})


def simulated_run(
    plan: Plan, *, seed: int = 0, steps: int | None = 8, machine: Environment | None = None
) -> tuple[Run, Outputs]:
    """A run in which every cell of the plan is ok. The same arguments give the same run.

    Args:
        steps: in each round; None gives as many as `round_s` holds, and what was watched meanwhile.
    """
    machine = machine or environment()
    models = tuple(MODELS[m] for m in plan.models)
    specs = expand(plan, {m.name: m.sha256 for m in models})
    rng = np.random.default_rng(seed)
    # What a neighbour on the machine does hits every cell of a round alike: pairing takes it out again.
    drift = np.exp(rng.normal(0, 0.05, plan.settings.rounds))
    outputs = {spec.cell_id: simulated_outputs(MODELS[spec.model], spec) for spec in specs if spec.phase == "inference"}
    cells = tuple(
        CellResult(
            spec=spec,
            environment_id=machine.environment_id,
            status="ok",
            preparation=preparation(spec),
            rounds=_rounds(spec, drift, steps, rng) if steps else _whole_rounds(spec, drift, plan.settings, rng),
            outputs_file=f"{spec.cell_id}.npz" if spec.cell_id in outputs else None,
        )
        for spec in specs
    )
    index = RunIndex(created_at="2026-01-02T03:04:05+00:00", plan=plan, models=models)
    return Run(index=index, environments={machine.environment_id: machine}, cells=cells), outputs


def preparation(spec: CellSpec, **changes: Any) -> Preparation:
    """What a simulated worker says that it took to get ready."""
    fields: dict[str, Any] = {
        "import_s": 2.0,
        "load_s": 0.3,
        "first_call_s": 0.6,
        "warmup_ns": (9_000_000, 5_000_000),
        "backend_version": "0.0.simulated",
        "device_name": "simulated",
        "threads": spec.threads or 2,
        "jit": spec.method in JIT_METHODS,
        "tf32": None,
        "inputs_on": "host",
        "parameters": 123_456,
        "peak_host_bytes": 512 << 20,
        "simulated": True,
    }
    return Preparation(**{**fields, **changes})


def expected_step_ms(spec: CellSpec) -> float:
    """The median step time that `simulated_run` scatters around."""
    speed = SPEED[spec.backend] * (0.6 if spec.precision == "bfloat16" else 1.0)
    if spec.phase == "training":
        return 2.0 + 0.6 * spec.batch * speed
    return OVERHEAD_MS[spec.method] + 0.2 * spec.batch * speed


def simulated_outputs(entry: ModelEntry, spec: CellSpec) -> dict[str, np.ndarray]:
    """What a cell's model answers: the same for all cells, but for rounding by backend and precision."""
    shared = np.random.default_rng(7)
    classes = len(entry.label_names)
    shape = (EXAMPLES,) if entry.task == "image-classification" else (EXAMPLES, TOKENS)
    labels = shared.integers(0, classes, shape)
    logits = shared.normal(0, 1, (*shape, classes)) + 4 * np.eye(classes)[labels]
    own = np.random.default_rng(int(spec.cell_id[:8], 16))
    logits += own.normal(0, 2e-2 if spec.precision == "bfloat16" else 1e-6, logits.shape)
    if entry.task == "token-classification":
        labels[:, -2:] = -1  # padding
    exp = np.exp(logits - logits.max(-1, keepdims=True))
    probabilities = (exp / exp.sum(-1, keepdims=True)).astype(np.float32)
    # Class numbers are int32 in what a worker writes.
    predictions, labels = probabilities.argmax(-1).astype(np.int32), labels.astype(np.int32)
    arrays = {"outputs": probabilities[:8], "predictions": predictions, "labels": labels}
    if entry.task == "token-classification":
        arrays["unseen_labels"] = np.full((EXAMPLES, 0), -1, np.int32)
    return arrays


def _rounds(spec: CellSpec, drift: np.ndarray, steps: int, rng: np.random.Generator) -> tuple[Round, ...]:
    centre_ns = expected_step_ms(spec) * 1e6
    durations = centre_ns * drift[:, None] * np.exp(rng.normal(0, 0.02, (len(drift), steps)))
    return tuple(
        Round(session="simulated", number=n, step_ns=tuple(int(d) for d in row), load_1min=0.5)
        for n, row in enumerate(durations)
    )


def _whole_rounds(spec: CellSpec, drift: np.ndarray, settings: Settings, rng: np.random.Generator) -> tuple[Round, ...]:
    """Rounds with all that a worker and its parent write down on a CPU without an energy counter."""
    steps = max(1, int(settings.round_s * 1e3 / expected_step_ms(spec)))
    return tuple(
        replace(
            one,
            watch=_watch(sum(one.step_ns) / 1e9, rng),
            peak_host_bytes=int(rng.integers(500, 600)) << 20,
        )
        for one in _rounds(spec, drift, steps, rng)
    )


def _watch(steps_s: float, rng: np.random.Generator) -> Watch:
    """A turn on a quiet machine with two busy cores."""
    wall_s, other_s = steps_s + rng.uniform(0.0002, 0.002), rng.uniform(0, 0.004)
    return Watch(
        wall_s=round(wall_s, 5),
        worker_cpu_s=round(2 * steps_s, 5),
        parent_cpu_s=round(rng.uniform(0.0002, 0.002), 5),
        machine_busy_s=round(2 * steps_s + other_s, 2),
        steal_s=round(rng.uniform(0, 0.002), 2),
        swapped_pages=0,
    )


def write_run(path: Path, run: Run, outputs: Mapping[str, dict[str, np.ndarray]] | None = None) -> RunStore:
    """The run as a folder."""
    store = RunStore(path)
    store.create(run.index)
    for machine in run.environments.values():
        store.write_environment(machine)
    for cell in run.cells:
        store.write_cell(cell)
    for cell_id, arrays in (outputs or {}).items():
        store.write_outputs(cell_id, **arrays)
    return store


def replaced(run: Run, cell_id: str, **changes: Any) -> Run:
    """The run with some fields of one cell changed."""
    cells = tuple(c.model_copy(update=changes) if c.spec.cell_id == cell_id else c for c in run.cells)
    return run.model_copy(update={"cells": cells})


def disturbed(run: Run, *cell_ids: str) -> Run:
    """The run with some cells, or all where none is named, measured beside other work: they are INVALID."""
    busy = Watch(wall_s=0.1, worker_cpu_s=0.1, parent_cpu_s=0.0, machine_busy_s=0.2)
    for cell in run.cells:
        if not cell_ids or cell.spec.cell_id in cell_ids:
            run = replaced(run, cell.spec.cell_id, rounds=tuple(replace(r, watch=busy) for r in cell.rounds))
    return run
