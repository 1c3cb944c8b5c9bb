"""One option of a budget: what serving by it takes, what it costs once, and what each figure rests on."""

from __future__ import annotations

from pydantic import Field

from kcost.core.schema import Record
from kcost.cost.basis import CostBasis


class OneOff(Record):
    """What an option costs once, before its first prediction."""

    work_hours: float = Field(default=0.0, ge=0, description="of an engineer")
    labels: float = Field(default=0.0, ge=0)
    usd_per_label: float = Field(default=0.0, ge=0)
    labelling_derivation: str = Field(default="", description="empty where the price of a label was given")
    training_usd: float = Field(default=0.0, ge=0)
    source: str = ""


class Option(Record):
    """A way of serving on an instance, as a bill needs it."""

    name: str
    model: str | None = Field(default=None, description="None where no run was measured")
    instance: str = Field(description="provider, instance and region, or what the user calls it")
    usd_per_hour: float = Field(gt=0, description="of an instance, on demand")
    spot_usd_per_hour: float | None = Field(default=None, gt=0)
    price_source: str
    workers_per_instance: int = Field(default=1, ge=1)
    queries_per_s_per_replica: float = Field(gt=0, description="highest rate at which the p99 holds")
    queries_per_s_at_full_load: float = Field(gt=0, description="of a replica that is never without a full batch")
    elasticity: float = Field(default=1.0, ge=0, description="percent of that rate lost where a step takes 1% longer")
    batch_limit: int | None = Field(default=None, description="None where it was not simulated")
    wait_ms: float | None = None
    p99_ms: float | None = Field(default=None, description="simulated, at queries_per_s_per_replica")
    basis: CostBasis
    basis_why: str
    scaling_sd: float = Field(
        default=0.0, ge=0, description="of the logarithm of a step, where its seconds are of another size of instance"
    )
    simulated: bool = Field(default=False, description="the step times were made up")
    is_plain: bool = Field(default=False, description="plain Keras: what a project begins with")
    lowers_precision: bool = Field(default=False, description="computes in less than float32: answers may differ")
    one_off: OneOff = OneOff()
    joules_per_prediction: float | None = Field(
        default=None, ge=0, description="of its steps at full batches, idle time left out; None where it is not known"
    )
    energy_basis: str = ""
    watts_per_instance: float | None = Field(default=None, ge=0, description="None where the price holds the energy")
    usd_per_kwh: float = Field(default=0.0, ge=0)
    vcpus_per_instance: float | None = Field(
        default=None, gt=0, description="of the part that is paid for; None where an accelerator takes the power"
    )
    is_arm: bool = False
    g_co2e_per_kwh: float | None = Field(default=None, ge=0, description="of the electricity; None where not known")
    grid_source: str = ""


class Refused(Record):
    """A way that no budget can be made of, and why."""

    name: str
    reason: str
