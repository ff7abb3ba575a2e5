"""Grid Engine: the script that a job becomes, and what its programs say of a job."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from paths import GOLDEN
from test_pbs import EVERYTHING, HOSTILE, MACHINE, PLAIN, SWEEP

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.hosts import Host
from hvdtools.launch.outcome import Outcome
from hvdtools.launch.planner import make_plan, make_submission
from hvdtools.launch.scheduler import Allocation
from hvdtools.launch.schedulers.grid_engine import (
    GridEngine,
    GridEngineJob,
    read_pe_hostfile,
    read_qacct,
    read_qstat,
)

FOLDER = Path("/w")
JOBS = {
    "plain": replace(PLAIN, on=GridEngine(pe="mpi")),
    "everything": replace(
        EVERYTHING,
        on=GridEngine(
            pe="mpi",
            account="a/c#1",
            project="vision",
            queue="gpu.q@@fast",
            time="1-02:00:10",
            signal=60,
            qsub=("-l gpu=1",),
        ),
        gpus_per_node=None,
        name="my_job-1.2",
    ),
    "sweep": replace(SWEEP, on=GridEngine(pe="mpi", array="4,1,2")),
}
# What `qstat -xml -u '*'` of 8.1.9 prints, shortened.
QSTAT = """<?xml version='1.0'?>
<job_info xmlns:xsd="x">
  <queue_info>
    <job_list state="running">
      <JB_job_number>7</JB_job_number>
      <state>r</state>
      <queue_name>main@host1</queue_name>
      <tasks>1</tasks>
    </job_list>
    <job_list state="running">
      <JB_job_number>8</JB_job_number>
      <state>r</state>
      <queue_name>main@host2</queue_name>
    </job_list>
  </queue_info>
  <job_info>
    <job_list state="pending">
      <JB_job_number>7</JB_job_number>
      <state>qw</state>
      <queue_name></queue_name>
      <tasks>2-3:1</tasks>
    </job_list>
  </job_info>
</job_info>
"""
LINE = "=" * 62
# What `qacct -j 7` of 8.1.9 prints, shortened: element 1 ran twice.
QACCT = f"""{LINE}
qname        main
hostname     host1
taskid       1
failed       25  : rescheduling
exit_status  99
{LINE}
qname        main
hostname     host2
taskid       1
failed       37  : qmaster enforced h_rt, h_cpu, or h_vmem limit
exit_status  137                  (Killed)
"""


@pytest.mark.parametrize("name", JOBS)
def test_the_script_is_the_expected_one(name: str) -> None:
    document = make_submission(JOBS[name], MACHINE).document
    assert document == (GOLDEN / f"grid-engine-{name}.sh").read_text()


def test_no_word_of_the_command_becomes_a_directive() -> None:
    spec = replace(JOBS["plain"], command=(*HOSTILE, "a\n#$ -q root"), env=(("A", "\n#$ -q root"),))
    document = make_submission(spec, MACHINE).document
    directives = [line for line in document.splitlines() if line.startswith("#$")]
    assert directives and not any("root" in line for line in directives)


@pytest.mark.parametrize(
    ("on", "fields", "says"),
    [
        ({"pe": None}, {}, "name one that `qconf -spl` lists with --pe"),
        ({"pe": "two words"}, {}, "--pe 'two words' is not one word"),
        ({"time": "90"}, {}, "write hours:minutes:seconds"),
        ({"array": "1,2"}, {}, "--array needs --ranks-per-node"),
        ({"qsub": ("-l h_rt=9",)}, {}, "use --time"),
        ({"qsub": ("-pe x 4",)}, {}, "use --pe"),
        ({}, {"name": "1st"}, "not a name for a Grid Engine job"),
        ({}, {"launcher": "srun"}, "cannot start ranks under Grid Engine"),
        ({}, {"gpus_per_node": 2}, "--gpus-per-node does not apply to --on grid-engine"),
    ],
)
def test_what_cannot_be_is_one_clear_message(
    on: dict[str, Any], fields: dict[str, Any], says: str
) -> None:
    with pytest.raises(HvdtoolsError) as caught:
        make_submission(replace(PLAIN, on=GridEngine(**{"pe": "mpi", **on}), **fields), MACHINE)
    assert says in str(caught.value) and "\n" not in str(caught.value)


def test_inside_a_job_ranks_start_on_its_slots(tmp_path: Path) -> None:
    file = tmp_path / "pe_hostfile"
    file.write_text("n1 4 main@n1 UNDEFINED\nn2 2 main@n2 UNDEFINED\nn2 2 long@n2 <NULL>\n")
    environ = {"JOB_ID": "7", "PE_HOSTFILE": str(file), "SGE_ROOT": "/sge"}
    assert GridEngine.detect(environ) == Allocation("7", (Host("n1", 4), Host("n2", 4)))
    assert GridEngine.detect({**environ, "PE_HOSTFILE": "/nowhere"}) is None
    assert GridEngine.detect({"JOB_ID": "7"}) is None  # another program's variable
    for slots in ("two", "0"):
        assert GridEngine.detect({**environ, "HVDTOOLS_SLOTS_PER_RANK": slots}) is None
    found = GridEngine.detect({**environ, "HVDTOOLS_SLOTS_PER_RANK": "2"})
    assert found == Allocation("7", (Host("n1", 2), Host("n2", 2)))
    machine = replace(MACHINE, allocations={"grid-engine": found})
    plan = make_plan(replace(PLAIN, on=GridEngine()), machine)
    assert plan.hosts == ("n1", "n2") and plan.note.startswith("4 ranks in Grid Engine job 7")
    assert read_pe_hostfile("n1 3 q U\nn2 1 q U\n", 2) == (Host("n1", 1),)


def test_what_qstat_and_qacct_say_of_an_array() -> None:
    running, second, third = read_qstat(QSTAT, "7", FOLDER)
    assert running.text() == "job 7.1 runs on main@host1" and running.log == Path("/w/sge-7.1.out")
    assert (second.name, third.name) == ("7.2", "7.3") and second.text() == "job 7.2 waits (qw)"
    assert not running.is_over and not second.is_over and not second.has_started
    assert [job.name for job in read_qstat(QSTAT, "8", FOLDER)] == ["8"]
    (ended,) = read_qacct(QACCT, "7", FOLDER)
    assert ended.is_over and ended.code == 124 and ended.queue == "main@host2"
    assert ended.text() == "job 7.1: ended by its time limit"
    assert read_qacct("", "7", FOLDER) == ()
    first_run = QACCT.split(LINE)[1]
    assert read_qacct(LINE + first_run, "7", FOLDER) == ()  # it goes on


@pytest.mark.parametrize(
    ("exit_status", "failed", "code"), [(0, 0, 0), (3, 0, 3), (137, 100, 137), (0, 26, 1)]
)
def test_exit_code_of_each_end(exit_status: int, failed: int, code: int) -> None:
    job = GridEngineJob("7", "", "main@host1", exit_status, failed)
    assert job.is_over and job.code == code


def test_a_job_in_an_error_state_is_over() -> None:
    job = GridEngineJob("7", "Eqw")
    assert job.is_over and job.code == 1 and "qstat -j 7" in job.text()


def test_a_job_that_saved_asks_to_be_run_again() -> None:
    on = GridEngine()
    assert on.exit_code(Outcome(0, None, (), told_to_save=True)) == 99
    assert on.exit_code(Outcome(75, 1, ())) == 99
    assert on.exit_code(Outcome(3, 1, ())) == 3 and on.exit_code(Outcome(0, None, ())) == 0
