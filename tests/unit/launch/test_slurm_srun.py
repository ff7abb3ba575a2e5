"""srun as a launcher inside an allocation: its command line, its words, and launch/srun.sh."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from paths import SCRIPTS

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch import JobSpec, make_plan
from hvdtools.launch.launchers import srun
from hvdtools.launch.machine import Machine
from hvdtools.launch.outcome import Failure
from hvdtools.launch.scheduler import Allocation
from hvdtools.launch.schedulers.slurm.request import Slurm

SCRIPT = SCRIPTS / "srun.sh"
HOSTILE = ("./run", 'say "hi"', "it's", "; echo foo", "$HOME", "new\nline\n", "", "*", ":", "-n")
MACHINE = Machine(
    slots=1,
    is_root=False,
    python="/env/bin/python",
    mpirun=None,
    horovod="0.28.1",
    controllers=("gloo",),
    srun="/usr/bin/srun",
    allocations={"slurm": Allocation("12")},
)


def test_plan_word_for_word() -> None:
    spec = JobSpec(
        ("python", "train.py"), 8, on=Slurm(), nodes=2, ranks_per_node=4, cpus_per_rank=3,
        gpus_per_node=4, distribution="cyclic", pass_on=("--exclusive",),
    )  # fmt: skip
    assert make_plan(spec, MACHINE).text() == (
        "env PYTHONUNBUFFERED=1 HVDTOOLS_SIZE=8 HVDTOOLS_NODES=2 OMP_NUM_THREADS=3 /usr/bin/srun "
        "--kill-on-bad-exit=1 --label --mpi=pmi2 --cpu-bind=none --nodes=2 --ntasks=8 "
        "--ntasks-per-node=4 --cpus-per-task=3 --gpus-per-node=4 --distribution=cyclic --exclusive "
        "/env/bin/python train.py"
    )


@pytest.mark.parametrize(
    ("size", "options"),
    [
        ({}, ["--ntasks=4"]),
        ({"nodes": 2}, ["--nodes=2", "--ntasks=4"]),
        ({"nodes": 2, "ranks_per_node": 2}, ["--nodes=2", "--ntasks=4", "--ntasks-per-node=2"]),
        ({"ranks_per_node": 2}, ["--ntasks=4", "--ntasks-per-node=2"]),
    ],
)
def test_how_many_ranks_and_where(size: dict[str, int], options: list[str]) -> None:
    assert list(srun.size(JobSpec(("./run",), 4, on=Slurm(), **size))) == options  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("machine", "says"),
    [
        (replace(MACHINE, srun=None), "There is no srun on PATH"),
        (replace(MACHINE, allocations={}), "inside a Slurm job, and this process is not in one"),
    ],
)
def test_where_it_cannot_start(machine: Machine, says: str) -> None:
    with pytest.raises(HvdtoolsError, match=says):
        srun.usable(JobSpec(("./run",), 4, on=Slurm()), machine)


def test_the_tag_stands_at_the_beginning_alone() -> None:
    tag = srun.tag(())
    found = tag.search(" 3: loss: 0.5")
    assert found and (found["rank"], " 3: loss: 0.5"[found.end() :]) == ("3", "loss: 0.5")
    assert tag.search("11: ")
    assert not tag.search("srun: error: host1: task 1: Killed")
    assert [found.end() for found in tag.finditer("1: 2: 3: x")] == [3]


WORDS = """\
srun: error: host1: task 1: Exited with exit code 3
srun: launch/slurm: _step_signal: Terminating StepId=23.0
srun: error: host-2.example: tasks 2-3,7: Terminated
srun: error: host3: task 4: Segmentation fault (core dumped)
srun: error: host3: task 5: Out Of Memory
srun: Force Terminated StepId=23.0
srun: error: host3: task 6: Killed
"""


def test_failures_in_the_order_in_which_srun_heard_of_them() -> None:
    ended = [(1, 3), (2, 143), (3, 143), (7, 143), (4, 139), (5, 137), (6, 137)]
    assert srun.failures(WORDS, 143) == tuple(Failure(rank, code) for rank, code in ended)
    assert srun.failures("srun: error: Unable to allocate resources: no such partition", 1) == ()
    assert srun.failures("srun: error: host1: task 0: Something new", 1) == ()


def test_the_script_equals_the_plan(tmp_path: Path) -> None:
    fake = tmp_path / "srun"
    fake.write_text(
        "#!/bin/bash\n"
        "if [[ $* == --mpi=list ]]; then echo 'specific plugins: pmix pmi2 none' >&2; exit; fi\n"
        "printf '%s\\0' \"$@\"; printf '\\0\\0'; echo \"$PYTHONUNBUFFERED\"\n"
    )
    fake.chmod(0o755)
    spec = JobSpec(HOSTILE, 4, on=Slurm(), nodes=2, ranks_per_node=2)
    plan = make_plan(spec, MACHINE)
    done = subprocess.run(
        [SCRIPT, "--nodes=2", "--ntasks=4", "--ntasks-per-node=2", *HOSTILE],
        env={**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        check=True,
    )
    argv, _, unbuffered = done.stdout.partition("\0\0\0")
    assert argv.split("\0") == list(plan.argv[1:])
    assert unbuffered.strip() == dict(plan.env)["PYTHONUNBUFFERED"]


def test_the_script_says_that_a_program_is_missing() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 2 and "there is no program to run" in done.stderr
    assert done.stderr.count("\n") == 1
