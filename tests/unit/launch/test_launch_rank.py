"""The rank wrapper: it watches a rank's program, tags its lines, and binds it to cores."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hvdtools.core.cpus import usable_cpus
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.text import format_ranges
from hvdtools.core.topology import LaunchEnvironment
from hvdtools.rank_wrapper import bind_command, parse_exit_line, watch_command
from hvdtools.rank_wrapper.binding import (
    CpuLayout,
    Gpu,
    choose_cpus,
    describe_binding,
    gpu_of,
    parse_gpus,
    read_layout,
)

PYTHON = sys.executable
RANK_3 = {
    "HOROVOD_RANK": "3",
    "HOROVOD_SIZE": "4",
    "HOROVOD_LOCAL_RANK": "1",
    "HOROVOD_LOCAL_SIZE": "2",
}


def run(*argv: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        argv, env={**os.environ, **env}, capture_output=True, text=True, check=False, timeout=60
    )


@pytest.mark.parametrize(("script", "code"), [("exit 3", 3), ("kill -9 $$", 137), ("true", 0)])
def test_it_reports_how_the_program_ended(script: str, code: int) -> None:
    done = run(*watch_command(PYTHON, ("sh", "-c", f"echo out; {script}")))
    assert (done.returncode, done.stdout) == (code, "out\n")
    reported = [parse_exit_line(line) for line in done.stderr.splitlines()]
    assert reported == ([(0, code)] if code else [])
    assert parse_exit_line("exit code 3") is None
    assert parse_exit_line("half a line\0hvdtools: rank 12 ended with exit code 3") == (12, 3)


def test_its_old_name_works_in_saved_scripts() -> None:
    new = watch_command(PYTHON, ("sh", "-c", "echo out; exit 3"))
    old = ["hvdtools.in_rank" if word == "hvdtools.rank_wrapper" else word for word in new]
    assert old != list(new)
    done = run(*old)
    assert (done.returncode, done.stdout) == (3, "out\n") and "exit code 3" in done.stderr


def test_a_missing_program() -> None:
    done = run(*watch_command(PYTHON, ("no-such-program",)))
    assert done.returncode == 127 and "'no-such-program' cannot be run" in done.stderr


def test_lines_are_tagged_whole() -> None:
    script = "printf 'a\\n\\nb'; printf '1\\r2\\r\\n' >&2; exit 5"
    done = run(*watch_command(PYTHON, ("sh", "-c", script), tag=True), **RANK_3)
    assert done.stdout == "[3]<stdout>:a\n[3]<stdout>:\n[3]<stdout>:b\n"
    ending = "[3]<stderr>:hvdtools: rank 3 ended with exit code 5\n"
    assert done.stderr == f"[3]<stderr>:1\n[3]<stderr>:2\n{ending}"


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int) -> bool:
    for _ in range(100):
        if is_gone(pid):
            return True
        time.sleep(0.1)
    return False


STUBBORN = (
    "import signal, time, os; signal.signal(15, signal.SIG_IGN); "
    "print(os.getpid(), flush=True); time.sleep(300)"
)


def test_the_program_ends_when_its_output_is_not_read() -> None:
    """As when an ssh client is killed: its end of the streams is closed, and no signal is sent."""
    watch = subprocess.Popen(
        watch_command(PYTHON, (PYTHON, "-c", STUBBORN)),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert watch.stdout is not None and watch.stderr is not None
    pid = int(watch.stdout.readline())
    watch.stdout.close()
    watch.stderr.close()
    assert wait_until_gone(pid)
    assert watch.wait(10) == 128 + signal.SIGKILL


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_signals_reach_the_program_and_nothing_outlives_the_wrapper(signum: signal.Signals) -> None:
    command = watch_command(PYTHON, ("sh", "-c", "echo $$; exec sleep 300"))
    watch = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert watch.stdout is not None
    pid = int(watch.stdout.readline())
    watch.send_signal(signum)
    assert wait_until_gone(pid)
    code = watch.wait(10)
    watch.stdout.close()
    assert code == (-9 if signum == signal.SIGKILL else 128 + signum)


# -- binding -------------------------------------------------------------------------

# Two NUMA nodes with four cores each, of two hardware threads: core c has CPUs c and c + 8.
TWO_NODES = CpuLayout(
    tuple(frozenset({core, core + 8}) for core in range(8)),
    {0: frozenset({0, 1, 2, 3, 8, 9, 10, 11}), 1: frozenset({4, 5, 6, 7, 12, 13, 14, 15})},
)
NEAR = [TWO_NODES.numa[1], TWO_NODES.numa[1], TWO_NODES.numa[0], TWO_NODES.numa[0]]


def chosen(kind: str, local_rank: int, size: int, cpus_per_rank: int | None = None) -> str:
    launch_env = LaunchEnvironment("x", local_rank, size, local_rank, size, serves_mpi=False)
    return format_ranges(choose_cpus(kind, launch_env, TWO_NODES, NEAR, cpus_per_rank))


@pytest.mark.parametrize(
    ("kind", "size", "cpus_per_rank", "expected"),
    [
        ("cores", 4, None, ["0-1,8-9", "2-3,10-11", "4-5,12-13", "6-7,14-15"]),
        ("cores", 3, None, ["0-1,8-9", "2-4,10-12", "5-7,13-15"]),
        ("cores", 2, 1, ["0,8", "1,9"]),
        ("numa", 2, None, ["0-3,8-11", "4-7,12-15"]),
        ("numa", 4, 1, ["0,8", "1,9", "4,12", "5,13"]),
        ("gpu", 4, None, ["4-5,12-13", "6-7,14-15", "0-1,8-9", "2-3,10-11"]),
    ],
)
def test_ranks_get_different_cores(
    kind: str, size: int, cpus_per_rank: int | None, expected: list[str]
) -> None:
    assert [chosen(kind, rank, size, cpus_per_rank) for rank in range(size)] == expected


def test_too_few_cores() -> None:
    with pytest.raises(HvdtoolsError, match="2 ranks need 5 cores each and share 8"):
        chosen("cores", 0, 2, 5)


def test_the_layout_of_this_machine() -> None:
    layout = read_layout(usable_cpus())
    assert frozenset().union(*layout.cores) == usable_cpus()
    assert frozenset().union(*layout.numa.values()) == usable_cpus()
    assert sum(map(len, layout.cores)) == len(usable_cpus())


def test_gpus_and_the_cpus_near_them(tmp_path: Path) -> None:
    device = tmp_path / "0000:1b:00.0"
    device.mkdir()
    (device / "local_cpulist").write_text("0-1\n")
    listed = "0, NVIDIA H100, 00000000:1B:00.0\n1, NVIDIA H100, 00000000:2C:00.0\n"
    gpus = parse_gpus(listed, tmp_path)
    assert gpus["0"] == Gpu("0 (NVIDIA H100)", frozenset({0, 1}))
    assert gpus["1"].cpus == frozenset()


def test_local_ranks_take_the_visible_gpus_in_turn() -> None:
    visible = {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert [gpu_of(rank, visible) for rank in (0, 1, 2)] == [Gpu("2"), Gpu("3"), Gpu("2")]
    assert gpu_of(0, {"CUDA_VISIBLE_DEVICES": ""}) is None


def test_the_line_on_the_binding() -> None:
    text = describe_binding(1, frozenset({4, 12}), TWO_NODES, Gpu("0 (NVIDIA H100)"))
    assert re.fullmatch(
        r"hvdtools: rank 1 is on \S+, CPUs 4,12 \(NUMA node 1\), GPU 0 \(NVIDIA H100\)", text
    )


@pytest.mark.skipif(len(usable_cpus()) < 2, reason="needs two cores")
def test_a_bound_rank_runs_on_the_printed_cores() -> None:
    program = "import os; print(sorted(os.sched_getaffinity(0)))"
    command = bind_command(PYTHON, (PYTHON, "-c", program), "cores", 1, show=True)
    done = run(*command, **RANK_3)
    last = sorted(usable_cpus())[1]
    assert done.stdout == f"[{last}]\n"
    assert f"CPUs {last} " in done.stderr and "rank 3 is on" in done.stderr


def test_a_missing_gpu() -> None:
    done = run(
        *bind_command(PYTHON, ("true",), "gpu", None, show=False), CUDA_VISIBLE_DEVICES="", **RANK_3
    )
    assert done.returncode == 2 and "--bind gpu needs a GPU" in done.stderr
    assert done.stderr.count("\n") == 1
