"""Rank and size of this process: the only reader of the launchers' rank variables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.text import parse_tasks_per_node


@dataclass(frozen=True)
class Topology:
    """This process in a running job, as Horovod reports it.

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
    """The launcher's environment variables for this process, before Horovod starts.

    Attributes:
        launcher: Its name in messages ("horovodrun", "srun"); "no launcher" without one.
        rank, size, local_rank, local_size: As in `Topology`.
        serves_mpi: True if Open MPI's own mpirun started the ranks: a Horovod with the
            MPI controller can use its start-up protocol.
        provides_rendezvous: True if Horovod finds the other ranks by itself over Gloo;
            False where `hvdtools.rendezvous` must connect them first.
        expect_size, expect_nodes: The ranks and nodes from `hvdtools launch`
            (``HVDTOOLS_SIZE``, ``HVDTOOLS_NODES``); None if not set.
    """

    launcher: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    serves_mpi: bool
    provides_rendezvous: bool = True
    expect_size: int | None = None
    expect_nodes: int | None = None


SINGLE_PROCESS = LaunchEnvironment("no launcher", 0, 1, 0, 1, serves_mpi=False)

# Set next to the variables that the rendezvous sets for Horovod: the address of rank 0's store.
RENDEZVOUS_MARK = "HVDTOOLS_MET"


def read_launch_environment(environ: Mapping[str, str]) -> LaunchEnvironment:
    """Read the rank variables of the launcher that started this process.

    The innermost launcher counts, since it started the most processes: torchrun
    once a node under srun, an mpirun with daemons that srun started. Without a
    launcher this is a single process, rank 0 of 1. So is a batch script, which has
    the job's variables but is not a step of it.

    Raises:
        HvdtoolsError: The variables are incomplete or not numbers. Continuing would
            train as many separate models as there are ranks.
    """
    found = _read_innermost(environ)
    return replace(
        found,
        expect_size=_read_count(environ, "HVDTOOLS_SIZE"),
        expect_nodes=_read_count(environ, "HVDTOOLS_NODES"),
    )


def _read_innermost(environ: Mapping[str, str]) -> LaunchEnvironment:
    if "HOROVOD_RANK" in environ and not _set_by_rendezvous(environ):
        return _read_ranks(environ, "horovodrun", "HOROVOD_", provides_rendezvous=True)
    if all(name in environ for name in _TORCHRUN):
        return _read_ranks(environ, "torchrun", _TORCHRUN[:4])
    if "OMPI_COMM_WORLD_RANK" in environ:
        return _read_ranks(environ, "Open MPI's mpirun", "OMPI_COMM_WORLD_", serves_mpi=True)
    if "MPI_LOCALRANKID" in environ and ("PMI_RANK" in environ or "PMI_PORT" in environ):
        return _read_hydra(environ)
    if "SLURM_PROCID" in environ and "SLURM_STEP_NUM_TASKS" in environ:
        return _read_srun(environ)
    if _read_count(environ, "PMI_SIZE") not in (None, 1):
        return _read_hydra(environ)  # its error names what is missing
    return SINGLE_PROCESS


def _set_by_rendezvous(environ: Mapping[str, str]) -> bool:
    """True if HOROVOD_RANK comes from our rendezvous, in this process or its parent.

    horovodrun names the address of another store: then its variables count.
    """
    names = ("HOROVOD_GLOO_RENDEZVOUS_ADDR", "HOROVOD_GLOO_RENDEZVOUS_PORT")
    return environ.get(RENDEZVOUS_MARK) == ":".join(environ.get(name, "") for name in names)


# RANK alone is too common a name to rely on.
_TORCHRUN = (
    *("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"),
    *("MASTER_ADDR", "MASTER_PORT"),
)
_FIELDS = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")


def _read_ranks(
    environ: Mapping[str, str],
    launcher: str,
    names: str | tuple[str, ...],
    *,
    serves_mpi: bool = False,
    provides_rendezvous: bool = False,
) -> LaunchEnvironment:
    """`names` are the variables of rank, size, local rank and local size, or their prefix."""
    if isinstance(names, str):
        names = tuple(names + field for field in _FIELDS)
    missing = [name for name in names if name not in environ]
    if missing:
        present = next((name for name in names if name in environ), "its variables")
        raise HvdtoolsError(
            f"{launcher} set {present} but not {', '.join(missing)}: start the job with "
            "`hvdtools launch`, which sets all of them."
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
        launcher, rank, size, local_rank, local_size, serves_mpi, provides_rendezvous
    )


def _read_count(environ: Mapping[str, str], name: str) -> int | None:
    value = environ.get(name)
    if value is None:
        return None
    if not value.isdigit():
        raise HvdtoolsError(f"{name} is {value!r}: set it to a whole number, or unset it.")
    return int(value)


def _read_hydra(environ: Mapping[str, str]) -> LaunchEnvironment:
    """MPICH's mpirun, and Intel MPI's, which descends from it."""
    launcher = "mpirun (MPICH or Intel MPI)"
    if "PMI_RANK" not in environ:
        raise HvdtoolsError(
            f"{launcher} was called with -pmi-port, and then tells ranks their numbers only "
            "through an MPI library: leave that option out."
        )
    names = ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
    return _read_ranks(environ, launcher, names)


# Names of the batch script's own step, where Slurm numbers it at all.
_BATCH_STEPS = ("batch", "4294967291")


def _read_srun(environ: Mapping[str, str]) -> LaunchEnvironment:
    """A step of srun. Without a step's variables this is a batch script or a shell.

    SLURM_NTASKS and SLURM_TASKS_PER_NODE describe the job and do not count here: a step
    may be smaller. Source: srun(1), "OUTPUT ENVIRONMENT VARIABLES".
    """
    if environ.get("SLURM_STEP_ID") in _BATCH_STEPS:
        return SINGLE_PROCESS
    tasks_name = "SLURM_STEP_TASKS_PER_NODE"
    tasks = parse_tasks_per_node(environ.get(tasks_name, ""))
    node = _read_count(environ, "SLURM_NODEID") or 0
    if node < len(tasks):
        environ = {**environ, tasks_name: str(tasks[node])}
    names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", tasks_name)
    return _read_ranks(environ, "srun", names)
