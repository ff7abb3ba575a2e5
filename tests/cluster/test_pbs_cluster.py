"""Jobs under PBS: real ranks on hosts that the PBS of the tests allocates."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from cluster_hosts import ClusterHosts
from paths import HVDTOOLS, PROGRAMS, TESTS
from test_launch_cluster import assert_places, found_by_rank

SAVES = """
import os, signal, sys, time
def save(signum, frame):
    print("saved", flush=True)
    sys.exit(0)
signal.signal(signal.SIGUSR1, save)
print("trains", flush=True)
time.sleep(60)
"""


@pytest.fixture
def pbs(cluster_hosts: ClusterHosts, tmp_path: Path) -> Any:
    """What to run `hvdtools launch --on pbs` with, and where."""
    programs = tmp_path / "pbs"
    programs.mkdir()
    for name in ("qsub", "qstat", "qdel"):
        program = programs / name
        program.write_text(
            f"#!{sys.executable}\nimport sys\nsys.path.insert(0, {str(TESTS / 'support')!r})\n"
            "from fake_pbs import main\nmain()\n"
        )
        program.chmod(0o755)
    return {
        "env": {
            "OMP_NUM_THREADS": "1",
            "PATH": f"{programs}:{os.environ['PATH']}",
            "FAKE_PBS": str(tmp_path / "jobs"),
            "FAKE_PBS_NODES": "host1:4 host2:4",
        },
        "cwd": tmp_path,
    }


LAUNCH = (HVDTOOLS, "launch", "--on", "pbs", "--nodes", "2", "--ranks-per-node", "2", "--wait")


def test_ranks_start_on_the_nodes_of_the_job(cluster_hosts: ClusterHosts, pbs: Any) -> None:
    command = [*LAUNCH, "--", "python", str(PROGRAMS / "rank_place.py")]
    done = cluster_hosts.exec("host1", command, **pbs, timeout_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert_places(found_by_rank(done.stdout), ["host1", "host1", "host2", "host2"])
    assert "submitted as job 1.pbs" in done.stderr and "job 1: done" in done.stderr
    assert "job 1 runs on host1/0*2+host2/0*2" in done.stderr


def test_a_sweep_runs_on_each_number_of_nodes(cluster_hosts: ClusterHosts, pbs: Any) -> None:
    where = ("--array", "1,2", "--ranks-per-node", "1", "--wait")
    program = "import os; print('of', os.environ['HVDTOOLS_SIZE'])"
    command = [HVDTOOLS, "launch", "--on", "pbs", *where, "--", "python", "-c", program]
    done = cluster_hosts.exec("host1", command, **pbs, timeout_s=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert sorted(re.findall(r"of \d", done.stdout)) == ["of 1", "of 2", "of 2"]


def test_the_exit_code_is_that_of_the_rank_that_failed(
    cluster_hosts: ClusterHosts, pbs: Any
) -> None:
    program = (
        "import os, sys, time\n"
        "sys.exit(3) if os.environ['OMPI_COMM_WORLD_RANK'] == '3' else time.sleep(60)"
    )
    done = cluster_hosts.exec(
        "host1", [*LAUNCH, "--", "python", "-c", program], **pbs, timeout_s=120
    )
    assert done.returncode == 3, done.stdout + done.stderr
    assert "rank 3 failed first with exit code 3" in done.stdout
    assert "job 1 failed with exit code 3" in done.stderr


def test_ranks_are_told_to_save_before_the_time_limit(
    cluster_hosts: ClusterHosts, pbs: Any
) -> None:
    limit = ("--time", "00:00:30", "--signal", "24")
    done = cluster_hosts.exec(
        "host1", [*LAUNCH, *limit, "--", "python", "-c", SAVES], **pbs, timeout_s=120
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(re.findall(r"^\[\d\] saved$", done.stdout, re.MULTILINE)) == 4


def test_a_job_that_is_interrupted_leaves_no_process(cluster_hosts: ClusterHosts, pbs: Any) -> None:
    process = cluster_hosts.popen(
        "host1",
        [*LAUNCH, "--", "python", "-c", SAVES],
        **pbs,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    log = pbs["cwd"] / "pbs-1.out"
    deadline_s = time.monotonic() + 60
    while not log.exists() or log.read_text().count("trains") < 4:
        assert time.monotonic() < deadline_s, process.communicate(timeout=5)
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130 and "canceling job 1.pbs" in err, out + err
    while cluster_hosts.processes():
        assert time.monotonic() < deadline_s + 30, cluster_hosts.processes()
        time.sleep(0.2)
