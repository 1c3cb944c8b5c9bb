"""What to measure: a plan, and the cells that it expands to.

A plan is data that a person writes (TOML) or a command builds. Expanding it is pure: the same plan over
the same models always gives the same cells, and the id of a cell is a hash of its content, so that a run
that was cut short knows what it already holds.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from kcost.core.conversion import CONVERTED_IN, PRECISIONS, RUNTIMES, Runtime
from kcost.core.errors import PlanError
from kcost.core.schema import Record, describe_validation

Backend = Literal["tensorflow", "jax", "torch", "fake"]
Device = Literal["cpu", "gpu", "tpu"]
Precision = Literal["float32", "bfloat16", "saved", "int8", "int8_dynamic"]
"""What a model is asked to compute in. saved: what its file was saved under, where that is not float32. int8 and
int8_dynamic are those of runtimes; see `core.conversion`."""
Phase = Literal["inference", "training"]
Method = Literal["predict", "eager", "graph", "xla", "jit", "compile", "train_on_batch", Runtime]

Scenario = Literal["single-stream", "offline", "after-idle", "server"]
"""Ways in which queries reach a model: those of MLPerf Inference, and steps after idle time; see `core.scenario`."""

BACKENDS: tuple[Backend, ...] = ("tensorflow", "jax", "torch")
"""The real backends, in the order in which Keras names them; `fake` exists to test the harness."""

INFERENCE_METHODS: dict[Backend, tuple[Method, ...]] = {
    "tensorflow": ("graph", "xla", "predict"),
    "jax": ("jit", "predict"),
    "torch": ("eager", "compile", "predict"),
    "fake": ("eager", "predict"),
}
"""The ways of running a forward pass that each backend has.

predict: `keras.Model.predict`, the plain default. graph: tf.function without XLA, as TensorFlow Serving
runs it. xla: tf.function(jit_compile=True). jit: jax.jit over the call. eager: torch under
inference_mode. compile: torch.export and AOTInductor. A runtime (saved_model, litert, onnx, openvino) is a method of
the backend that converts to it, and runs the converted file without Keras; a plan measures it when it names it.
"""

SLOW_TO_COMPILE: frozenset[Method] = frozenset({"compile"})
"""Methods that a plan runs only when it names them: PyTorch's compiler takes up to a minute a shape."""

KERAS_PRECISIONS: frozenset[Precision] = frozenset({"float32", "bfloat16", "saved"})

MODULE_FUNCTION = re.compile(r"[\w.]+:\w+")
"""A model given as the function that makes it."""

JIT_METHODS: frozenset[Method] = frozenset({"xla", "jit", "compile"})

Positive = Annotated[int, Field(gt=0)]


class Settings(Record):
    """How cells are measured. None of this is part of a cell's identity."""

    rounds: int = Field(default=10, ge=1, le=10_000, description="rounds that every cell gets")
    precision: float | None = Field(
        default=None, gt=0, lt=1, description="go on until each ratio to the block's baseline is known this closely"
    )
    max_rounds: int = Field(default=200, ge=1, le=10_000, description="most rounds of a cell while it goes on")
    minutes: float | None = Field(default=None, gt=0, description="no round begins after this, once each has `rounds`")
    round_s: float = Field(default=0.15, gt=0, description="time a cell is given in each round")
    warmup_s: float = Field(default=0.5, ge=0, description="least time a cell warms up")
    warmup_max_s: float = Field(default=3.0, ge=0, description="longest warm-up of a cell that does not settle")
    scored_examples: int = Field(default=256, ge=1, description="most samples that a cell answers to be scored")
    keep_outputs: bool = Field(
        default=False, description="keep every number of the scored output of those samples, not what it decides alone"
    )
    timeout_s: float = Field(default=300.0, gt=0, description="longest wait for one answer of a worker")
    scenarios: tuple[Scenario, ...] = Field(
        default=(), description="what inference cells are measured in after their rounds; server brings offline along"
    )
    latency_bound_ms: float | None = Field(
        default=None, gt=0, allow_inf_nan=False, description="server: what the p99 of the latencies must hold"
    )
    scenario_s: float = Field(
        default=3.0, gt=0, allow_inf_nan=False, description="least time of a scenario, and of each trial of a rate"
    )
    scenario_max_s: float = Field(
        default=120.0, gt=0, allow_inf_nan=False, description="longest time of the same, where queries are slow"
    )
    profile: bool = Field(default=False, description="look into each cell after its turns: where its time goes")
    seed: int = 0

    @model_validator(mode="after")
    def _scenarios_have_what_they_need(self) -> Settings:
        if len(set(self.scenarios)) != len(self.scenarios):
            raise ValueError(f"scenarios holds each value once, not {list(self.scenarios)}")
        if ("server" in self.scenarios) != (self.latency_bound_ms is not None):
            raise ValueError("the scenario server and latency_bound_ms (--latency-bound-ms) come together")
        if self.scenario_max_s < self.scenario_s:
            raise ValueError(f"scenario_max_s is at least scenario_s, {self.scenario_s:g}, not {self.scenario_max_s:g}")
        return self


