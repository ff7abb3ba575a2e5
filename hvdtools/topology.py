"""Who am I in this job: the only reader of rank variables, whoever set them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from hvdtools.errors import HvdtoolsError


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
class Promise:
    """What the launcher told this process in its environment, before Horovod speaks.

    Attributes:
        starter: Who set the variables, in words ("horovodrun", "Open MPI's mpirun").
        rank, size, local_rank, local_size: As in `Topology`.
        serves_mpi: True if Open MPI's own start-up protocol is there, which a
            Horovod with the MPI controller joins; False if Gloo coordinates.
    """

    starter: str
    rank: int
    size: int
    local_rank: int
    local_size: int
    serves_mpi: bool


ALONE = Promise("nobody", 0, 1, 0, 1, serves_mpi=False)


_FIELDS = ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE")


def _promise(environ: Mapping[str, str], starter: str, prefix: str, *, serves_mpi: bool) -> Promise:
    names = [prefix + field for field in _FIELDS]
    missing = [name for name in names if name not in environ]
    if missing:
        raise HvdtoolsError(
            f"{starter} set {names[0]} but not {', '.join(missing)}: start the job with "
            "`hvdtools launch`, which sets all of them."
        )
    try:
        rank, size, local_rank, local_size = (int(environ[name]) for name in names)
    except ValueError:
        shown = ", ".join(f"{name}={environ[name]!r}" for name in names)
        raise HvdtoolsError(
            f"{starter}'s rank variables are not whole numbers ({shown}): unset them or "
            "start the job with `hvdtools launch`."
        ) from None
    return Promise(starter, rank, size, local_rank, local_size, serves_mpi)


def promised(environ: Mapping[str, str]) -> Promise:
    """Read the rank variables of whoever started this process.

    Known starters are horovodrun (``HOROVOD_RANK`` and its kin, as set by
    Horovod's ``gloo_run``) and Open MPI's mpirun (``OMPI_COMM_WORLD_*``).
    Where none is found this process is alone: rank 0 of 1.

    Raises:
        HvdtoolsError: The variables are incomplete, or they are those of a
            starter that brings no meeting point for Horovod (srun, torchrun,
            another MPI). Going on would train as many separate models as
            there are ranks.
    """
    if "HOROVOD_RANK" in environ:
        return _promise(environ, "horovodrun", "HOROVOD_", serves_mpi=False)
    if "OMPI_COMM_WORLD_RANK" in environ:
        return _promise(environ, "Open MPI's mpirun", "OMPI_COMM_WORLD_", serves_mpi=True)
    _refuse_starters_without_a_meeting_point(environ)
    return ALONE


# (the starter, the variable that holds its world size). Slurm's name is the
# step's count: a batch script sees the job's SLURM_NTASKS, yet runs once.
_NO_MEETING_POINT = (
    ("srun", "SLURM_STEP_NUM_TASKS"),
    ("torchrun", "WORLD_SIZE"),
    ("an MPI that speaks PMI (MPICH, Intel MPI)", "PMI_SIZE"),
)


def _refuse_starters_without_a_meeting_point(environ: Mapping[str, str]) -> None:
    for starter, size_name in _NO_MEETING_POINT:
        size = environ.get(size_name, "1")
        if size.isdigit() and int(size) > 1:
            raise HvdtoolsError(
                f"This process is one of {size} that {starter} started ({size_name}={size}), "
                "and Horovod cannot meet the others that way: start the job with "
                "`hvdtools launch`, mpirun or horovodrun."
            )
