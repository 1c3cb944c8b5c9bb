"""How long a step takes on a device that is not at hand: a roofline whose few terms are fitted to published
measurements.

    step = root(products^2 + memory^2) + calls + input
    products = FLOPs / (peak x efficiency)          what multiplies and adds
    memory   = bytes / (bandwidth x share)          weights and activations, read and written
    calls    = layers with products x time of a call
    input    = examples x time to read and decode one, where that is measured too

Each efficiency, share and time of a call is the exponential of a sum of terms: one for each kind of layers,
precision, class of runtime and family of devices that the step is of. data/projection.json holds them with the
covariance of their fit (`projection_fit`), and what leaving out whole chips found of its errors.

Source of the roofline: Williams, Waterman, Patterson (2009), doi 10.1145/1498765.1498785.
"""

from __future__ import annotations

import math
from functools import cache
from importlib import resources
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from pydantic_core import from_json

from kcost.core.errors import InputError
from kcost.core.schema import Record
from kcost.core.stats import NORMAL_95
from kcost.core.units import significant
from kcost.cost.devices import Device, Number
from kcost.cost.workload import RUNTIME_CLASS, Engine, Workload

Array = NDArray[np.float64]

WIDEST = 3.0
"""A 90% interval that is wider than this, upper over lower end, is refused."""


class Prior(NamedTuple):
    """What is thought of a term before any row is seen: normal, of the natural logarithm."""

    mean: float
    sd: float


def _terms() -> dict[str, Prior]:
    """Every term of the model, in the order in which they are stored."""
    engines: tuple[Engine, ...] = tuple(RUNTIME_CLASS)
    late = ("compiled", "graph")  # eager runs the same kernels as a graph; its own term is in `torch eager`
    terms: dict[str, Prior] = {"products": Prior(math.log(0.45), 1.0)}
    terms |= {f"products/{k}": Prior(0, 0.5) for k in ("cnn", "small products")}
    terms |= {f"products/{p}": Prior(0, 0.4) for p in ("tf32", "16 bit", "int8")}
    terms |= {f"products/{c}": Prior(0, 0.4) for c in late}
    terms |= {f"products/{e}": Prior(0, 0.2) for e in engines}
    terms |= {"products/training": Prior(0, 0.4), "products/VGG-like": Prior(0, 0.4)}
    terms |= {"products/CPU": Prior(0, 0.6), "products/CPU below fp32": Prior(0, 0.4), "products/AMX": Prior(0, 0.5)}
    terms |= {"products/NVIDIA GeForce": Prior(0, 0.4), "products/other accelerator": Prior(0, 0.4)}
    for kind in ("cnn", "small products"):
        terms |= {f"products/{kind}, {p}": Prior(0, 0.25) for p in ("16 bit", "int8")}
        terms |= {f"products/{kind}, {c}": Prior(0, 0.25) for c in late}
    terms |= {f"products/low precision, {c}": Prior(0, 0.25) for c in late}
    terms |= {"memory": Prior(math.log(0.67), 0.5), "memory/CPU": Prior(0, 0.5)}
    terms |= {f"memory/{c}": Prior(0, 0.3) for c in late}
    terms |= {"calls": Prior(math.log(0.012), 1.0)}
    terms |= {f"calls/{c}": Prior(math.log(2), 0.7) for c in late}
    terms |= {f"calls/{e}": Prior(0, 0.4) for e in engines}
    terms |= {"calls/CPU": Prior(0, 1.0), "calls/encoder": Prior(0, 0.4)}
    terms |= {"input": Prior(math.log(0.1), 1.0)}
    return terms


TERMS = _terms()
"""Name -> prior. The part before the slash is the component. Means are in ms for calls and input, shares of the peak
else."""

COMPONENTS = ("products", "memory", "calls", "input")

FLOPS_A_PARAMETER_OF_VGG = 300
"""Below that many FLOPs a parameter, a network of convolutions is mostly large ones without a bottleneck, for which
libraries
take algorithms with fewer multiplications (Winograd), or whose dense layers weigh. VGG16 has 224, ResNet-50 322."""


