"""Rank variables of every starter are read in one place."""

from __future__ import annotations

import pytest

from hvdtools.errors import HvdtoolsError
from hvdtools.topology import ALONE, Promise, promised

HOROVODRUN = {
    "HOROVOD_RANK": "3",
    "HOROVOD_SIZE": "4",
    "HOROVOD_LOCAL_RANK": "1",
    "HOROVOD_LOCAL_SIZE": "2",
}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "3",
    "OMPI_COMM_WORLD_SIZE": "4",
    "OMPI_COMM_WORLD_LOCAL_RANK": "1",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "2",
}


def test_horovodrun() -> None:
    assert promised(HOROVODRUN) == Promise("horovodrun", 3, 4, 1, 2, serves_mpi=False)


def test_mpirun() -> None:
    assert promised(MPIRUN) == Promise("Open MPI's mpirun", 3, 4, 1, 2, serves_mpi=True)


def test_mpirun_inside_a_batch_job() -> None:
    """sbatch's variables are those of the batch step; mpirun's are the rank's."""
    slurm = {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_JOB_ID": "7"}
    assert promised({**slurm, **MPIRUN}).rank == 3


def test_nobody() -> None:
    assert promised({}) == ALONE


def test_a_batch_script_alone_is_one_process() -> None:
    assert promised({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}) == ALONE


@pytest.mark.parametrize(
    ("environ", "starter"),
    [
        ({"SLURM_PROCID": "1", "SLURM_STEP_NUM_TASKS": "4"}, "srun"),
        ({"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "a"}, "torchrun"),
        ({"PMI_RANK": "1", "PMI_SIZE": "4"}, "MPICH"),
    ],
)
def test_a_starter_without_a_meeting_point(environ: dict[str, str], starter: str) -> None:
    with pytest.raises(HvdtoolsError, match=f"one of 4 that .*{starter}.*`hvdtools launch`"):
        promised(environ)


def test_a_missing_variable_is_named() -> None:
    environ = {k: v for k, v in HOROVODRUN.items() if k != "HOROVOD_LOCAL_SIZE"}
    with pytest.raises(HvdtoolsError, match="but not HOROVOD_LOCAL_SIZE"):
        promised(environ)


def test_a_variable_that_is_no_number() -> None:
    with pytest.raises(HvdtoolsError, match="OMPI_COMM_WORLD_SIZE='many'"):
        promised({**MPIRUN, "OMPI_COMM_WORLD_SIZE": "many"})
