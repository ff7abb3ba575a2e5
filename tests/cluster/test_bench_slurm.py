"""`hvdtools bench run --on slurm` and `--hosts` on real nodes: a job a node count, gathered."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from cluster_hosts import ClusterHosts
from cluster_slurm import SlurmCluster

from hvdtools.bench.results.result_file import FILE_NAME, read

BENCH = [sys.executable, "-m", "hvdtools", "bench"]
ENV = {"COLUMNS": "200", "TF_CPP_MIN_LOG_LEVEL": "3"}
SUITE = """
name = "tiny"
ranks = [1]
repeats = 1
threads_per_rank = 1
timeout_s = 120
[[program]]
file = "train_torch.py"
engines = [{engines}]
scaling = ["weak"]
[program.options]
model = "cnn"
data = "synthetic"
batch_size = 45
steps = 4
max_blocks = 6
limit_s = 1
"""


def write_suite(folder: Path, *engines: str) -> None:
    listed = ", ".join(f'"{engine}"' for engine in engines)
    (folder / "tiny.toml").write_text(SUITE.format(engines=listed))


def bench(
    slurm: SlurmCluster, folder: Path, *words: str, timeout_s: float = 240
) -> subprocess.CompletedProcess[str]:
    return slurm.run([*BENCH, *words], env=ENV, cwd=folder, timeout_s=timeout_s)


SLURM = ("run", "tiny.toml", "--on", "slurm", "--nodes", "1,2", "--ranks-per-node", "2")


ENGINES = pytest.mark.parametrize(
    "engines",
    [
        ("hvdtools-mpi", "ddp"),
        pytest.param(("hvdtools-gloo", "horovod-mpi", "no_comm"), marks=pytest.mark.slow),
    ],
    ids="-".join,
)


@ENGINES
def test_one_job_a_node_count_gathered_into_one_run(
    engines: tuple[str, ...], slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    write_suite(tmp_path, *engines)
    done = bench(slurm_cluster, tmp_path, *SLURM[:5], "1", *SLURM[6:])
    assert done.returncode == 0, done.stdout + done.stderr
    file = tmp_path / "results" / "tiny" / FILE_NAME
    first = read(file).results
    assert re.findall(r"nodes (\d): submitted", done.stdout) == ["1"]
    assert {(each.engine, each.ranks, each.nodes) for each in first} == {
        (engine, ranks, 1) for engine in engines for ranks in (1, 2)
    }

    # What is there already is not measured again.
    more = bench(slurm_cluster, tmp_path, *SLURM, "--resume")
    assert more.returncode == 0, more.stdout + more.stderr
    assert re.findall(r"nodes (\d): submitted", more.stdout) == ["2"]
    found = read(file).results
    assert found[: len(first)] == first
    assert [(each.ranks, each.nodes) for each in found[len(first) :]] == [(4, 2)] * len(engines)
    assert len({result.run_id for result in found}) == 1
    for result in found:
        assert result.training is not None, result.error
        assert len(result.training.rank_step_s) == result.ranks
        alone = result.ranks == 1 or result.engine == "no_comm"
        assert result.training.in_sync is (None if alone else True)
    assert "node" in more.stdout and (file.parent / "report.html").is_file()

    again = bench(slurm_cluster, tmp_path, *SLURM, "--resume")
    assert again.returncode == 0 and "submitted" not in again.stdout
    assert read(file).results == found


def test_a_stopped_run_cancels_its_jobs(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    write_suite(tmp_path, "hvdtools-gloo")
    words = [*BENCH, *SLURM]
    pipe = subprocess.PIPE
    process = slurm_cluster.cluster.popen("login", words, ENV, tmp_path, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    said = ""
    while "runs on" not in (line := process.stdout.readline()):
        said += line
        assert process.poll() is None, said
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=90)
    assert process.returncode == 2
    assert "The run was stopped: the same command with `--resume --run" in errors
    for number in re.findall(r"submitted as job (\d+)", said):
        assert slurm_cluster.wait(number).state == "CANCELLED"


def test_slurm_is_asked_for_what_the_dry_run_shows(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    write_suite(tmp_path, "hvdtools-gloo")
    more = ("--sbatch", "partition=nowhere", "--run", "a-run", "--interface", "eth0")
    shown = bench(slurm_cluster, tmp_path, *SLURM, *more, "--dry-run")
    folder = tmp_path / "results" / "tiny" / "parts" / "a-run"
    assert shown.returncode == 0 and shown.stdout == "".join(
        f"# nodes {nodes}: sbatch --parsable --job-name=hvdtools-bench-a-run "
        f"--dependency=singleton --nodes={nodes} --ntasks-per-node=2 --open-mode=append "
        f"--output={folder}/nodes-{nodes}/log --partition=nowhere\n#!/bin/bash\n"
        f"exec {sys.executable} -m hvdtools bench run tiny.toml --on slurm --nodes {nodes} "
        f"--ranks-per-node 2 --ranks {ranks} --repeats 1 --out {folder}/nodes-{nodes} --run a-run "
        "--interface eth0\n\n"
        for nodes, ranks in ((1, "1"), (2, "none"))
    )
    assert not (tmp_path / "results").exists()
    refused = bench(slurm_cluster, tmp_path, *SLURM, *more)
    assert refused.returncode == 2 and "invalid partition" in refused.stderr
    assert refused.stderr.count("\n") == 1
    local = bench(slurm_cluster, tmp_path, "run", "demo", "--on", "slurm")
    assert local.returncode == 2 and "says nothing of nodes" in local.stderr


@ENGINES
def test_hosts_that_ssh_reaches(
    engines: tuple[str, ...], cluster_hosts: ClusterHosts, tmp_path: Path
) -> None:
    write_suite(tmp_path, *engines)
    hosts = ",".join(f"{host}:2" for host in cluster_hosts.hosts[:2])
    words = ("--hosts", hosts, "--nodes", "2", "--ranks-per-node", "2", "--ranks", "none")
    argv = [*BENCH, "run", "tiny.toml", *words, "--interface", "eth0"]
    done = cluster_hosts.exec(cluster_hosts.hosts[0], argv, env=ENV, cwd=tmp_path, timeout_s=200)
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(tmp_path / "results" / "tiny" / FILE_NAME).results
    assert [(each.ranks, each.nodes, each.error) for each in found] == [(4, 2, None)] * len(engines)
    assert all(f"--hosts {hosts}" in each.command for each in found)
