"""`hvdtools launch --on slurm` on a real Slurm: submitted, followed, stopped, refused."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

from cluster_slurm import SlurmCluster
from paths import PROGRAMS

PROGRAM = str(PROGRAMS / "rank_slurm_ends.py")
HVDTOOLS = [sys.executable, "-m", "hvdtools", "launch", "--on", "slurm"]
ENV = {"OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def launch(
    slurm: SlurmCluster, folder: Path, *words: str, inside: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return slurm.run([*inside, *HVDTOOLS, *words], env=ENV, cwd=folder, timeout_s=120)


def test_wait_follows_the_log_through_a_restart_and_returns_the_exit_code(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    size = ("--nodes", "2", "--ranks-per-node", "1", "--restarts", "1", "--wait")
    name = ("--name", 'a "b" #c \\', "--sbatch", "comment=it's JobState=FAILED")
    program = ("--", "python", PROGRAM, "in-turn", "4", "9")
    done = launch(slurm_cluster, tmp_path, *size, *name, *program)
    assert done.returncode == 9, done.stdout + done.stderr
    ended = re.findall(r"^\d: hvdtools: this rank ended with exit code (\d)$", done.stdout, re.M)
    assert set(ended) == {"4", "9"} and ended == sorted(ended)
    number = re.search(r"submitted as job (\d+)", done.stderr)
    assert number and f"job {number[1]} failed with exit code 9" in done.stderr
    assert f"job {number[1]} waits (BeginTime)" in done.stderr
    shown = slurm_cluster.run(["scontrol", "show", "job", number[1]]).stdout
    assert 'JobName=a "b" #c \\\n' in shown
    assert "Comment=it's JobState=FAILED hvdtools-restarts=1 \n" in shown


def test_every_word_arrives_in_a_sweep_of_a_container(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    fake = tmp_path / "bin" / "apptainer"
    fake.parent.mkdir()
    # Apptainer runs the program with the caller's variables and open files, as this does.
    fake.write_text('#!/bin/sh\n[ "$1 $2 $3" = "exec --nv an image" ] && shift 3 && exec "$@"\n')
    fake.chmod(0o755)
    path = f"PATH={fake.parent}:{Path(sys.executable).parent}:/usr/sbin:/usr/bin:/bin"
    hostile = ("it's", "; echo foo", "$HOME", "new\nline", "dos\r\n", ":", "", "\\")
    done = launch(
        slurm_cluster, tmp_path,
        *("--array", "2,1", "--ranks-per-node", "1", "--container", "an image"),
        "--wait", "--env", path, "--", sys.executable, PROGRAM, "words", str(tmp_path), *hostile,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("is here") == 3
    for rank in (0, 1):
        found = json.loads((tmp_path / f"{rank}.json").read_text())
        assert tuple(found["words"]) == hostile
    logs = {file.name[-11:] for file in tmp_path.glob("slurm-*.out")}
    assert logs == {"nodes-1.out", "nodes-2.out"}


def test_ctrl_c_cancels_the_job_and_waits_until_it_is_gone(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    words = [*HVDTOOLS, "-n", "2", "--wait", "--", "python", PROGRAM, "stays"]
    pipe = subprocess.PIPE
    process = slurm_cluster.cluster.popen("login", words, ENV, tmp_path, stdout=pipe, stderr=pipe)
    assert process.stdout is not None
    while "stays" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    number = re.search(r"canceling job (\d+)", errors)
    assert number and slurm_cluster.state(number[1]) == "CANCELLED"
    until = time.monotonic() + 30
    while slurm_cluster.cluster.processes(*slurm_cluster.nodes):
        assert time.monotonic() < until
        time.sleep(0.2)


def test_what_slurm_refuses_is_one_sentence(slurm_cluster: SlurmCluster, tmp_path: Path) -> None:
    done = launch(
        slurm_cluster, tmp_path, "-n1", "--partition", "short", "--time", "10", "--", "true"
    )
    assert done.returncode == 2
    assert "Slurm refuses the job: " in done.stderr and "time limit is invalid" in done.stderr
    assert "Traceback" not in done.stderr


def test_inside_an_allocation_the_ranks_are_a_step_of_it(
    slurm_cluster: SlurmCluster, tmp_path: Path
) -> None:
    inside = ("salloc", "--quiet", "-N2", "--ntasks-per-node=2")
    words = ("--nodes", "2", "--ranks-per-node", "2", "--", "python", PROGRAM)
    done = launch(slurm_cluster, tmp_path, *words, "words", str(tmp_path), inside=inside)
    assert done.returncode == 0, done.stdout + done.stderr
    heard = re.findall(r"^\[(\d)\] rank (\d) is here$", done.stdout, re.MULTILINE)
    assert sorted(heard) == [(str(rank), str(rank)) for rank in range(4)]
    done = launch(slurm_cluster, tmp_path, *words, "in-turn", "6", inside=inside)
    assert done.returncode == 6
    assert re.search(r"rank \d failed first with exit code 6", done.stderr)
