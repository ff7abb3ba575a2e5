"""What a result says about where it was measured: chosen facts, never a whole environment."""

from __future__ import annotations

import functools
import importlib.metadata
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from hvdtools import __version__
from hvdtools.core.cpus import usable_cpus
from hvdtools.core.installed import framework_version

# Everything else stays out: environments hold passwords and tokens.
RECORDED_VARIABLES = (
    "CUDA_VISIBLE_DEVICES",
    "GLOO_SOCKET_IFNAME",
    "HOROVOD_CONTROLLER",
    "HOROVOD_CPU_OPERATIONS",
    "HOROVOD_CYCLE_TIME",
    "HOROVOD_ENABLE_ASYNC_COMPLETION",
    "HOROVOD_FUSION_THRESHOLD",
    "KERAS_BACKEND",
    "NCCL_ALGO",
    "NCCL_IB_DISABLE",
    "NCCL_P2P_DISABLE",
    "NCCL_PROTO",
    "OMP_NUM_THREADS",
    "TF_ENABLE_ONEDNN_OPTS",
    "TF_XLA_FLAGS",
)


def recorded_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """The variables that change a speed, and no other."""
    return {name: environ[name] for name in RECORDED_VARIABLES if name in environ}


def _version(distribution: str) -> str:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def versions(mpi: str) -> dict[str, str]:
    """What a speed may hang on; `mpi` in its mpirun's words. Imports no framework."""
    return {
        "hvdtools": __version__,
        "horovod": _version("horovod"),
        "torch": framework_version("torch") or "not installed",
        "tensorflow": framework_version("tensorflow") or "not installed",
        "keras": _version("keras"),
        "python": platform.python_version(),
        "mpi": mpi,
    }


@functools.cache
def hardware() -> dict[str, str | int | float | list[str]]:
    """CPU model, cores this process may use, memory, GPU names; no name of host or user."""
    import psutil

    return {
        "cpu": _cpu_model(Path("/proc/cpuinfo")),
        "cores_usable": len(usable_cpus()),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "gpus": _gpu_names(),
    }


def _cpu_model(cpuinfo: Path) -> str:
    if cpuinfo.is_file():
        for line in cpuinfo.read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.machine()


def _gpu_names() -> list[str]:
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return []
    query = [tool, "--query-gpu=name", "--format=csv,noheader"]
    answer = subprocess.run(query, capture_output=True, text=True, timeout=30)
    return [line.strip() for line in answer.stdout.splitlines()] if answer.returncode == 0 else []


def without_names(text: str) -> str:
    """A program's last words without this machine's name or the user's home folder."""
    for private, shown in ((str(Path.home()), "~"), (platform.node(), "<host>")):
        if len(private) > 1:
            text = re.sub(rf"(?<!\w){re.escape(private)}(?!\w)", shown, text)
    return text
