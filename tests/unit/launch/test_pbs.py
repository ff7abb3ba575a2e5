"""PBS: the script that a job becomes, what a PBS that knows its manual says to it, its states."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import fake_pbs
import pytest
from paths import GOLDEN

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.hosts import Host
from hvdtools.launch.machine import Machine
from hvdtools.launch.planner import make_plan, make_submission
from hvdtools.launch.scheduler import Allocation
from hvdtools.launch.schedulers.pbs import Pbs, query, read_jobs, read_node_file
from hvdtools.launch.spec import JobSpec

MACHINE = Machine(4, False, "/env dir/bin/python", None, "0.28.1", ("gloo",))
HOSTILE = (
    *("python", "a b.py", 'say "hi"', "it's", "; echo foo", "$HOME", "`id`", "new\nline"),
    *("", "*", ":", "\\", "#PBS -q root", "é", "--", "-n"),
)
PLAIN = JobSpec(("python", "train.py", "--lr", "0.1"), 4, on=Pbs())
EVERYTHING = JobSpec(
    HOSTILE,
    8,
    "mpirun",
    (("QUOTED", "a \"b\" 'c' ; $HOME \\"), ("LINES", "1\n#PBS -q root\n2"), ("EMPTY", "")),
    on=Pbs(
        account="a/c#1",
        queue="gpu@server",
        time="1-02:00:10",
        signal=60,
        qsub=("-W group_list=ml", "-m abe", "-p 100"),
    ),
    nodes=2,
    ranks_per_node=4,
    gpus_per_node=4,
    cpus_per_rank=6,
    distribution="cyclic",
    bind="numa",
    interface="ib0",
    name="my_job-1",
    restarts=2,
    log_dir=Path("logs; $HOME"),
    pass_on=("--mca", "pml", "ucx x"),
)
SWEEP = JobSpec(("./run me",), 2, on=Pbs(array="4,1,2"), ranks_per_node=2, timeout_s=3601)
JOBS = {"plain": PLAIN, "everything": EVERYTHING, "sweep": SWEEP}


def document(spec: JobSpec) -> str:
    return make_submission(spec, MACHINE).document


@pytest.mark.parametrize("name", JOBS)
def test_the_script_is_the_expected_one(name: str) -> None:
    assert document(JOBS[name]) == (GOLDEN / f"pbs-{name}.sh").read_text()


@pytest.mark.parametrize("name", JOBS)
def test_its_directives_are_what_the_manual_allows(name: str) -> None:
    found = [fake_pbs.split(line) for line in fake_pbs.directives(document(JOBS[name]))]
    given = [fake_pbs.options(words) for words in found]
    requests = [request for each in given for request in each.get("-l", [])]
    chunks, walltime_s = fake_pbs.resources(requests)
    nodes = {"plain": 1, "everything": 2, "sweep": 4}[name]
    assert len(chunks) == nodes
    assert walltime_s == {"plain": None, "everything": 93610, "sweep": 3601}[name]


@pytest.mark.parametrize(
    "words",
    [
        ["-Z"], ["-N", "two words"], ["-J", "3-1"], ["-J", "2"], ["-r", "maybe"], ["-j", "both"],
        ["-m", "x"], ["-W", "nothing"], ["--wait"], ["-l", "select=2:cpus=4"],
        ["-l", "select=2:ncpus=many"], ["-l", "walltime=2h"], ["-l", "ncpus=4"],
        ["-l", "place=everywhere"], ["-l", "gpus=1"],
    ],
)  # fmt: skip
def test_the_pbs_of_the_tests_refuses_what_the_manual_does_not_allow(words: list[str]) -> None:
    with pytest.raises(fake_pbs.RefusedError):
        fake_pbs.resources(fake_pbs.options(words).get("-l", []))


def test_the_shell_starts_the_command_with_its_words(tmp_path: Path) -> None:
    folder = tmp_path / "env dir" / "bin"
    folder.mkdir(parents=True)
    python = folder / "python"
    code = "import json, os, sys; print(json.dumps([sys.argv[1:], dict(os.environ)]))"
    python.write_text(f'#!/bin/sh\nexec {sys.executable} -c {shlex.quote(code)} "$@"\n')
    python.chmod(0o755)
    script = make_submission(EVERYTHING, replace(MACHINE, python=str(python))).document
    environment = {"PATH": os.environ["PATH"], "PBS_O_WORKDIR": str(tmp_path), "PBS_JOBID": "7.pbs"}
    subprocess.run(["bash"], input=script.encode(), env=environment, check=True)
    words, variables = json.loads((tmp_path / "pbs-7.out").read_text())
    launch = words[: words.index("--")]
    assert launch[:6] == ["-m", "hvdtools", "launch", "--on", "pbs", "-n"] and launch[6] == "8"
    assert words[-len(HOSTILE) + 1 :] == list(HOSTILE[1:])
    for name, value in EVERYTHING.env:
        assert variables[name] == value and f"--env {name}" in " ".join(launch)
    assert variables["PATH"].startswith(f"{folder}:")
    assert float(variables["HVDTOOLS_SAVE_AT"]) > 93610 - 60


@pytest.mark.parametrize(
    ("on", "fields", "says"),
    [
        ({"time": "90"}, {}, "write hours:minutes:seconds"),
        ({"time": "00:00:00"}, {}, "no time to run"),
        ({"time": "00:01:00"}, {}, "is over before training begins"),
        ({"time": "01:00:00"}, {"timeout_s": 60.0}, "both limit the job's time"),
        ({}, {"timeout_s": 60.0}, "--timeout 60 is over before"),
        ({"array": "1,1"}, {}, "twice"),
        ({"array": "0"}, {}, "not a list of node counts"),
        ({"array": "1,2"}, {}, "--array needs --ranks-per-node"),
        ({"signal": 0}, {}, "--signal must be 1 second or more (got 0)"),
        ({"queue": "a\nb"}, {}, "not one word"),
        ({"qsub": ("-l walltime=1:00:00",)}, {}, "use --time"),
        ({"qsub": ("-N x",)}, {}, "use --name"),
        ({"qsub": ("mem=4gb",)}, {}, "not understood"),
        ({}, {"name": "two words"}, "not a name for a PBS job"),
        ({}, {"name": "it's"}, "not a name for a PBS job"),
        ({"array": "1,2"}, {"nodes": 3, "ranks": 3, "ranks_per_node": 1}, "leave out --nodes"),
        ({}, {"launcher": "srun"}, "cannot start ranks under PBS"),
        ({}, {"oversubscribe": True}, "--oversubscribe does not apply to --on pbs"),
        ({}, {"nodes": 3, "ranks_per_node": None, "ranks": 4}, "fill 2 of 3 nodes"),
    ],
)
def test_what_cannot_be_is_one_clear_message(
    on: dict[str, Any], fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(HvdtoolsError) as caught:
        make_submission(replace(PLAIN, on=Pbs(**on), **fields), MACHINE)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_inside_a_job_ranks_start_on_its_nodes(tmp_path: Path) -> None:
    file = tmp_path / "nodes"
    file.write_text("n1\nn1\nn2\nn2\n")
    found = Pbs.detect({"PBS_JOBID": "7.pbs", "PBS_NODEFILE": str(file)})
    assert found == Allocation("7.pbs", (Host("n1", 2), Host("n2", 2)))
    machine = replace(MACHINE, allocations={"pbs": found})
    assert not Pbs().submits(machine) and Pbs().submits(MACHINE)
    plan = make_plan(PLAIN, machine)
    assert plan.hosts == ("n1", "n2") and "n1:2,n2:2" in plan.text()
    assert dict(plan.env)["HVDTOOLS_NODES"] == "2" and plan.note.startswith("4 ranks in PBS job 7")
    with pytest.raises(HvdtoolsError, match=r"5 ranks are more than the 4 slots of n1:2,n2:2"):
        make_plan(replace(PLAIN, ranks=5), machine)
    with pytest.raises(HvdtoolsError, match=r"This is PBS job 7.pbs, .* --queue is for a new job"):
        make_plan(replace(PLAIN, on=Pbs(queue="gpu")), machine)


@pytest.mark.parametrize(
    ("nodes", "fields", "says"),
    [
        ("", {"ranks": 1}, "have no slot for a rank"),
        ("n1 8", {"ranks": 8, "ranks_per_node": 4}, "PBS allocated n1:8, where 8 ranks are not on"),
        ("n1 4,n2 8", {"ranks": 12, "ranks_per_node": 4}, "12 ranks are not on 2 nodes with 4"),
        ("n1 4", {"ranks": 4, "nodes": 2}, "4 ranks are not on 2 nodes"),
    ],
)
def test_nodes_that_are_not_as_asked_for_are_refused(
    tmp_path: Path, nodes: str, fields: dict[str, Any], says: str
) -> None:
    file = tmp_path / "nodes"
    parts = [part.split() for part in nodes.split(",") if part]
    file.write_text("".join(f"{name}\n" * int(count) for name, count in parts))
    found = Pbs.detect({"PBS_JOBID": "7.pbs", "PBS_NODEFILE": str(file)})
    assert found is not None
    with pytest.raises(HvdtoolsError, match=says):
        make_plan(replace(PLAIN, **fields), replace(MACHINE, allocations={"pbs": found}))


def test_a_sweep_s_variables_are_its_own() -> None:
    script = document(replace(SWEEP, env=(("nodes", "50"), ("counts", "9"))))
    assert "-n $((hvdtools_nodes * 2))" in script and " --nodes" not in script


def test_a_pbs_without_history_is_one_clear_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    qstat = tmp_path / "qstat"
    qstat.write_text("#!/bin/sh\necho 'qstat: PBS is not configured to maintain job history' >&2\n")
    qstat.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with pytest.raises(HvdtoolsError, match="keeps no history of jobs here"):
        query("7.pbs")
    qstat.write_text('#!/bin/sh\necho \'{"Jobs": {"7": {"foo": 005}}}\'\n')
    assert query("7.pbs") is None


def test_a_node_file_that_is_gone_is_no_job(tmp_path: Path) -> None:
    assert Pbs.detect({"PBS_JOBID": "7.pbs", "PBS_NODEFILE": "/nowhere"}) is None
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    assert Pbs.detect({"PBS_JOBID": "7.pbs", "PBS_NODEFILE": str(tmp_path / "binary")}) is None
    assert Pbs.detect({}) is None
    assert read_node_file("b\na\nb\n") == (Host("b", 2), Host("a", 1))


@pytest.mark.parametrize(
    ("state", "status", "code", "text"),
    [
        ("F", 0, 0, "job 7: done"),
        ("F", 3, 3, "job 7 failed with exit code 3"),
        ("F", 256 + 9, 137, "job 7 failed with exit code 137"),
        ("F", -29, 124, "job 7: ended by its time limit"),
        ("F", -27, 137, "job 7 failed with exit code 137"),
        ("F", -1, 1, "job 7 failed with exit code 1"),
        ("F", None, 130, "job 7: canceled"),
    ],
)
def test_exit_code_of_each_end(state: str, status: int | None, code: int, text: str) -> None:
    ended = {} if status is None else {"Exit_status": status}
    (job,) = read_jobs(json.dumps({"Jobs": {"7.pbs": {"job_state": state, **ended}}}))
    assert job.is_over and job.code == code and job.text() == text


def test_states_that_a_job_leaves_again() -> None:
    shown = {
        "7[].pbs": {"job_state": "B"},
        "7[0].pbs": {"job_state": "R", "exec_host": "n1/0*4"},
        "7[1].pbs": {"job_state": "Q", "comment": "Not Running: Server is busy"},
    }
    shown = {name: {**job, "Variable_List": {"PBS_O_WORKDIR": "/w"}} for name, job in shown.items()}
    running, waiting = read_jobs(json.dumps({"Jobs": shown}))
    assert running.text() == "job 7[0] runs on n1/0*4" and running.log == Path("/w/pbs-7[0].out")
    assert waiting.text() == "job 7[1] waits (Not Running: Server is busy)"
    assert not running.is_over and not waiting.is_over and not waiting.has_started
