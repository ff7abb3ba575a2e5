"""Following a job: what Slurm's words mean, and a log that grows. The rest needs a Slurm."""

from __future__ import annotations

from pathlib import Path

import pytest

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.plan import Submission
from hvdtools.launch.schedulers.joblog import JobLog
from hvdtools.launch.schedulers.slurm.job import Job, read_jobs
from hvdtools.launch.schedulers.slurm.request import Slurm

# What `scontrol show job` of Slurm 22.05 prints, shortened; the job has a name that misleads.
SHOWN = """\
JobId=97 ArrayJobId=96 ArrayTaskId=2 JobName=a JobState=FAILED Reason=x
   UserId=root(0) GroupId=root(0) MCS_label=N/A
   JobState=RUNNING Reason=None Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0
   ReqNodeList=(null) ExcNodeList=(null)
   NodeList=host[1-2]
   Command=/home/me/sweep.sbatch
   StdErr=/home/me/my logs/slurm-96-nodes-2.out
   StdIn=/dev/null
   StdOut=/home/me/my logs/slurm-96-nodes-2.out
   Comment=StdOut=/etc/passwd

JobId=96 ArrayJobId=96 ArrayTaskId=4,8 JobName=a
   JobState=PENDING Reason=Resources Dependency=(null)
   Requeue=1 Restarts=0 BatchFlag=1 Reboot=0 ExitCode=0:0
   NodeList=(null)
   StdOut=/home/me/slurm-96-nodes-%a.out

"""


def test_reads_what_scontrol_shows() -> None:
    running, waiting = read_jobs(SHOWN)
    log = Path("/home/me/my logs/slurm-96-nodes-2.out")
    assert running == Job("96_2", "RUNNING", "None", "host[1-2]", 0, 0, log)
    assert waiting == Job("96_4,8", "PENDING", "Resources", "(null)", 0, 0, None)
    assert running.text() == "job 96_2 runs on host[1-2]"
    assert waiting.text() == "job 96_4,8 waits (Resources)"
    assert not running.is_over and not waiting.is_over


@pytest.mark.parametrize(
    ("state", "exit_code", "signum", "code"),
    [
        ("COMPLETED", 0, 0, 0),
        ("FAILED", 3, 0, 3),
        ("FAILED", 0, 15, 143),
        ("TIMEOUT", 0, 15, 124),
        ("DEADLINE", 0, 0, 124),
        ("CANCELLED", 0, 15, 130),
        ("OUT_OF_MEMORY", 0, 125, 137),
        ("NODE_FAIL", 0, 0, 1),
        ("NODE_FAIL", 0, 9, 137),
    ],
)
def test_exit_code_of_each_end(state: str, exit_code: int, signum: int, code: int) -> None:
    job = Job("1", state, "None", "host1", exit_code, signum, None)
    assert job.is_over and job.code == code


@pytest.mark.parametrize(
    "state", ["COMPLETING", "REQUEUED", "CONFIGURING", "SUSPENDED", "RESIZING"]
)
def test_states_that_a_job_leaves_again(state: str) -> None:
    assert not Job("1", state, "None", "host1", 0, 0, None).is_over


def test_a_log_is_read_as_it_grows(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = JobLog(path)
    assert list(log.new_lines()) == [] and not log.was_there
    path.write_bytes(b"one\ntw")
    assert list(log.new_lines()) == ["one"]
    with path.open("ab") as file:
        file.write(b"o\n\n\xff\n")
    assert list(log.new_lines()) == ["two", "", "\\xff"]
    assert list(log.new_lines()) == []
    path.write_bytes(b"anew\nend")
    assert list(log.new_lines()) == ["anew"]
    assert list(log.new_lines(to_end=True)) == ["end"] and log.was_there


def submission_to(program: Path) -> Submission:
    return Submission("document", (str(program), "--parsable"), "Slurm's sbatch", "slurm", 1)


def test_sbatch_s_refusal_is_one_sentence(tmp_path: Path) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(
        "#!/bin/sh\necho 'sbatch: error: No.' >&2; echo 'sbatch: error: Too long' >&2\nexit 1\n"
    )
    sbatch.chmod(0o755)
    with pytest.raises(HvdtoolsError, match=r"^Slurm refuses the job: No\.; Too long$"):
        Slurm().submit(submission_to(sbatch))


def test_no_sbatch_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(
        HvdtoolsError,
        match=r"There is no .*sbatch on this machine, and Slurm's sbatch takes the job: run this",
    ):
        Slurm().submit(submission_to(tmp_path / "sbatch"))


def test_the_number_of_a_job_of_several_clusters(tmp_path: Path) -> None:
    sbatch = tmp_path / "sbatch"
    sbatch.write_text('#!/bin/sh\n[ "$(cat)" = document ] && echo "12;gpu-cluster"\n')
    sbatch.chmod(0o755)
    assert Slurm().submit(submission_to(sbatch)) == "12"
