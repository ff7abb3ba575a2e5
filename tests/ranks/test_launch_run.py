"""Real ranks under both launchers: what they say, how they fail, how they are stopped."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import psutil
import pytest
from paths import HVDTOOLS

from hvdtools.launch import JobSpec, Outcome, detect_host, make_plan, run
from hvdtools.launch.parse_options import read_env

LAUNCHERS = ("mpirun", "horovodrun")
RANK = "import os; rank = int(os.environ.get('OMPI_COMM_WORLD_RANK') or os.environ['HOROVOD_RANK'])"
HOSTILE = (
    'say "hi"', "it's", "; echo foo", "$HOME", "new\nline\n", "", "*", ":", "--log", "-n", "--",
    "\\", "é", "`id`", "--output",
)  # fmt: skip


@pytest.fixture(params=LAUNCHERS)
def launcher(request: pytest.FixtureRequest) -> str:
    here = detect_host()
    if here.mpirun is None or not here.controllers:
        pytest.skip("there is no mpirun, or no Horovod, here")
    return str(request.param)


def program(folder: Path, text: str) -> str:
    path = folder / "a rank's program.py"
    path.write_text(f"{RANK}\n{text}\n")
    return str(path)


def start(
    launcher: str, *command: str, ranks: int = 2, **env: str
) -> tuple[Outcome, dict[tuple[int | None, str], list[str]]]:
    said = defaultdict(list)
    spec = JobSpec(command, ranks, launcher, tuple(env.items()), oversubscribe=True)
    outcome = run(
        make_plan(spec, detect_host()),
        on_line=lambda rank, stream, line: said[rank, stream].append(line),
        timeout_s=120,
    )
    return outcome, said


def test_words_and_variables_arrive_unchanged(launcher: str, tmp_path: Path) -> None:
    echo = program(
        tmp_path,
        "import json, sys; print(json.dumps([sys.argv[1:], os.environ['V'], sys.executable]))",
    )
    outcome, said = start(launcher, "python", echo, *HOSTILE, V="a 'b'\n; $HOME")
    assert outcome == Outcome(0, None, ())
    for rank in (0, 1):
        assert [json.loads(line) for line in said[rank, "stdout"]] == [
            [list(HOSTILE), "a 'b'\n; $HOME", sys.executable]
        ]


def test_long_and_many_lines_all_arrive_whole(launcher: str, tmp_path: Path) -> None:
    many = program(
        tmp_path,
        "import sys\n"
        "for i in range(25_000):\n"
        "    print(f'{rank} out {i}', 'x' * (i % 7000 == 0) * 9000)\n"
        "    print(f'{rank} err {i}', file=sys.stderr)\n"
        "print('   indented'); print(); print('the end', end='')",
    )
    outcome, said = start(launcher, "python", many)
    assert outcome.exit_code == 0
    for rank in (0, 1):
        lines = [f"{rank} out {i} " + "x" * (i % 7000 == 0) * 9000 for i in range(25_000)]
        assert said[rank, "stdout"] == [*lines, "   indented", "", "the end"]
        assert said[rank, "stderr"] == [f"{rank} err {i}" for i in range(25_000)]


def test_a_progress_bar_is_lines_of_its_rank(launcher: str, tmp_path: Path) -> None:
    bar = program(
        tmp_path,
        "import sys, time\n"
        "for i in range(3):\n"
        "    sys.stderr.write(f'\\r{i} of 3'); sys.stderr.flush(); time.sleep(0.1)\n"
        "sys.stderr.write('\\n')",
    )
    _, said = start(launcher, "python", bar)
    for rank in (0, 1):
        assert said[rank, "stderr"] == ["0 of 3", "1 of 3", "2 of 3"]


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("raise ValueError('boom')", 1),
        ("os.kill(os.getpid(), 9)", 128 + signal.SIGKILL),
    ],
)
def test_the_first_failing_rank_is_named(
    launcher: str, tmp_path: Path, ending: str, code: int
) -> None:
    fails = program(
        tmp_path,
        "import sys, time\n"
        "for i in range(50): print('line', i)\n"
        f"if rank == 1: {ending}\n"
        "time.sleep(60)",
    )
    outcome, _ = start(launcher, "python", fails)
    assert (outcome.exit_code, outcome.failed_rank) == (code, 1)
    assert "line 49" in outcome.last_lines and "line 29" not in outcome.last_lines
    assert len(outcome.last_lines) == 20
    assert ("ValueError: boom" in outcome.last_lines) == ("boom" in ending)


@pytest.mark.parametrize(("signum", "ignores"), [(signal.SIGINT, True), (signal.SIGTERM, False)])
def test_a_signal_leaves_no_process(
    launcher: str, tmp_path: Path, signum: signal.Signals, ignores: bool
) -> None:
    stubborn = program(
        tmp_path,
        "import signal, subprocess, time\n"
        f"if {ignores}: [signal.signal(s, signal.SIG_IGN) for s in (2, 15)]\n"
        "child = subprocess.Popen(['sleep', '300'])\n"
        "print('pids', os.getpid(), child.pid)\n"
        "time.sleep(300)",
    )
    launcher = subprocess.Popen(
        [HVDTOOLS, "launch", "-n", "2", "--oversubscribe", "--launcher", launcher, "--",
         "python", stubborn],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert launcher.stdout is not None
    pids = [int(pid) for _ in (0, 1) for pid in launcher.stdout.readline().split()[2:]]
    assert len(pids) == 4
    below = psutil.Process(launcher.pid).children(recursive=True)
    began = time.monotonic()
    launcher.send_signal(signum)
    _, said = launcher.communicate(timeout=60)
    assert launcher.returncode == 128 + signum
    assert said.endswith("interrupted: every rank is stopped.\n")
    assert time.monotonic() - began < 20  # 8 s at most where nothing else runs
    assert {process.pid for process in below} >= set(pids)
    assert not [process for process in below if is_running(process)]


def is_running(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def test_time_is_up() -> None:
    plan = make_plan(JobSpec(("sleep", "300"), 1), detect_host())
    began = time.monotonic()
    outcome = run(plan, on_line=lambda *_: None, timeout_s=3)
    assert (outcome.exit_code, outcome.stopped) == (124, True)
    assert 3 <= time.monotonic() - began < 25
    assert not [
        process
        for process in psutil.Process().children(recursive=True)
        if is_running(process) and process.cmdline()[:1] == ["sleep"]
    ]


def test_the_printed_plan_does_the_same_in_a_shell(launcher: str, tmp_path: Path) -> None:
    echo = program(tmp_path, "import json, sys; print(json.dumps(sys.argv[1:]))")
    plan = make_plan(JobSpec(("python", echo, *HOSTILE), 1, launcher), detect_host())
    done = subprocess.run(
        [shutil.which("bash") or "bash", "-c", plan.text()],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    assert json.loads(done.stdout[done.stdout.index(">:") + 2 :]) == list(HOSTILE)


def test_an_error_in_on_line_ends_the_job_and_is_raised() -> None:
    def refuse(rank: int | None, stream: str, line: str) -> None:
        if rank is not None:
            raise RuntimeError(line)

    plan = make_plan(JobSpec(("sh", "-c", "echo hello; sleep 300"), 1), detect_host())
    with pytest.raises(RuntimeError, match="hello"):
        run(plan, on_line=refuse, timeout_s=120)


def test_a_named_variable_is_read_from_the_caller() -> None:
    assert read_env(["A=b=c", "D", "E="], {"D": "x y"}) == (("A", "b=c"), ("D", "x y"), ("E", ""))
