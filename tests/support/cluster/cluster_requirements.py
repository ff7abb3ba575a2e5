"""What a test cluster requires of this machine, and what is missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

# program -> Debian's package
FOR_HOSTS = {
    "unshare": "util-linux",
    "nsenter": "util-linux",
    "ip": "iproute2",
    "tc": "iproute2",
    "ssh": "openssh-client",
    "sshd": "openssh-server",
}
FOR_SLURM = {
    "munged": "munge",
    "slurmctld": "slurm-wlm",
    "slurmd": "slurm-wlm",
    "srun": "slurm-wlm",
    "sbatch": "slurm-wlm",
}
FOR_GRID_ENGINE = {
    "sge_qmaster": "gridengine-master",
    "sge_execd": "gridengine-exec",
    "qsub": "gridengine-client",
}
# What a host's process 1 does before it becomes sshd, and what a cable needs.
TRIAL = """
hostname trial; mount -t tmpfs tmpfs /run; mount -t sysfs sysfs /sys
ip link add lan type bridge; ip link add end type veth peer name nic
"""


@cache
def why_no_cluster(slurm: bool = False, grid_engine: bool = False) -> str | None:
    """Why there can be no test cluster here, with these schedulers; None if there can."""
    if not sys.platform.startswith("linux"):
        return "several hosts on one machine need Linux's namespaces."
    if os.geteuid() != 0:
        return "several hosts on one machine need root."
    schedulers = {**(FOR_SLURM if slurm else {}), **(FOR_GRID_ENGINE if grid_engine else {})}
    missing = _missing({**FOR_HOSTS, **schedulers})
    if missing:
        return f"{missing[0]} is missing here: apt-get install {' '.join(_packages(missing))}"
    if slurm and not Path("/etc/slurm").is_dir():
        return "this machine's Slurm does not read /etc/slurm, as Debian's slurm-wlm does."
    trial = subprocess.run(
        ["unshare", "--net", "--uts", "--ipc", "--mount", "--pid", "--fork", "--mount-proc",
         "sh", "-ec", TRIAL],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    if trial.returncode:
        said = trial.stderr.strip().split("\n")[-1]
        return f"this machine (a container?) does not permit new namespaces: {said}"
    return None


def _missing(programs: dict[str, str]) -> list[str]:
    # A person's PATH may lack the folders where daemons lie.
    path = f"{os.environ.get('PATH', '')}:/usr/local/sbin:/usr/sbin:/sbin"
    return [program for program in programs if shutil.which(program, path=path) is None]


def _packages(missing: list[str]) -> list[str]:
    return sorted({{**FOR_HOSTS, **FOR_SLURM, **FOR_GRID_ENGINE}[program] for program in missing})
