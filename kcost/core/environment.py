"""What machine and software this is, as far as speed and results depend on it."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

import psutil

from kcost.core.cpu_quota import cpu_quota
from kcost.core.process import version_of
from kcost.core.result import Environment

PACKAGES = ("keras", "keras-nlp", "tensorflow", "jax", "jaxlib", "torch", "numpy", "kcost")
CPU_FEATURES = (
    *("avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "sve"),
)
VARIABLE_PREFIXES = (
    *("XLA_", "TF_", "JAX_", "OMP_", "MKL_", "ONEDNN_", "DNNL_", "KMP_", "ATEN_"),
    *("GLIBC_TUNABLES", "MALLOC_", "LD_PRELOAD"),
)
NOT_ABOUT_SPEED = frozenset({"TF_CLI_CONFIG_FILE"})


def collect() -> Environment:
    """The environment of this process. Starts no framework."""
    cpu = _cpu_info()
    quota = cpu_quota()
    flags = set((cpu.get("flags") or cpu.get("Features") or "").split())
    return Environment(
        host=platform.node(),
        os=platform.platform(),
        machine=platform.machine(),
        cpu_model=cpu.get("model name", platform.processor() or "unknown"),
        cpu_features=tuple(f for f in CPU_FEATURES if f in flags),
        cores=len(os.sched_getaffinity(0)),
        cpu_quota_cores=None if quota is None else quota.cores,
        memory_bytes=psutil.virtual_memory().total,
        numa_nodes=_numa_nodes(),
        accelerators=_nvidia_gpus(),
        python=platform.python_version(),
        packages={p: v for p in PACKAGES if (v := version_of(p)) is not None},
        variables={
            k: v for k, v in sorted(os.environ.items()) if k.startswith(VARIABLE_PREFIXES) and k not in NOT_ABOUT_SPEED
        },
        git_revision=_git_revision(),
    )


def _cpu_info() -> dict[str, str]:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except FileNotFoundError:  # not Linux: platform.processor() is all there is
        return {}
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}


def _numa_nodes() -> int | None:
    """Memory nodes with a core that this process may run on; None where the system does not say."""
    nodes = {
        link.name
        for core in os.sched_getaffinity(0)
        for link in Path(f"/sys/devices/system/cpu/cpu{core}").glob("node*")
    }
    return len(nodes) or None


def _nvidia_gpus() -> tuple[str, ...]:
    if shutil.which("nvidia-smi") is None:
        return ()
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30, check=False)
    return tuple(line.strip() for line in answer.stdout.splitlines() if line.strip()) if answer.returncode == 0 else ()


def _git_revision() -> str | None:
    if shutil.which("git") is None:
        return None
    answer = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return answer.stdout.strip() if answer.returncode == 0 else None


def load_1min() -> float:
    """The system's load average over the last minute."""
    return os.getloadavg()[0]
