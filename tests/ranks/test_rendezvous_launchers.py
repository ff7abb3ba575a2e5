"""Real ranks under every launcher of this machine train as one process does."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from paths import PROGRAMS

TRAIN = (sys.executable, str(PROGRAMS / "rank_rendezvous.py"))
RENDEZVOUS_ONLY = (sys.executable, str(PROGRAMS / "rank_rendezvous_only.py"))
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "3")
BESIDE_PYTHON = Path(sys.executable).with_name("mpirun")
ROOT = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
GLOO = {"HOROVOD_CONTROLLER": "gloo"}
Ended = subprocess.CompletedProcess[str]


def mpich() -> str:
    return shutil.which("mpirun.mpich") or pytest.skip("there is no MPICH")


def open_mpi_4() -> str:
    return shutil.which("mpirun.openmpi") or pytest.skip("there is no system Open MPI")


def open_mpi_5() -> str:
    return str(BESIDE_PYTHON) if BESIDE_PYTHON.exists() else pytest.skip("no Open MPI from PyPI")


def run(argv: Sequence[str], timeout_s: float = 120, **env: str) -> Ended:
    """Run a launcher to its end; everything that it started ends with it."""
    process = subprocess.Popen(
        argv,
        env={**os.environ, "OMP_NUM_THREADS": "1", **ROOT, **env},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        output, errors = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return subprocess.CompletedProcess(list(argv), process.returncode, output, errors)


def seen(ended: Ended) -> list[dict[str, Any]]:
    """What the ranks of a successful job printed, in rank order."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    lines = [line[5:] for line in ended.stdout.splitlines() if line.startswith("SEEN ")]
    return sorted(map(json.loads, lines), key=lambda line: int(line.get("rank", 0)))


def assert_trained(ended: Ended, ranks: int, adapters: int = 1) -> None:
    lines = seen(ended)
    assert [line["rank"] for line in lines] == sorted([*range(ranks)] * adapters)
    assert all(line["size"] == line["local_size"] == ranks for line in lines)
    assert all(line["local_rank"] == line["rank"] for line in lines)
    assert all(line["difference"] < 1e-12 for line in lines), lines


def test_torchrun() -> None:
    ended = run([*TORCHRUN, TRAIN[1]])
    assert_trained(ended, 3)
    assert "3 ranks on 1 host (" in ended.stderr
    assert "0-2), started by torchrun, over Gloo" in ended.stderr


def test_mpich() -> None:
    ended = run([mpich(), "-n", "2", *TRAIN])
    assert_trained(ended, 2)
    assert "started by mpirun (MPICH or Intel MPI), over Gloo" in ended.stderr


def test_two_frameworks_in_one_process() -> None:
    """Each has a separate Horovod: there are two rendezvous."""
    assert_trained(run([mpich(), "-n", "2", *TRAIN, "torch", "tensorflow"]), 2, adapters=2)


def test_open_mpi_4_over_gloo() -> None:
    ended = run([open_mpi_4(), "--oversubscribe", "-n", "2", *TRAIN], **GLOO)
    assert_trained(ended, 2)
    assert "started by Open MPI's mpirun, over Gloo" in ended.stderr


def test_open_mpi_5_over_gloo() -> None:
    argv = [open_mpi_5(), "--host", "localhost:2", "--bind-to", "none", "-n", "2", *TRAIN]
    ended = run(argv, **GLOO)
    assert_trained(ended, 2)
    assert "started by Open MPI's mpirun, over Gloo" in ended.stderr


LAUNCHERS = {
    "mpich": lambda: [mpich()],
    "open_mpi_4": lambda: [open_mpi_4(), "--oversubscribe"],
    "open_mpi_5": lambda: [open_mpi_5(), "--host", "localhost:4"],
}


@pytest.mark.parametrize("launcher", ["mpich", "open_mpi_4", "open_mpi_5"])
def test_a_rank_that_never_starts(launcher: str) -> None:
    """The barriers of PMI and PMIx do not tell which rank is missing, but they must end."""
    program = " ".join(RENDEZVOUS_ONLY)
    late = f'test "${{PMI_RANK-$OMPI_COMM_WORLD_RANK}}" = 1 && exec sleep 5; exec {program}'
    argv = [*LAUNCHERS[launcher](), "-n", "2", "sh", "-c", late]
    ended = run(argv, HVDTOOLS_RENDEZVOUS_TIMEOUT_S="1.5", timeout_s=40, **GLOO)
    assert "Not all of the 2 ranks that" in ended.stdout, ended.stdout + ended.stderr
    assert "reached init() within 1.5 s" in ended.stdout
    assert ended.returncode != 0


def test_mpich_ends_a_job_with_a_failed_rank() -> None:
    """As for an MPI program: a rank that connects to the others and then fails ends the job."""
    fails = (
        "import os, runpy, sys, time; sys.argv[1:] = []; "
        f"runpy.run_path({RENDEZVOUS_ONLY[1]!r}, run_name='__main__'); "
        "time.sleep(60 * (os.environ['PMI_RANK'] == '0')); raise RuntimeError('bad luck')"
    )
    ended = run([mpich(), "-n", "2", sys.executable, "-c", fails], timeout_s=30)
    assert ended.returncode != 0
    assert "bad luck" in ended.stderr


def test_mpich_runs_one_program_in_a_rank() -> None:
    twice = f"{' '.join(RENDEZVOUS_ONLY)} && {' '.join(RENDEZVOUS_ONLY)}"
    ended = run([mpich(), "-n", "2", "sh", "-c", twice])
    assert "has closed its PMI connection to this rank" in ended.stdout
    assert ended.returncode != 0


@pytest.mark.parametrize("launcher", ["open_mpi_4", "open_mpi_5"])
def test_open_mpi_runs_two_programs_in_a_rank(launcher: str) -> None:
    twice = f"{' '.join(RENDEZVOUS_ONLY)} && {' '.join(RENDEZVOUS_ONLY)}"
    lines = seen(run([*LAUNCHERS[launcher](), "-n", "2", "sh", "-c", twice], **GLOO))
    assert sorted(line["HOROVOD_RANK"] for line in lines) == ["0", "0", "1", "1"]


def test_another_size_than_expected() -> None:
    ended = run([mpich(), "-n", "2", *TRAIN], HVDTOOLS_SIZE="3")
    assert ended.returncode != 0
    assert "HVDTOOLS_SIZE is 3, but mpirun (MPICH or Intel MPI) started 2 ranks" in (ended.stderr)


def test_another_number_of_hosts_than_expected() -> None:
    ended = run([mpich(), "-n", "2", *TRAIN], HVDTOOLS_SIZE="2", HVDTOOLS_NODES="2")
    assert ended.returncode != 0
    assert "HVDTOOLS_NODES is 2, but the 2 ranks run on 1 host" in ended.stderr


def test_no_launcher_started_the_ranks() -> None:
    ended = run(TRAIN, HVDTOOLS_SIZE="4")
    assert ended.returncode != 0
    assert "HVDTOOLS_SIZE is 4, but no launcher started this process" in ended.stderr