def _active(workload: Workload, device: Device) -> frozenset[str]:
    """The terms that a step on a device is of."""
    w, engine = workload, workload.engine
    late = {"compiled": "compiled", "graph": "graph", "eager": "graph"}.get(RUNTIME_CLASS[engine])
    bits: dict[Number, str] = {"tf32": "tf32", "fp16": "16 bit", "bf16": "16 bit", "int8": "int8"}
    number = bits.get(w.precision)
    low = number in ("16 bit", "int8")
    vgg = w.kind == "cnn" and w.flops_per_example < FLOPS_A_PARAMETER_OF_VGG * w.parameters
    on = {"products", "memory", "calls", f"products/{engine}", f"calls/{engine}", f"products/{w.kind}"}
    on |= {"input"} if w.reads_images else set()
    on |= {f"products/{number}", f"products/{w.kind}, {number}"}
    on |= {f"{c}/{late}" for c in ("products", "memory", "calls")} | {f"products/{w.kind}, {late}"}
    on |= {f"products/low precision, {late}"} if low else set()
    on |= {"products/training"} if w.phase == "training" else set()
    on |= {"products/VGG-like"} if vgg else set()
    on |= {"calls/encoder"} if w.kind == "encoder" else set()
    on |= {"products/CPU", "memory/CPU", "calls/CPU"} if device.is_cpu else set()
    on |= {"products/CPU below fp32"} if device.is_cpu and w.precision != "fp32" else set()
    on |= {"products/AMX"} if device.family == "CPU with AMX" and low else set()
    on |= {"products/NVIDIA GeForce"} if device.family == "NVIDIA GeForce" else set()
    on |= {"products/other accelerator"} if device.family == "other" else set()
    return frozenset(on & TERMS.keys())


class Design(NamedTuple):
    """Steps on devices as arrays: one row each."""

    base: Array
    """(rows, 4): natural logarithms of what each component takes at efficiency 1, ms; -inf where there is none."""
    terms: Array
    """(rows, terms): 1 where the term is active, with the sign in which it changes the time."""
    component: NDArray[np.int64]
    """(terms,): which component each term is of."""


def design(steps: list[tuple[Workload, Device]]) -> Design:
    """What steps on devices are to the model.

    Raises:
        InputError: a device has no peak for a step's precision.
    """
    names = list(TERMS)
    component = np.array([COMPONENTS.index(n.partition("/")[0]) for n in names])
    sign = np.where(component < 2, -1.0, 1.0)  # an efficiency divides the time, a time of a call multiplies it
    base = np.full((len(steps), len(COMPONENTS)), -np.inf)
    terms = np.zeros((len(steps), len(names)))
    for row, (w, device) in enumerate(steps):
        peak = device.peak_tflops.get(w.precision)
        if peak is None:
            raise InputError(
                "A projection needs the device's peak at the precision of the step.",
                received=f"{w.precision} on {device.name}, which has {', '.join(device.peak_tflops) or 'none'}",
                remedy="Project another precision.",
            )
        base[row, 0] = math.log(w.flops / (peak * 1e9))
        base[row, 1] = math.log(w.moved_bytes / (device.bandwidth_gb_s * 1e6))
        base[row, 2] = math.log(w.products * w.passes)
        if w.reads_images:
            base[row, 3] = math.log(w.batch)
        active = _active(w, device)
        terms[row] = [name in active for name in names]
    return Design(base, terms * sign, component)


def log_ms(theta: Array, d: Design) -> tuple[Array, Array, Array]:
    """Natural logarithm of the step in ms (rows,), its derivative by each term (rows, terms), and what each
    component is of it.

    The four shares (rows, 4) sum to 1: products and memory share what they take together by their squares.
    """
    parts = d.base.copy()
    for index in range(len(COMPONENTS)):
        mine = d.component == index
        parts[:, index] += d.terms[:, mine] @ theta[mine]
    roof = np.logaddexp(2 * parts[:, 0], 2 * parts[:, 1]) / 2
    total = np.logaddexp(np.logaddexp(roof, parts[:, 2]), parts[:, 3])
    shares = np.exp(parts - total[:, None])
    shares[:, :2] = np.exp(roof - total)[:, None] * np.exp(2 * (parts[:, :2] - roof[:, None]))
    return total, shares[:, d.component] * d.terms, shares


class Spread(Record):
    """Standard deviations of natural logarithms: how far chips, tables and rows lie from the model."""

    nvidia: float
    other_device: float = Field(description="processors, TPUs, AMD, Neuron")
    table: float
    row: float


