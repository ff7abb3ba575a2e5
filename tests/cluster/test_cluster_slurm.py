"""That the Slurm of a test cluster is a real one, quick enough for tests."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from cluster_pmix import libpmix
from cluster_slurm import JobEnd, SlurmCluster
from cluster_state import ClusterError


def said(slurm: SlurmCluster, *argv: str | Path) -> list[str]:
    done = slurm.run(argv, timeout_s=30)
    assert done.returncode == 0, done
    return sorted(done.stdout.split("\n")[:-1])


def test_srun_runs_on_every_node(slurm_cluster: SlurmCluster) -> None:
    assert said(slurm_cluster, "srun", "-N4", "hostname") == ["host1", "host2", "host3", "host4"]


def test_a_node_has_four_gpus(slurm_cluster: SlurmCluster) -> None:
    show = 'echo "$CUDA_VISIBLE_DEVICES $(hostname)"'
    lines = said(slurm_cluster, "srun", "-N2", "--gres=gpu:2", "sh", "-c", show)
    assert lines == ["0,1 host1", "0,1 host2"]
    with pytest.raises(ClusterError, match=r"Requested node configuration is not available"):
        slurm_cluster.submit(["--gres=gpu:5", "--wrap=true"])


def test_too_long_a_job_is_refused_in_one_partition(slurm_cluster: SlurmCluster) -> None:
    with pytest.raises(ClusterError, match=r"Requested time limit is invalid"):
        slurm_cluster.submit(["--partition=short", "--time=10", "--wrap=true"])
    job = slurm_cluster.submit(["--partition=main", "--time=10", "--wrap=true"], cwd="/tmp")
    assert slurm_cluster.wait(job) == JobEnd("COMPLETED", 0, 0)


def test_how_a_job_ends(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    fails = slurm_cluster.submit(["--wrap=exit 3"], cwd=tmp_path)
    dies = slurm_cluster.submit(["--wrap=kill -9 $$"], cwd=tmp_path)
    stays = slurm_cluster.submit(["--wrap=sleep 300"], cwd=tmp_path)
    slurm_cluster.wait_for(stays, "RUNNING")
    with pytest.raises(TimeoutError, match=r"job \d+ is not .*COMPLETED"):
        slurm_cluster.wait(stays, timeout_s=0)
    assert slurm_cluster.wait(fails) == JobEnd("FAILED", 3, 0)
    assert slurm_cluster.wait(dies) == JobEnd("FAILED", 0, 9)
    slurm_cluster.cancel_all()
    assert slurm_cluster.state(stays) == "CANCELLED"
    assert slurm_cluster.cluster.processes() == []


def test_an_array_and_a_requeued_job(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    array = slurm_cluster.submit(
        ["--array=0-2", "--output=%a.txt", "--wrap=echo $SLURM_ARRAY_TASK_ID"], cwd=tmp_path
    )
    again = 'test "$SLURM_RESTART_COUNT" || { scontrol requeue $SLURM_JOB_ID; sleep 300; }'
    job = slurm_cluster.submit([f"--wrap={again}"], cwd=tmp_path)
    for task in range(3):
        assert slurm_cluster.wait(f"{array}_{task}").state == "COMPLETED"
        assert (tmp_path / f"{task}.txt").read_text() == f"{task}\n"
    assert slurm_cluster.wait(job) == JobEnd("COMPLETED", 0, 0)
    assert slurm_cluster.show(job)["Restarts"] == "1"


def test_a_running_job_gives_nodes_back(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    script = tmp_path / "shrinks.sh"
    script.write_text(
        "#!/bin/sh\nscontrol update JobId=$SLURM_JOB_ID NumNodes=2 >/dev/null\n"
        ". ./slurm_job_${SLURM_JOB_ID}_resize.sh\nsrun hostname\n"
    )
    job = slurm_cluster.submit(["-N4", "--output=out.txt", script], cwd=tmp_path)
    assert slurm_cluster.wait(job).state == "COMPLETED"
    assert sorted((tmp_path / "out.txt").read_text().split()) == ["host1", "host2"]


def test_srun_offers_pmix_and_ports(slurm_cluster: SlurmCluster) -> None:
    if libpmix() is None:
        pytest.skip("srun --mpi=pmix is missing here: apt-get install libpmix2")
    show = "echo $PMIX_RANK $SLURM_STEP_RESV_PORTS"
    lines = said(slurm_cluster, "srun", "-N2", "--mpi=pmix", "--resv-ports=2", "sh", "-c", show)
    assert [line.split()[0] for line in lines] == ["0", "1"]
    assert all(re.fullmatch(r"\d 12\d\d\d-12\d\d\d", line) for line in lines)


def test_a_node_comes_back_after_a_crash(slurm_cluster: SlurmCluster) -> None:
    slurm_cluster.cluster.crash("host2")
    slurm_cluster.cluster.boot("host2")
    slurm_cluster.wait_idle()
    assert said(slurm_cluster, "srun", "-w", "host2", "hostname") == ["host2"]


def test_healing_ends_jobs_and_starts_nodes(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    for nodes in ("host1,host2", "host3"):
        job = slurm_cluster.submit([f"-w{nodes}", "--wrap=srun sleep 300"], cwd=tmp_path)
        slurm_cluster.wait_for(job, "RUNNING")
    slurm_cluster.run(["scontrol", "update", "NodeName=host4", "State=DRAIN", "Reason=test"])
    slurm_cluster.cluster.crash("host1")
    slurm_cluster.heal()
    assert said(slurm_cluster, "squeue", "--noheader") == []
    assert said(slurm_cluster, "srun", "-N4", "hostname") == ["host1", "host2", "host3", "host4"]