class Plan(Record):
    """Axes whose product is measured. Every axis has at least one value and none twice."""

    models: tuple[str, ...] = Field(min_length=1)
    backends: tuple[Backend, ...] = Field(default=BACKENDS, min_length=1)
    devices: tuple[Device, ...] = Field(default=("cpu",), min_length=1)
    precisions: tuple[Precision, ...] = Field(
        default=("float32", "bfloat16", "saved"),
        min_length=1,
        description="saved: only for models that were saved under another dtype policy than float32",
    )
    batches: tuple[Positive, ...] = Field(default=(1, 32), min_length=1)
    phases: tuple[Phase, ...] = Field(default=("inference", "training"), min_length=1)
    methods: tuple[Method, ...] | None = Field(
        default=None, min_length=1, description="None: all that do not take long to compile"
    )
    threads: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        default=(0,),
        min_length=1,
        description="CPU threads of a worker, one number or several; 0 means every core, or as many as a CPU quota "
        "allows",
    )
    data: str | None = Field(
        default=None, description="npz with real inputs for every model, and labels; None: each artifact's own samples"
    )
    together: bool = Field(
        default=False, description="cells of all models take turns with each other, so that models can be compared"
    )
    settings: Settings = Settings()

    @field_validator("threads", mode="before")
    @classmethod
    def _one_is_an_axis_too(cls, value: object) -> object:
        return (value,) if isinstance(value, int) else value

    @field_validator("models", "backends", "devices", "precisions", "batches", "phases", "methods", "threads")
    @classmethod
    def _no_value_twice(cls, values: tuple[object, ...] | None) -> tuple[object, ...] | None:
        if values is not None and len(set(values)) != len(values):
            raise ValueError(f"an axis holds each value once, not {list(values)}")
        return values

    @model_validator(mode="after")
    def _scenarios_have_cells(self) -> Plan:
        scenarios = self.settings.scenarios
        if scenarios and "inference" not in self.phases:
            raise ValueError(f"the scenarios {', '.join(scenarios)} are measured in the phase inference")
        if "single-stream" in scenarios and 1 not in self.batches:
            raise ValueError(f"single-stream is measured at batch 1, which is not among the batches {self.batches}")
        return self

    @staticmethod
    def parse(document: dict[str, object], where: object = "the plan") -> Plan:
        """A checked plan.

        Raises:
            PlanError: an unknown key, an empty axis, an unknown or doubled value.
        """
        try:
            return Plan.model_validate(document)
        except ValidationError as error:
            raise PlanError(
                "A plan has the keys " + ", ".join(Plan.model_fields) + "; each axis holds at least one known value.",
                received=f"{where}: {describe_validation(error)}",
                remedy="docs/file-formats.md shows a whole plan. Mend the named key.",
            ) from error

    @staticmethod
    def read(path: Path) -> Plan:
        """The plan in a TOML file; paths in it are relative to the file, a `module:function` stays as it is.

        Raises:
            PlanError: no such file, not TOML, or not a plan.
        """
        try:
            document = tomllib.loads(path.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise PlanError("A plan is a TOML file.", received=f"{path}: {error}", remedy="Mend the file.") from error
        plan = Plan.parse(document, path)
        data = None if plan.data is None else str(path.parent / plan.data)
        return plan.model_copy(update={"models": tuple(_from(path.parent, m) for m in plan.models), "data": data})


def _from(folder: Path, model: str) -> str:
    return model if MODULE_FUNCTION.fullmatch(model) else str(folder / model)


class CellSpec(Record):
    """One point of a plan. Two specs with the same id are the same measurement."""

    model: str = Field(description="name of the model in the run")
    model_sha256: str
    backend: Backend
    device: Device
    precision: Precision
    batch: Positive
    phase: Phase
    method: Method
    threads: int = Field(ge=0)
    data_sha256: str | None = Field(default=None, description="of the plan's `data`; None for each model's own samples")
    saved_policy: str | None = Field(
        default=None, description="dtype policy that the file was saved under; of precision `saved` alone"
    )

    @property
    def cell_id(self) -> str:
        """First 16 hexadecimal digits of the SHA-256 of the spec's canonical JSON."""
        return _cell_id(self)

    @property
    def runtime(self) -> Runtime | None:
        """The runtime that runs the converted model; None for a Keras backend."""
        return next((runtime for runtime in RUNTIMES if runtime == self.method), None)

    @property
    def block(self) -> tuple[str, str, str]:
        """Cells of one block take turns with each other, so their ratios are paired."""
        return (self.model, self.phase, self.device)

    @property
    def label(self) -> str:
        """The cell in a few words, unique within its model."""
        threads = f" {self.threads} thread(s)" if self.threads else ""
        return f"{self.phase} {self.backend}/{self.method} {self.dtype} {self.device} batch {self.batch}{threads}"

    @property
    def dtype(self) -> str:
        """The precision in words, such as `float32` or `as saved: mixed_float16`."""
        return dtype_text(self.precision, self.saved_policy)


def dtype_text(precision: Precision, saved_policy: str | None) -> str:
    """What a cell is asked to compute in, in words."""
    return f"as saved: {saved_policy}" if precision == "saved" else precision


@lru_cache(maxsize=1 << 15)
def _cell_id(spec: CellSpec) -> str:
    # Not a cached property: `model_copy` would hand the id on to a copy that differs.
    # A cell without data of its own, or a policy, has the id that it had before there were such.
    left_out = {name for name in ("data_sha256", "saved_policy") if getattr(spec, name) is None}
    text = json.dumps(spec.model_dump(exclude=left_out), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _methods(plan: Plan, backend: Backend, phase: Phase, precision: Precision) -> Iterable[Method]:
    if phase == "training":
        if precision not in KERAS_PRECISIONS:
            return ()
        return ("train_on_batch",) if plan.methods is None or "train_on_batch" in plan.methods else ()
    known = INFERENCE_METHODS[backend] if precision in KERAS_PRECISIONS else ()
    if plan.methods is None:
        # Keras's `predict` is the plain default that everything is compared with: float32 only.
        return tuple(m for m in known if m not in SLOW_TO_COMPILE and (m != "predict" or precision == "float32"))
    runtimes = tuple(r for r in RUNTIMES if CONVERTED_IN[r] == backend and precision in PRECISIONS[r])
    return tuple(m for m in (*known, *runtimes) if m in plan.methods)


def expand(
    plan: Plan,
    models: dict[str, str],
    data_sha256: str | None = None,
    saved_policies: Mapping[str, str] | None = None,
) -> tuple[CellSpec, ...]:
    """The cells of a plan over models.

    Args:
        models: name -> SHA-256 of the model file.
        data_sha256: of the plan's data.
        saved_policies: name -> dtype policy, of the models that were saved under another than float32: these alone
            have cells of the precision `saved`.

    Raises:
        PlanError: no cell is left, because no backend of the plan has a method that it names, or the plan asks for the
            saved policy alone and that is float32.
    """
    policies = saved_policies or {}
    cells = tuple(
        CellSpec(
            model=name,
            model_sha256=sha256,
            backend=backend,
            device=device,
            precision=precision,
            batch=batch,
            phase=phase,
            method=method,
            threads=threads,
            data_sha256=data_sha256,
            saved_policy=policies[name] if precision == "saved" else None,
        )
        for (name, sha256), phase, device, threads, batch, precision, backend in itertools.product(
            models.items(), plan.phases, plan.devices, plan.threads, plan.batches, plan.precisions, plan.backends
        )
        if precision != "saved" or name in policies
        for method in _methods(plan, backend, phase, precision)
    )
    if not cells and plan.precisions == ("saved",):
        raise PlanError(
            "The precision `saved` measures models that were saved under another dtype policy than float32.",
            received=f"{', '.join(models)}, saved under float32",
            remedy="Take the precision float32.",
        )
    if not cells:
        raise PlanError(
            "A plan expands to at least one cell.",
            received=f"methods {plan.methods} with backends {plan.backends} and phases {plan.phases}",
            remedy="Methods by backend: "
            + "; ".join(f"{b}: {', '.join(INFERENCE_METHODS[b])}" for b in BACKENDS)
            + f"; training: train_on_batch; converted: {', '.join(f'{b}: {r}' for r, b in CONVERTED_IN.items())}.",
        )
    return cells


def baseline_of(specs: Sequence[CellSpec]) -> CellSpec | None:
    """What the cells of a block are compared with: plain Keras, or the plainest of them; None for no cells.

    Plain Keras is `predict`, or a training step, in float32, on TensorFlow, at batch 32: Keras's default backend and
    the default batch size of `predict` and `fit`. Without them the first backend and the largest batch stand in.
    """
    backends = (*BACKENDS, "fake")

    def order(spec: CellSpec) -> tuple[bool, bool, int, bool, int, str]:
        plain = spec.method in ("predict", "train_on_batch")
        batch = (spec.batch != 32, -spec.batch)
        return (not plain, spec.precision != "float32", backends.index(spec.backend), *batch, spec.cell_id)

    return min(specs, key=order, default=None)
