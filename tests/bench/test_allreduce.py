"""allreduce.py in real ranks: right sums are found right, wrong ones are counted."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from paths import BENCHMARKS, HVDTOOLS, PROGRAMS

from hvdtools.bench.results.measured import Allreduce, Point, from_dict
from hvdtools.bench.run.runner import free_ports
from hvdtools.launch import detect_host

pytestmark = pytest.mark.ranks

PROGRAM = BENCHMARKS / "allreduce" / "allreduce.py"
PLANTED = PROGRAMS / "rank_allreduce.py"
# One block of each message: whether it is right does not depend on how often it is timed.
ONCE = ("--min-blocks", "1", "--max-blocks", "1", "--warmup-blocks", "0", "--device", "cpu")


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def launch(
    launcher: str, ranks: int, program: Path, *arguments: object, meet: bool = True
) -> subprocess.CompletedProcess[str]:
    """Through `hvdtools launch`, as a user does it."""
    here = detect_host()
    if here.mpirun is None or not here.controllers:
        pytest.skip("there is no mpirun, or no Horovod, here")
    met = ["--env", "MASTER_ADDR=127.0.0.1", "--env", f"MASTER_PORT={free_ports(1)}"]
    command = [sys.executable, str(program), *map(str, arguments)]
    return subprocess.run(
        [
            *(HVDTOOLS, "launch", "-n", str(ranks), "--launcher", launcher, "--oversubscribe"),
            *("--timeout", "200", "--env", "OMP_NUM_THREADS=1", *(met if meet else [])),
            *("--", *command),
        ],
        capture_output=True,
        text=True,
        timeout=240,
    )


def read(result: Path) -> dict[str, Allreduce]:
    """Engine -> what it measured."""
    lines = [from_dict("allreduce", json.loads(line)) for line in result.read_text().splitlines()]
    return {line.engine: line for line in lines if isinstance(line, Allreduce)}


@pytest.mark.parametrize(
    ("launcher", "ranks"),
    [("mpirun", 1), ("mpirun", 2), ("mpirun", 3), ("horovodrun", 1), ("horovodrun", 2)],
)
def test_every_engine_sums_every_element_exactly(launcher: str, ranks: int, tmp_path: Path) -> None:
    engines = ["horovod", "torch", *(["mpi4py"] if launcher == "mpirun" else [])]
    ended = launch(
        *(launcher, ranks, PROGRAM, "--engine", ",".join(engines), "--sizes", "1KiB,2MiB"),
        *("--dtype", "float32,float16,bfloat16", "--tensors", "1,16"),
        *("--result", tmp_path / "result", *ONCE),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    measured = read(tmp_path / "result")
    assert list(measured) == engines
    messages = [
        (size, dtype, tensors)
        for dtype in ("float32", "float16", "bfloat16")
        for tensors in (1, 16)
        for size in (2**10, 2**21)
    ]
    for name, line in measured.items():
        assert [(p.message_bytes, p.dtype, p.tensors) for p in line.points] == messages
        assert line.transport == ("mpi" if launcher == "mpirun" and name != "torch" else "gloo")
        for point in line.points:
            check_point(name, point)
    shown = [line.split() for line in ended.stdout.splitlines() if "iB" in line]
    assert len(shown) == len(messages) * len(engines)
    if ranks == 1:
        assert {words[-2] for words in shown if "unsupported:" not in words} == {"0.000"}


def check_point(engine: str, point: Point) -> None:
    if point.unsupported is not None:
        assert (engine, point.dtype) in {
            ("horovod", "bfloat16"),
            ("mpi4py", "float16"),  # has one where MPI has the type
            ("mpi4py", "bfloat16"),
        }
        assert re.search("not supported|has no type for", point.unsupported)
        assert point.op_s == () and point.ops_per_block == 0
    else:
        assert len(point.op_s) == 1 and point.op_s[0] > 0 and point.ops_per_block >= 1
    assert point.wrong_elements == 0


def test_what_horovod_lacks_is_refused_and_not_left_out(tmp_path: Path) -> None:
    ended = launch(
        *("horovodrun", 2, PROGRAM, "--engine", "horovod", "--sizes", "1KiB"),
        *("--dtype", "bfloat16", "--result", tmp_path / "result", *ONCE),
    )
    (point,) = read(tmp_path / "result")["horovod"].points
    assert point.unsupported == "ValueError: Tensor type torch.BFloat16Tensor is not supported."
    assert f"unsupported: {point.unsupported}" in ended.stdout and ended.returncode == 0


@pytest.mark.parametrize("tensors", [1, 4])
def test_elements_that_are_off_are_counted(tensors: int, tmp_path: Path) -> None:
    ended = launch(
        *("horovodrun", 2, PLANTED, "off", "--engine", "torch", "--sizes", "64KiB"),
        *("--tensors", tensors, "--result", tmp_path / "result", *ONCE),
    )
    # The result says it; without one the exit code does.
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert [point.wrong_elements for point in read(tmp_path / "result")["torch"].points] == [3]
    assert "3 element(s) were not the exact sum" in ended.stderr + ended.stdout


def test_by_hand_the_exit_code_says_that_a_sum_is_wrong() -> None:
    ended = launch(
        *("horovodrun", 2, PLANTED, "off", "--engine", "torch", "--sizes", "64KiB"),
        *("--tensors", 1, *ONCE),
    )
    assert ended.returncode == 1, ended.stdout + ended.stderr


def test_ranks_agree_on_a_block_though_their_clocks_differ() -> None:
    ended = launch(
        *("horovodrun", 3, PLANTED, "clocks", "--engine", "torch", "--sizes", "1KiB,64KiB", *ONCE)
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    said = [re.findall(rf"^\[{rank}\] ops (\d+)", ended.stdout, re.MULTILINE) for rank in range(3)]
    assert len(said[0]) == 2 and said[0] == said[1] == said[2]


def test_mpi4py_does_not_take_a_job_for_many_of_one_rank() -> None:
    ended = launch("horovodrun", 2, PROGRAM, "--engine", "mpi4py", "--sizes", "1KiB", *ONCE)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 2 and "MPI sees 1 rank(s) where horovodrun started 2" in said
    # horovodrun has a traceback of its own.
    assert "--launcher mpirun" in said and not re.search(r"^\[\d\] Traceback", said, re.MULTILINE)


def test_torch_says_what_it_meets_at() -> None:
    ended = launch("horovodrun", 2, PROGRAM, "--engine", "torch", *ONCE, meet=False)
    said = ended.stdout + ended.stderr
    assert ended.returncode == 2 and "meets at MASTER_ADDR:MASTER_PORT" in said
    assert not re.search(r"^\[\d\] Traceback", said, re.MULTILINE)


def test_a_message_that_cannot_be_made_is_refused_in_words(tmp_path: Path) -> None:
    ended = alone(
        *("--engine", "torch", "--sizes", "1KiB,1048576GiB", "--tensors", "1,7"),
        *("--result", tmp_path / "result", *ONCE),
    )
    assert ended.returncode == 0, ended.stderr
    small, large, uneven, _ = read(tmp_path / "result")["torch"].points
    assert small.unsupported is None and small.op_s
    assert (
        large.unsupported is not None
        and "need 2,048\u00a0TiB of memory in each rank" in large.unsupported
    )
    assert uneven.unsupported == "1\u00a0KiB are not 7 equal tensors of float32."


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--engine", "smoke"], "Unknown engine 'smoke': choose one of horovod, mpi4py, torch."),
        (["--engine", "torch,"], "Unknown engine ''"),
        (["--dtype", "int8"], "Unknown dtype 'int8': choose one of bfloat16, float16, float32."),
        (["--sizes", "4KB"], "Unknown size '4KB': write a whole number from 1 and one of B, KiB"),
        (["--sizes", "1MiB:1KiB"], "end before they begin"),
        (["--tensors", "1,0"], "no whole numbers from 1"),
        (["--factor", "1"], "give at least 2"),
        (["--result", "nowhere/result"], "There is no folder nowhere"),
    ],
)
def test_a_bad_argument_is_one_sentence(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from hvdtools.bench.programs.allreduce import allreduce

    with pytest.raises(SystemExit) as ended:
        allreduce.parse(arguments)
    told = capsys.readouterr().err
    assert ended.value.code == 2, told
    assert said in told.strip().splitlines()[-1] and "Traceback" not in told


def test_a_command_that_cannot_be_ends_with_one_sentence() -> None:
    ended = alone("--dtype", "int8")
    assert ended.returncode == 2, ended.stderr
    assert "Unknown dtype 'int8'" in ended.stderr.strip().splitlines()[-1]
    assert "Traceback" not in ended.stderr


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_sentence() -> None:
    ended = alone("--device", "cuda")
    assert ended.returncode == 2 and "PyTorch sees no GPU here" in ended.stderr


def test_a_horovod_that_is_not_there_is_one_sentence() -> None:
    code = (
        "import sys, importlib.util as u; find = u.find_spec\n"
        "u.find_spec = lambda name, *more: None if name == 'horovod' else find(name, *more)\n"
        "from hvdtools.bench.programs.allreduce import allreduce\n"
        "sys.exit(allreduce.main(['--sizes', '1KiB']))"
    )
    command = [sys.executable, "-c", code]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr
    assert "Horovod is not installed here: run `hvdtools build`." in ended.stderr


def test_an_mpi_that_does_not_read_gpus_is_not_given_their_addresses() -> None:
    pytest.importorskip("mpi4py")
    code = (
        "import torch; from hvdtools.bench.programs.allreduce import mpi\n"
        "from hvdtools.core.topology import SINGLE_PROCESS\n"
        "engine = mpi.Mpi4py(SINGLE_PROCESS, torch.device('cuda'))\n"
        "if mpi.reads_gpus(): print('it reads GPUs'); raise SystemExit\n"
        "try: engine.operation([torch.ones(1)])\n"
        "except engine.refusals as error: print(error)\n"
    )
    command = [sys.executable, "-c", code]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.stdout.strip() in (
        *("it reads GPUs", "this MPI does not say that it can read the memory of GPUs"),
    ), said.stderr
