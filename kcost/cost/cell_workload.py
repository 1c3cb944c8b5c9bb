"""What a measured cell asks of a device: its workload, from what a profile counted and what the model's file names."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping

from kcost.core.errors import InputError
from kcost.core.plan import CellSpec
from kcost.core.result import CellResult
from kcost.cost.between_machines import Step
from kcost.cost.devices import Device, Number
from kcost.cost.estimate import step_ns
from kcost.cost.workload import ARCHITECTURES, Engine, Kind, Workload, encoder_activations

PRODUCTS_OF: dict[str, int] = {
    "Dense": 1, "EinsumDense": 1, "Conv1D": 1, "Conv2D": 1, "Conv3D": 1, "Conv2DTranspose": 1, "DepthwiseConv1D": 1,
    "DepthwiseConv2D": 1, "SeparableConv1D": 2, "SeparableConv2D": 2, "MultiHeadAttention": 4,
    "CachedMultiHeadAttention": 4, "GroupedQueryAttention": 4, "TransformerEncoder": 6, "EncoderBlock": 6, "LSTM": 2,
    "GRU": 2, "SimpleRNN": 2,
}  # fmt: skip
"""Class of a layer -> products with weights that it calls."""

ACTIVATIONS_A_FLOP: dict[Kind, float] = {
    "encoder": encoder_activations(ARCHITECTURES["BERT-base"], 128) / 22.35e9,
    "cnn": ARCHITECTURES["ResNet-50 v1.5"].activations / 8.22e9,
    "small products": ARCHITECTURES["MobileNetV2"].activations / 0.62e9,
}
"""Numbers put out for each FLOP, where no compiler counted the bytes of a step: those of a typical model of the
kind."""


FAR_TOO_FEW = 8
"""Counted activations that are this many times fewer than a typical model's were not counted whole: on processors XLA
hands convolutions to a library, and leaves their bytes out. VGG16, the leanest that is known, has 3 times fewer."""


def kind_of(classes: Mapping[str, int]) -> Kind:
    """What a model mostly consists of, by the classes of its layers."""
    if any("Depthwise" in name or "Separable" in name for name in classes):
        return "small products"
    return "cnn" if any(name.startswith("Conv") for name in classes) else "encoder"


def engine_of(spec: CellSpec) -> Engine:
    """What runs a cell, as published tables name it."""
    if spec.method == "openvino":
        return "openvino"
    if spec.method in ("xla", "jit") or spec.backend == "jax":
        return "xla"
    if spec.method == "compile":
        return "torch.compile"
    return "torch eager" if spec.backend == "torch" and spec.method != "onnx" else "tensorflow graph"


def precision_on(spec: CellSpec, device: Device | None) -> Number:
    """What a cell's products would be computed in on a device: what frameworks do there unless told otherwise.

    float32 is TF32 on NVIDIA's Ampere and later in TensorFlow and JAX, and bfloat16 on a TPU. None is a processor.
    """
    if spec.precision in ("int8", "int8_dynamic"):
        return "int8"
    if spec.precision == "bfloat16" or (spec.saved_policy or "").endswith("bfloat16"):
        return "bf16"
    if (spec.saved_policy or "").endswith("float16"):
        return "fp16"
    if device is None:
        return "fp32"
    if "fp32" not in device.peak_tflops and "TPU" in device.name:
        return "bf16"
    return "tf32" if "tf32" in device.peak_tflops and spec.backend != "torch" else "fp32"


def counted_activations(cells: Iterable[CellResult]) -> float | None:
    """Numbers that a model puts out for an example, from the bytes that a compiler counted; None where none did.

    They are the model's own, so that a cell of another backend may use them. Only steps in float32 are read, at the
    largest batch, where weights matter least.
    """
    counted = [
        (cell.spec.batch, max(0.0, (work.bytes / 4 - cell.preparation.parameters) / 2 / cell.spec.batch))
        for cell in cells
        if cell.profile is not None
        and (work := cell.profile.work) is not None
        and work.bytes
        and not work.bytes_are_least
        and cell.preparation is not None
        and cell.spec.phase == "inference"
        and cell.spec.precision == "float32"
    ]
    return max(counted)[1] if counted else None


def workload_of(
    cell: CellResult,
    classes: Mapping[str, int],
    device: Device | None,
    *,
    precision: Number | None = None,
    batch: int | None = None,
    activations: float | None = None,
) -> Workload:
    """What a cell would ask of a device.

    Args:
        classes: of the layers in its file, by count (`core.keras_file.class_counts`).
        device: None is a processor of which no peak is known, as for a projection between probed machines.
        precision: None takes what the framework would compute in there.
        batch: None takes the cell's own; FLOPs grow with it.
        activations: an example's, from `counted_activations` of any cell of the model; None takes a typical model's,
            and so does a count that is FAR_TOO_FEW times below it.

    Raises:
        InputError: nobody counted the cell's FLOPs, or no layer of the model has a product.
    """
    work = None if cell.profile is None else cell.profile.work
    if work is None or not work.flops or cell.preparation is None:
        raise InputError(
            "A projection needs the FLOPs of a step, which a profile counts.",
            received=f"{cell.spec.label}: " + ("no profile" if work is None else work.flops_source),
            remedy="Measure again into the same folder with `kcost bench --profile`: what was measured stays.",
        )
    products = sum(count * PRODUCTS_OF.get(name, 0) for name, count in classes.items())
    if not products:
        raise InputError(
            "A projection knows models of layers with products: Dense, convolutions, attention.",
            received=f"{cell.spec.model} with {', '.join(classes) or 'no layers'}",
            remedy="Measure it on the device itself.",
        )
    kind = kind_of(classes)
    training = cell.spec.phase == "training"
    per_example = work.flops / cell.spec.batch / (3 if training else 1)
    parameters = cell.preparation.parameters
    typical = ACTIVATIONS_A_FLOP[kind] * per_example
    put_out = typical if activations is None or activations < typical / FAR_TOO_FEW else activations
    return Workload(
        kind=kind,
        engine=engine_of(cell.spec),
        phase=cell.spec.phase,
        precision=precision or precision_on(cell.spec, device),
        batch=batch or cell.spec.batch,
        flops_per_example=per_example,
        parameters=parameters,
        activations_per_example=put_out,
        products=products,
    )


def step_of(cell: CellResult, workload: Workload) -> Step:
    """A cell that machine A measured, as a projection between machines takes it.

    Raises:
        InputError: the cell holds no rounds.
    """
    spec = cell.spec
    return Step(
        name=f"{spec.model} batch {spec.batch}",
        group=f"{spec.phase} {spec.backend}/{spec.method} {spec.dtype}",
        workload=workload,
        is_predict=spec.method in ("predict", "train_on_batch"),
        measured_s=step_ns(cell).scaled(1e-9),
        cores=_cores_used(cell),
    )


def _cores_used(cell: CellResult) -> float | None:
    """CPU time of the worker in a second of steps; None where nobody watched, or a CPU quota stopped it."""
    watched = [(r.watch, sum(r.step_ns) / 1e9) for r in cell.rounds if r.watch is not None]
    if not watched or any(watch.quota_throttles for watch, _ in watched):
        return None
    used = [watch.worker_cpu_s / seconds for watch, seconds in watched if watch.worker_cpu_s is not None]
    return statistics.median(used) if used else None
