"""A suite's file: what is read, in which order it runs, and every way it can be wrong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from hvdtools.bench import suite as suites
from hvdtools.bench.cases import cases, command_by_hand, environment
from hvdtools.bench.engines import ENGINES, as_it_ran

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
DEMO = (BENCHMARKS / "suites" / "demo.toml").read_text()


def bench_run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from hvdtools.cli import main; sys.argv[0] = 'hvdtools'; main()"
    command = [sys.executable, "-c", program, "bench", "run", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_demo_is_what_its_file_says() -> None:
    demo = suites.load("demo")
    assert demo.name == "demo"
    assert demo.engines == ("horovod-mpi", "horovod-gloo", "ddp-gloo")
    assert demo.ranks == (1, 2)
    assert demo.program.samefile(BENCHMARKS / "train_torch.py")
    assert dict(demo.train)["batch_size"] == 45


def test_engines_take_turns_in_every_round(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(DEMO.replace("rounds = 3", "rounds = 2").replace("[1, 2]", "[2, 1]"))
    order = [(case.round, case.ranks, case.engine) for case in cases(suites.load(str(file)))]
    turn = ["horovod-mpi", "horovod-gloo", "ddp-gloo"]
    assert order == [
        (number, ranks, engine) for number in (1, 2) for ranks in (1, 2) for engine in turn
    ]


def test_every_case_has_the_same_thread_bound() -> None:
    demo = suites.load("demo")
    for case in cases(demo):
        seen = dict(environment(demo, ENGINES[case.engine], 5000))
        assert seen["OMP_NUM_THREADS"] == "1"
        assert ("MASTER_PORT" in seen) == (case.engine == "ddp-gloo")


def test_the_command_by_hand_names_no_folder_of_this_machine() -> None:
    demo = suites.load("demo")
    for case in cases(demo):
        line = command_by_hand(demo, case, 5000)
        assert "benchmarks/train_torch.py" in line
        assert str(Path.home()) not in line and str(BENCHMARKS.parent) not in line


def test_a_result_says_what_carried_the_gradients() -> None:
    assert as_it_ran("horovod-mpi", "mpi") == "horovod-mpi"
    assert as_it_ran("horovod-mpi", "nccl") == "horovod-mpi+nccl"
    assert as_it_ran("ddp-gloo", "nccl") == "ddp-nccl"
    assert as_it_ran("ddp-gloo", None) == "ddp-gloo"


def _choices_of(program: Path, name: str) -> set[str]:
    """The keys of a dict that a program assigns at its top, read without importing it."""
    for node in ast.parse(program.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
            assert isinstance(node.value, ast.Dict)
            return {ast.literal_eval(key) for key in node.value.keys if key is not None}
    raise AssertionError(f"{program} assigns no dict to {name}")


def test_names_that_a_suite_may_use_are_the_programs_own() -> None:
    images = BENCHMARKS / "small_images.py"
    assert set(suites.CHOICES["model"]) == _choices_of(images, "MODELS")
    assert set(suites.CHOICES["data"]) == _choices_of(images, "DATA")


def test_train_keys_are_the_programs_options() -> None:
    program = BENCHMARKS / "train_torch.py"
    helped = subprocess.run(
        [sys.executable, str(program), "--help"], capture_output=True, text=True, timeout=120
    )
    assert helped.returncode == 0, helped.stderr
    for key in suites.TRAIN_KEYS:
        assert f"--{key.replace('_', '-')} " in helped.stdout


BAD = {
    "not TOML": ('name = "demo"', "name = ", "is not valid TOML"),
    "key": ("rounds = 3", "rounds = 3\nround = 3", "'round'"),
    "missing key": ("rounds = 3", "", "lacks 'rounds'"),
    "train key": ("seed = 1", "seed = 1\nbatchsize = 2", "'batchsize'"),
    "missing train key": ("seed = 1", "", "lacks 'seed'"),
    "engine": ('"ddp-gloo"]', '"ddp-glue"]', "Unknown engine 'ddp-glue': choose one of ddp-gloo"),
    "model": ('"cnn"', '"rnn"', "Unknown model 'rnn': choose one of cnn"),
    "data": ('"digits"', '"cats"', "choose one of digits, synthetic"),
    "scaling": ('"weak"', '"strong"', "Unknown scaling 'strong': choose one of weak"),
    "program": ('"train_torch.py"', '"train.py"', "choose one of train_torch.py"),
    "program path": ('"train_torch.py"', '"./train.py"', "is not a file"),
    "kind": ("rounds = 3", 'rounds = "3"', "rounds = '3': give it a whole number"),
    "true is no number": ("rounds = 3", "rounds = true", "rounds = True"),
    "no rounds": ("rounds = 3", "rounds = 0", "0 rounds"),
    "ranks": ("[1, 2]", "[0, 2]", "whole numbers from 1"),
    "ranks in ranks": ("[1, 2]", "[[1], [2]]", "whole numbers from 1"),
    "ranks twice": ("[1, 2]", "[2, 2]", "list each once"),
    "no engines": ('["horovod-mpi", "horovod-gloo", "ddp-gloo"]', "[]", "at least one"),
    "threads": ("threads_per_rank = 1", "threads_per_rank = 0", "more than 0"),
    "batch": ("batch_size = 45", "batch_size = 0", "batch_size = 0"),
    "warm-up": ("warmup_epochs = 2", "warmup_epochs = 12", "leaves none to count"),
    "name": ('name = "demo"', 'name = "../demo"', "cannot name a folder"),
}


@pytest.mark.parametrize("wrong", BAD)
def test_a_bad_suite_is_one_sentence(wrong: str, tmp_path: Path) -> None:
    right, bad, said = BAD[wrong]
    assert right in DEMO
    (tmp_path / "bad.toml").write_text(DEMO.replace(right, bad, 1))
    ended = bench_run("bad.toml", cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr
    assert ended.stderr.startswith("hvdtools: ") and ended.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("dmeo",), "Unknown suite 'dmeo': choose one of demo"),
        (("missing.toml",), "There is no suite file 'missing.toml'"),
        (("demo", "--rounds", "0"), "0 rounds"),
        (("demo", "--out", "/dev/null/results"), "cannot be made"),
    ],
)
def test_a_bad_argument_is_one_sentence(
    arguments: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    ended = bench_run(*arguments, cwd=tmp_path)
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr and ended.stderr.count("\n") == 1
