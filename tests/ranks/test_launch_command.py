"""The command itself: bad input in one sentence, output behind rank numbers, exit codes."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest
from paths import HVDTOOLS

from hvdtools.launch import detect_host
from hvdtools.launch.outcome import Failure, Outcome, culprit, outcome_text

HERE = detect_host()
needs_mpirun = pytest.mark.skipif(
    HERE.mpirun is None or "mpi" not in HERE.controllers, reason="there is no mpirun for Horovod"
)
needs_horovod = pytest.mark.skipif(HERE.horovod is None, reason="Horovod is not installed here")


def launch(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HVDTOOLS, "launch", *words],
        env={**os.environ, **env},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


@needs_horovod
@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["-n", "0", "--", "true"], "0 ranks cannot train anything"),
        (["--", "true"], "Say how many ranks"),
        (["-n", "1"], "There is no command to run"),
        (["-n", "1", "--"], "There is no command to run"),
        (["-n", "100000", "--", "true"], f"more than the {HERE.slots} slots (CPU cores)"),
        (
            ["-n", "1", "--launcher", "rsh", "--", "true"],
            "choose one of auto, horovodrun, mpirun, srun",
        ),
        (["-n", "1", "--launcher", "srun", "--", "true"], "add --on slurm"),
        (["-n", "1", "--on", "moon", "--", "true"], "Unknown scheduler 'moon': choose one of"),
        (["-n", "1", "--partition", "x", "--", "true"], "--partition is for --on slurm"),
        (["-n", "1", "--on", "hosts", "--", "true"], "Name the hosts"),
        (["--hosts", "a:x", "--", "true"], "'x' is no number of slots"),
        (["--hosts", "a:1,a:1", "--", "true"], "Host a is named twice"),
        (["--hosts", "a:1", "-n", "2", "--", "true"], "more than the 1 slots of a:1"),
        (["--hosts", "a:1", "--oversubscribe", "--", "true"], "does not apply to --on hosts"),
        (["--hosts", "a", "--hostfile", "b", "--", "true"], "both name the hosts"),
        (["--hostfile", "no-such-file", "--", "true"], "cannot be read"),
        (["--hosts", "no-such-host.invalid", "--", "true"], "ssh does not reach no-such-host"),
        (["--nodes", "2", "--ranks-per-node", "2", "--", "true"], "needs other machines"),
        (["-n", "1", "--mpirun", "no-such", "--", "true"], "There is no program 'no-such'"),
        (["--job", "no-such.toml"], "cannot be read"),
        (["-n", "1", "--", "no-such-program"], "There is no program 'no-such-program'"),
        (["-n", "1", "--", __file__], "cannot be executed"),
        (["-n", "1", "--env", "1A=2", "--", "true"], "'1A' is not a name"),
        (["-n", "1", "--env", "=2", "--", "true"], "'' is not a name"),
        (["-n", "1", "--env", "NOT_SET_HERE", "--", "true"], "a variable that is not set here"),
        (["-n", "1", "--timeout", "0", "--", "true"], "must be a finite number of seconds above 0"),
    ],
)
def test_bad_input_is_one_sentence_and_starts_nothing(words: list[str], says: str) -> None:
    done = launch(*words)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("hvdtools: ") and says in done.stderr
    assert done.stderr.count("\n") == 1


@needs_mpirun
def test_python_is_the_one_of_hvdtools_wherever_path_leads(tmp_path: Path) -> None:
    done = launch("-n", "1", "--", "python", "-c", "import hvdtools; print(1)", PATH=str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "[0] 1\n"), done.stderr


@needs_mpirun
def test_lines_go_behind_rank_numbers_to_their_own_streams() -> None:
    done = launch("-n", "1", "--env", "V", "--", "sh", "-c", 'echo "$V"; echo err >&2', V="a  b")
    assert (done.returncode, done.stdout) == (0, "[0] a  b\n")
    note, line = done.stderr.splitlines()
    assert note.startswith("1 rank on this machine with mpirun (Open MPI ")
    assert line == "[0] err"


@needs_mpirun
def test_a_failure_ends_with_the_rank_its_code_and_its_words() -> None:
    done = launch("-n", "1", "--launcher", "mpirun", "--", "sh", "-c", "echo 'last words'; exit 3")
    assert done.returncode == 3
    assert done.stderr.endswith(
        "rank 0 failed first with exit code 3; its last lines:\n    last words\n"
    )


@needs_mpirun
def test_dry_run_prints_what_would_run_and_starts_nothing(tmp_path: Path) -> None:
    made = tmp_path / "made by a rank"
    done = launch("-n", "1", "--dry-run", "--", "touch", str(made))
    assert done.returncode == 0 and not made.exists()
    assert done.stdout.count("\n") == 1 and shlex.split(done.stdout)[-2:] == ["touch", str(made)]
    subprocess.run(["bash", "-c", done.stdout], check=True, timeout=60)
    assert made.exists()


@needs_mpirun
def test_a_reader_that_goes_away_ends_the_job() -> None:
    # Not `yes`: mpirun reads a flood into its memory without end before it writes any of it.
    speaks = f"{shlex.quote(HVDTOOLS)} launch -n 1 -- sh -c 'while echo y; do sleep 0.01; done'"
    command = f"{speaks} | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[0] y\n141\n"
    assert "Traceback" not in done.stderr


CRY = "horovod.common.exceptions.HorovodInternalError: Horovod has been shut down."
TRACEBACK = "Traceback (most recent call last):"


def test_a_rank_that_lost_its_peer_gives_way_to_the_one_that_failed() -> None:
    victim = (TRACEBACK, CRY)
    raised = (TRACEBACK, "ValueError: boom")
    assert culprit((Failure(0, 1),), {0: victim, 1: raised, 2: ("working",)}) == Failure(1, 1)
    both = (Failure(0, 1), Failure(1, 7))
    assert culprit(both, {0: victim, 1: ()}) == Failure(1, 7)
    stopped = (Failure(0, 1), Failure(1, 143))
    assert culprit(stopped, {0: victim, 1: ()}) == Failure(1, 1, code_is_own=False)
    # Two ranks that said nothing: no telling which, so the launcher's word stands.
    assert culprit((Failure(0, 1),), {0: victim, 1: (), 2: ()}) == Failure(0, 1)
    assert culprit((Failure(1, 5),), {0: victim, 1: ()}) == Failure(1, 5)
    # Open MPI cries once for two ranks that it ends.
    cry = ("[host1:00000] *** An error occurred in Socket closed",)
    three = (Failure(0, 14), Failure(1, 14), Failure(3, 7))
    assert culprit(three, {0: (), 1: cry, 2: (), 3: ("my last words",)}) == Failure(3, 7)
    assert culprit(three[:1], {0: (), 1: ()}) == Failure(0, 14)


def test_words_for_each_outcome() -> None:
    assert outcome_text("mpirun", Outcome(137, 1, ())) == (
        "rank 1 failed first with exit code 137 (SIGKILL); it said nothing."
    )
    assert "stopped it before its exit code" in outcome_text(
        "mpirun", Outcome(1, 1, (), code_is_own=False)
    )
    assert outcome_text("mpirun", Outcome(213, None, ("no slots",))).splitlines() == [
        "mpirun failed with exit code 213 and named no rank; its last lines:",
        "    no slots",
    ]
    assert outcome_text("mpirun", Outcome(124, None, (), stopped=True)).startswith("time was up")
