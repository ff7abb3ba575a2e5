"""Who am I in this job: the only reader of rank variables, whoever set them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from hvdtools.core.errors import HvdtoolsError


@dataclass(frozen=True)
class Topology:
    """The place of this process in a running job, as Horovod reports it.

    Attributes:
        rank: This process among all, 0 to `size` - 1.
        size: Number of processes in the job (the world size).
        local_rank: This process among those of its node, 0 to `local_size` - 1.
        local_size: Number of processes on this node.
        node: This node among all, 0 to `nodes` - 1, in the order of its lowest rank.
        nodes: Number of nodes in the job.
    """

    rank: int
    size: int
    local_rank: int
    local_size: int
    node: int
    nodes: int


@dataclass(frozen=True)
class LaunchEnvironment:
    """What the launcher told this process in its environment, before Horovod speaks.

    Attributes:
        launcher: Who set the variables, in words ("horovodrun", "srun").
        rank, size, local_rank, local_size: As in `Topology`.
        serves_mpi: True if Open MPI's own mpirun started the ranks, whose start-up
            protocol a Horovod with the MPI controller joins.
        brings_meeting_point: True if Horovod finds the other ranks by itself over
            Gloo; False where `hvdtools.rendezvous` must bring them together first.
        expect_size, expect_nodes: How many ranks and nodes `hvdtools launch` asked
            for (``HVDTOOLS_SIZE``, ``HVDTOOLS_NODES``); None where nobody said.
    """

    launcher: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    serves_mpi: bool
    brings_meeting_point: bool = True
    expect_size: int | None = None
    expect_nodes: int | None = None


ALONE = LaunchEnvironment("nobody", 0, 1, 0, 1, serves_mpi=False)

# Beside the variables that the rendezvous set for Horovod: where its meeting point is.
MET = "HVDTOOLS_MET"


def read_launch_environment(environ: Mapping[str, str]) -> LaunchEnvironment:
    """Read the rank variables of whoever started this process.

    The innermost launcher counts, since it started the most processes: torchrun
    once a node under srun, an mpirun whose daemons srun started. Where none is
    found this process is alone: rank 0 of 1. So is a batch script, which sees the
    job's variables but is not a step of it.

    Raises:
        HvdtoolsError: The variables are incomplete or no numbers. Going on would
            train as many separate models as there are ranks.
    """
    found = _launcher(environ)
    return replace(
        found,
        expect_size=_number(environ, "HVDTOOLS_SIZE"),
        expect_nodes=_number(environ, "HVDTOOLS_NODES"),
    )


def _launcher(environ: Mapping[str, str]) -> LaunchEnvironment:
    if "HOROVOD_RANK" in environ and not _were_set_by_the_rendezvous(environ):
        return _promise(environ, "horovodrun", "HOROVOD_", brings_meeting_point=True)
    if all(name in environ for name in _TORCHRUN):
        return _promise(environ, "torchrun", _TORCHRUN[:4])
    if "OMPI_COMM_WORLD_RANK" in environ:
        return _promise(environ, "Open MPI's mpirun", "OMPI_COMM_WORLD_", serves_mpi=True)
    if "MPI_LOCALRANKID" in environ and ("PMI_RANK" in environ or "PMI_PORT" in environ):
        return _hydra(environ)
    if "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        return _slurm(environ)
    if _number(environ, "PMI_SIZE") not in (None, 1):
        return _hydra(environ)  # which says what is missing
    return ALONE


def _were_set_by_the_rendezvous(environ: Mapping[str, str]) -> bool:
    """True if HOROVOD_RANK is ours, of an earlier start in this process or its parent.

    horovodrun names a meeting point of its own: then its variables count.
    """
    names = ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")
    return environ.get(MET) == ":".join(environ.get(name, "") for name in names)


# RANK alone is too plain a name to go by.
_TORCHRUN = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)
_FIELDS = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")


def _promise(
    environ: Mapping[str, str],
    launcher: str,
    names: str | tuple[str, ...],
    *,
    serves_mpi: bool = False,
    brings_meeting_point: bool = False,
) -> LaunchEnvironment:
    """`names` are the variables of rank, size, local rank and local size, or their prefix."""
    if isinstance(names, str):
        names = tuple(names + field for field in _FIELDS)
    missing = [name for name in names if name not in environ]
    if missing:
        raise HvdtoolsError(
            f"{launcher} set {_first_set(names, environ)} but not {', '.join(missing)}: start the "
            "job with `hvdtools launch`, which sets all of them."
        )
    try:
        rank, size, local_rank, local_size = (int(environ[name]) for name in names)
    except ValueError:
        shown = ", ".join(f"{name}={environ[name]!r}" for name in names)
        raise HvdtoolsError(
            f"{launcher}'s rank variables are not whole numbers ({shown}): unset them or "
            "start the job with `hvdtools launch`."
        ) from None
    return LaunchEnvironment(
        launcher, rank, size, local_rank, local_size, serves_mpi, brings_meeting_point
    )


def _first_set(names: tuple[str, ...], environ: Mapping[str, str]) -> str:
    return next((name for name in names if name in environ), "its variables")


def _number(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name)
    if value is None:
        return None
    if not value.isdigit():
        raise HvdtoolsError(f"{name} is {value!r}: it must be a whole number, or not set at all.")
    return int(value)


def _hydra(environ: Mapping[str, str]) -> LaunchEnvironment:
    """The mpirun of MPICH and of Intel MPI, which is MPICH's too."""
    launcher = "mpirun (MPICH or Intel MPI)"
    if "PMI_RANK" not in environ:
        raise HvdtoolsError(
            f"{launcher} was called with -pmi-port, and then tells ranks their numbers only "
            "through an MPI library: leave that option out."
        )
    names = ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
    return _promise(environ, launcher, names)


# What a batch script's own step is called, where Slurm gives it a number at all.
_BATCH_STEPS = ("batch", "4294967291")


def _slurm(environ: Mapping[str, str]) -> LaunchEnvironment:
    """A step of srun's. Without a step's variables it is a batch script or a shell.

    SLURM_NTASKS and SLURM_TASKS_PER_NODE are the job's and do not count here: a step
    may be smaller. Source: srun(1), "OUTPUT ENVIRONMENT VARIABLES".
    """
    if environ.get("SLURM_STEP_ID") in _BATCH_STEPS:
        return ALONE
    tasks_name = "SLURM_STEP_TASKS_PER_NODE"
    tasks = read_tasks_per_node(environ.get(tasks_name, ""))
    node = _number(environ, "SLURM_NODEID") or 0
    if node < len(tasks):
        environ = {**environ, tasks_name: str(tasks[node])}
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", tasks_name)
    return _promise(environ, "srun", names)


def read_tasks_per_node(text: str) -> list[int]:
    """ "3(x2),1" -> [3, 3, 1]; [] for any other text."""
    if not re.fullmatch(r"\d+(\(x\d+\))?(,\d+(\(x\d+\))?)*", text):
        return []
    runs = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in runs for _ in range(int(times or 1))]