class Grading(Record):
    """What leaving whole devices out one by one found; everything was fitted again without them."""

    left_out: str = Field(description="`chip`: all variants of a chip at once; `device`: one variant")
    rows: int
    groups: int
    median_error: float = Field(description="of |projected - measured| / measured")
    held: float = Field(description="part of the rows inside their 90% interval")
    median_width: float = Field(description="of upper over lower end of the intervals")


class Model(Record):
    """The fitted projection."""

    terms: dict[str, float]
    covariance: tuple[tuple[float, ...], ...] = Field(description="of the terms, in their order")
    spread: Spread
    rows: int
    smallest_flops: float = Field(description="of an example, of the smallest model that it was fitted to")
    chips: tuple[str, ...]
    gradings: tuple[Grading, ...]
    errors_by_component: dict[str, float] = Field(
        description="median error of the left-out rows in which that component takes more than half of the time"
    )


class Projection(Record):
    """How long a step would take on a device. Nothing here was measured on it."""

    device: str
    step_ms: float
    low_ms: float = Field(description="lower end of the 90% interval")
    high_ms: float = Field(description="upper end of the 90% interval")
    shares: dict[str, float] = Field(description="part of the step that products, memory, calls and input take")
    device_source: str
    refused: str | None = Field(default=None, description="why it is not to be used, and what would help")

    @property
    def step_text(self) -> str:
        """The figure in words, marked."""
        return f"{significant(self.step_ms)} ms ({significant(self.low_ms)} to {significant(self.high_ms)}, projected)"


@cache
def fitted() -> Model:
    """The model that the package ships."""
    content = resources.files("kcost.cost").joinpath("data", "projection.json").read_bytes()
    return Model.model_validate(from_json(content))


def project(workload: Workload, device: Device, model: Model | None = None) -> Projection:
    """How long a step takes on a device, with its 90% interval.

    Args:
        model: None takes the one that the package ships.

    Raises:
        InputError: the device has no peak for the precision.

    Examples:
        >>> from kcost.cost.devices import device_named
        >>> from kcost.cost.workload import Workload
        >>> bert = Workload(kind="encoder", engine="tensorrt", phase="inference", precision="fp16", batch=32,
        ...     flops_per_example=22.3e9, parameters=110e6, activations_per_example=14e6, products=72)
        >>> 1 < project(bert, device_named("NVIDIA A100-SXM4-80GB")).step_ms < 10
        True
    """
    chosen = model or fitted()
    d = design([(workload, device)])
    theta = np.array([chosen.terms[name] for name in TERMS])
    total, slope, shares = log_ms(theta, d)
    sd = predictive_sd(slope, np.array(chosen.covariance), chosen.spread, [device])[0]
    half = NORMAL_95 * sd
    low, high = (math.exp(total[0] + s * half) for s in (-1, 1))
    return Projection(
        device=device.name,
        step_ms=math.exp(total[0]),
        low_ms=low,
        high_ms=high,
        shares=dict(zip(COMPONENTS, (float(s) for s in shares[0]), strict=True)),
        device_source=f"{device.basis}: {device.source}",
        refused=_refusal(high / low, device, workload.flops_per_example, chosen.smallest_flops),
    )


def predictive_sd(slope: Array, covariance: Array, spread: Spread, on: list[Device]) -> Array:
    """Standard deviation of the logarithm of a step on a device that was not in the fit, (rows,)."""
    chip = np.array([spread.nvidia if d.family.startswith("NVIDIA") else spread.other_device for d in on])
    from_fit = np.einsum("ij,jk,ik->i", slope, covariance, slope)
    return np.asarray(np.sqrt(from_fit + chip**2 + spread.table**2 + spread.row**2), dtype=np.float64)


def _refusal(width: float, device: Device, flops: float, smallest: float) -> str | None:
    if flops < smallest:
        return (
            f"an example takes {flops / 1e9:.2g} GFLOP, and of models below {smallest / 1e9:.2g} none was published: "
            "narrow products reach less of a peak, nobody measured how much; measuring the model there would help"
        )
    if width <= WIDEST:
        return None
    missing = "its peak is derived, as its vendor publishes none; " if device.basis == "derived" else ""
    return (
        f"the 90% interval is {significant(width)} times wide, and {WIDEST:g} is the most; {missing}"
        "measuring the model there, or a published measurement of a like model on that device, would help"
    )
