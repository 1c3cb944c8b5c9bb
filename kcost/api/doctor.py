"""What is installed, what this machine is, and what of kcost works on it."""

from __future__ import annotations

import importlib.util
import shutil
from typing import Literal

from kcost.core import environment
from kcost.core.cpu_quota import threads_within
from kcost.core.errors import KcostError
from kcost.core.jobs import DEVICES
from kcost.core.plan import BACKENDS
from kcost.core.process import FRAMEWORKS, installed, run_job, version_of
from kcost.core.request import DevicesRequest
from kcost.core.result import Environment
from kcost.core.schema import Record

BUSY_LOAD_PER_CORE = 0.5
"""Above this load average a core, measurements on this machine are disturbed."""


class BackendReport(Record):
    """One backend on this machine."""

    backend: str
    version: str | None
    devices: dict[str, tuple[str, ...]]
    problem: str | None
    remedy: str | None = None


class Finding(Record):
    """One thing that works here, or does not."""

    subject: str
    state: Literal["works", "warning", "missing"]
    detail: str


class DoctorReport(Record):
    """What `kcost doctor` found."""

    environment: Environment
    backends: tuple[BackendReport, ...]
    findings: tuple[Finding, ...]
    load_1min: float


def examine(*, devices: bool) -> DoctorReport:
    """Looks at this machine. With `devices`, each installed backend is started to list its devices."""
    here = environment.collect()
    load = environment.load_1min()
    backends = tuple(_backend(name, devices) for name in BACKENDS)
    findings = (*_backend_findings(backends), *_cpu_findings(here), _load_finding(load, here.cores), *_tool_findings())
    return DoctorReport(environment=here, backends=backends, findings=findings, load_1min=load)


def _backend(name: str, devices: bool) -> BackendReport:
    version = version_of(FRAMEWORKS[name])
    if not installed(name):  # type: ignore[arg-type]  # a name from BACKENDS
        remedy = f"pip install 'kcost[{name}]'"
        return BackendReport(backend=name, version=version, devices={}, problem="not installed", remedy=remedy)
    if not devices:
        return BackendReport(backend=name, version=version, devices={}, problem=None)
    try:
        answer = run_job(DEVICES, name, DevicesRequest())  # type: ignore[arg-type]  # a name from BACKENDS
    except KcostError as error:  # a broken install is what a doctor is there to name
        return BackendReport(backend=name, version=version, devices={}, problem=str(error), remedy="Reinstall it.")
    return BackendReport(backend=name, version=answer.version, devices=answer.devices, problem=None)


def _backend_findings(backends: tuple[BackendReport, ...]) -> tuple[Finding, ...]:
    findings = []
    for b in backends:
        if b.problem is not None:
            findings.append(Finding(subject=f"{b.backend} backend", state="missing", detail=f"{b.problem}; {b.remedy}"))
        else:
            kinds = ", ".join(f"{len(names)} {kind}" for kind, names in b.devices.items() if names)
            findings.append(
                Finding(
                    subject=f"{b.backend} backend", state="works", detail="; ".join(filter(None, (b.version, kinds)))
                )
            )
    tensorflow = next(b for b in backends if b.backend == "tensorflow")
    ready = tensorflow.problem is None
    findings.append(
        Finding(
            subject="export to TensorFlow Serving",
            state="works" if ready else "missing",
            detail="through the tensorflow backend" if ready else "needs it: pip install 'kcost[tensorflow]'",
        )
    )
    return tuple(findings)


def _cpu_findings(here: Environment) -> tuple[Finding, ...]:
    bfloat16 = {"avx512_bf16", "amx_bf16"} & set(here.cpu_features)
    quota = here.cpu_quota_cores
    # Without a quota there is nothing to tell.
    return (
        *(() if quota is None else (_quota_finding(quota, here.cores),)),
        Finding(
            subject="bfloat16 on this CPU",
            state="works" if bfloat16 else "warning",
            detail=f"in hardware: {', '.join(sorted(bfloat16))}" if bfloat16 else "no instructions for it: slower",
        ),
    )


def _quota_finding(quota: float, cores: int) -> Finding:
    detail = f"this container may take the time of {quota:g} of the {cores} cores that it sees"
    if quota >= cores:
        return Finding(subject="CPU quota", state="works", detail=detail)
    detail += (
        "; more threads than that stand still for a part of each period, so that kcost measures and serves with "
        f"{threads_within(cores, quota)} unless --threads says more; frameworks alone start one a core. Whole "
        "cores have no such pauses (docker run --cpuset-cpus)"
    )
    return Finding(subject="CPU quota", state="warning", detail=detail)


def _load_finding(load: float, cores: int) -> Finding:
    limit = BUSY_LOAD_PER_CORE * cores
    if load > limit:
        detail = f"load average {load:.2f}, limit {limit:.2f}: stop what else runs here before you measure"
        return Finding(subject="quiet machine", state="warning", detail=detail)
    return Finding(subject="quiet machine", state="works", detail=f"load average {load:.2f}")


def _tool_findings() -> tuple[Finding, ...]:
    compiler = shutil.which("g++") or shutil.which("clang++")
    keras_nlp = importlib.util.find_spec("keras_nlp") is not None
    return (
        Finding(
            subject="torch.compile on CPU",
            state="works" if compiler else "missing",
            detail=f"C++ compiler at {compiler}" if compiler else "needs a C++ compiler: apt-get install g++",
        ),
        Finding(
            subject="bert",
            state="works" if keras_nlp else "missing",
            detail="keras_nlp is installed" if keras_nlp else "needs keras_nlp: pip install keras-nlp",
        ),
    )
