"""The rank variables of every launcher."""

from __future__ import annotations

from dataclasses import replace

import pytest

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import (
    RENDEZVOUS_MARK,
    SINGLE_PROCESS,
    LaunchEnvironment,
    read_launch_environment,
)

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
HYDRA = {
    "PMI_FD": "6",
    "PMI_RANK": "3",
    "PMI_SIZE": "4",
    "MPI_LOCALRANKID": "1",
    "MPI_LOCALNRANKS": "2",
}
TORCHRUN = {
    "RANK": "3",
    "WORLD_SIZE": "4",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "2",
    "MASTER_ADDR": "host1",
    "MASTER_PORT": "29500",
}
# Set by sbatch in the script itself (Slurm 22.05), for a job of 4 tasks on 2 nodes ...
BATCH = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "4",
    "SLURM_TASKS_PER_NODE": "2(x2)",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}
# ... and srun in the last task of a smaller step in it.
STEP = {
    **BATCH,
    "SLURM_PROCID": "2",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "1",
    "SLURM_STEP_ID": "0",
    "SLURM_STEP_NUM_TASKS": "3",
    "SLURM_STEP_TASKS_PER_NODE": "2,1",
}
OF_STEP = LaunchEnvironment("srun", 2, 3, 0, 1, serves_mpi=False, provides_rendezvous=False)
OF_TORCHRUN = LaunchEnvironment("torchrun", 3, 4, 1, 2, serves_mpi=False, provides_rendezvous=False)
OF_HYDRA = replace(OF_TORCHRUN, launcher="mpirun (MPICH or Intel MPI)")
OF_MPIRUN = LaunchEnvironment(
    "Open MPI's mpirun", 3, 4, 1, 2, serves_mpi=True, provides_rendezvous=False
)


def test_horovodrun() -> None:
    assert read_launch_environment(HOROVODRUN) == LaunchEnvironment(
        "horovodrun", 3, 4, 1, 2, serves_mpi=False
    )


@pytest.mark.parametrize(
    ("environ", "launch_env"),
    [(MPIRUN, OF_MPIRUN), (HYDRA, OF_HYDRA), (TORCHRUN, OF_TORCHRUN), (STEP, OF_STEP)],
)
def test_a_launcher_without_a_rendezvous(
    environ: dict[str, str], launch_env: LaunchEnvironment
) -> None:
    assert read_launch_environment(environ) == launch_env


@pytest.mark.parametrize("outer", [BATCH, STEP], ids=["sbatch", "srun"])
@pytest.mark.parametrize(
    ("inner", "launch_env"), [(MPIRUN, OF_MPIRUN), (HYDRA, OF_HYDRA), (TORCHRUN, OF_TORCHRUN)]
)
def test_the_inner_launcher_counts(
    outer: dict[str, str], inner: dict[str, str], launch_env: LaunchEnvironment
) -> None:
    """An mpirun in a batch script starts its daemons by srun; srun may start torchruns."""
    assert read_launch_environment({**outer, **inner}) == launch_env


def test_sruns_pmi_variables_are_sruns() -> None:
    pmi2 = {"PMI_FD": "11", "PMI_RANK": "2", "PMI_SIZE": "3", "PMI_JOBID": "7.0"}
    pmix = {"PMIX_RANK": "2", "PMIX_NAMESPACE": "slurm.pmix.7.0"}
    assert (
        read_launch_environment({**STEP, **pmi2})
        == read_launch_environment({**STEP, **pmix})
        == OF_STEP
    )


@pytest.mark.parametrize(
    "environ",
    [
        {},
        BATCH,
        {**STEP, "SLURM_STEP_ID": "4294967291"},
        {"RANK": "1", "WORLD_SIZE": "4"},
        {"MASTER_ADDR": "host1", "MASTER_PORT": "29500"},
    ],
    ids=["no launcher", "a batch script", "the batch step", "half of torchrun", "the other half"],
)
def test_a_single_process(environ: dict[str, str]) -> None:
    assert read_launch_environment(environ) == SINGLE_PROCESS


def test_a_step_of_one_task() -> None:
    one = {"SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}
    found = read_launch_environment({**BATCH, "SLURM_STEP_ID": "0", **one})
    assert (found.rank, found.size, found.local_rank, found.local_size) == (0, 1, 0, 1)


@pytest.mark.parametrize(
    ("text", "node", "local_size"),
    [("3(x2),1", 0, 3), ("3(x2),1", 1, 3), ("3(x2),1", 2, 1), ("12", 0, 12)],
)
def test_tasks_on_each_node_of_a_step(text: str, node: int, local_size: int) -> None:
    environ = {**STEP, "SLURM_STEP_TASKS_PER_NODE": text, "SLURM_NODEID": str(node)}
    assert read_launch_environment(environ).local_size == local_size


def test_tasks_in_an_unknown_notation() -> None:
    with pytest.raises(HvdtoolsError, match=r"SLURM_STEP_TASKS_PER_NODE='2 each'"):
        read_launch_environment({**STEP, "SLURM_STEP_TASKS_PER_NODE": "2 each"})


def test_variables_of_the_rendezvous_are_not_horovodruns() -> None:
    store = {
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1",
        "HOROVOD_GLOO_RENDEZVOUS_PORT": "4000",
    }
    after = {**STEP, **HOROVODRUN, **store, RENDEZVOUS_MARK: "10.0.0.1:4000"}
    assert read_launch_environment(after) == OF_STEP
    # A horovodrun started by such a rank names another store.
    below = {**after, "HOROVOD_GLOO_RENDEZVOUS_PORT": "5000"}
    assert read_launch_environment(below).launcher == "horovodrun"


def test_the_expected_size() -> None:
    found = read_launch_environment({**STEP, "HVDTOOLS_SIZE": "3", "HVDTOOLS_NODES": "2"})
    assert found == replace(OF_STEP, expect_size=3, expect_nodes=2)
    with pytest.raises(HvdtoolsError, match="HVDTOOLS_NODES is 'two'"):
        read_launch_environment({"HVDTOOLS_NODES": "two"})


@pytest.mark.parametrize(
    ("environ", "missing"),
    [
        (HOROVODRUN, "HOROVOD_LOCAL_SIZE"),
        (MPIRUN, "OMPI_COMM_WORLD_SIZE"),
        (HYDRA, "PMI_SIZE"),
        (STEP, "SLURM_LOCALID"),
    ],
)
def test_a_missing_variable_is_named(environ: dict[str, str], missing: str) -> None:
    with pytest.raises(HvdtoolsError, match=f"but not {missing}"):
        read_launch_environment({name: value for name, value in environ.items() if name != missing})


def test_ranks_of_an_unknown_pmi() -> None:
    with pytest.raises(HvdtoolsError, match="but not MPI_LOCALRANKID, MPI_LOCALNRANKS"):
        read_launch_environment({"PMI_RANK": "1", "PMI_SIZE": "4"})


def test_mpich_with_a_pmi_port() -> None:
    with pytest.raises(HvdtoolsError, match="leave that option out"):
        read_launch_environment({"PMI_PORT": "vm:39041", "PMI_ID": "0", "MPI_LOCALRANKID": "0"})


def test_a_variable_that_is_not_a_number() -> None:
    with pytest.raises(HvdtoolsError, match="OMPI_COMM_WORLD_SIZE='many'"):
        read_launch_environment({**MPIRUN, "OMPI_COMM_WORLD_SIZE": "many"})
