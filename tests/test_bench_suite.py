"""A suite's file: what is read, in which order it runs, and every way it can be wrong."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from hvdtools.bench import program as programs
from hvdtools.bench import suite as suites
from hvdtools.bench.cases import cases, command_by_hand, environment
from hvdtools.bench.engines import ENGINES, FRAMEWORKS, as_it_ran, engines_of

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
DEMO = (BENCHMARKS / "suites" / "demo.toml").read_text()


def bench_run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from hvdtools.cli import main; sys.argv[0] = 'hvdtools'; main()"
    command = [sys.executable, "-c", program, "bench", "run", *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=60)


def test_demo_is_what_its_file_says() -> None:
    demo = suites.load("demo")
    assert demo.name == "demo"
    assert demo.ranks == (1, 2)
    torch, keras = demo.programs
    assert torch.engines == ("horovod-mpi", "horovod-gloo", "ddp-gloo")
    assert torch.file.samefile(BENCHMARKS / "train_torch.py")
    assert torch.asked("batch_size") == 45
    assert keras.engines == ("keras-horovod-mpi", "keras-horovod-gloo", "keras-mwms")
    assert keras.file.samefile(BENCHMARKS / "train_keras.py")
    assert keras.asked("batch_size") == 64


def test_engines_take_turns_in_every_round(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(DEMO.replace("rounds = 3", "rounds = 2").replace("[1, 2]", "[2, 1]"))
    order = [(case.round, case.ranks, case.engine) for case in cases(suites.load(str(file)))]
    torch = ["horovod-mpi", "horovod-gloo", "ddp-gloo"]
    keras = ["keras-horovod-mpi", "keras-horovod-gloo", "keras-mwms"]
    assert order == [
        (number, ranks, engine)
        for number in (1, 2)
        for turn in (torch, keras)
        for ranks in (1, 2)
        for engine in turn
    ]


def test_every_case_has_the_same_thread_bound() -> None:
    demo = suites.load("demo")
    for case in cases(demo):
        seen = dict(environment(demo, ENGINES[case.engine], 5000))
        assert seen["OMP_NUM_THREADS"] == "1"
        assert ("MASTER_PORT" in seen) == (case.engine in ("ddp-gloo", "keras-mwms"))


def test_the_command_by_hand_names_no_folder_of_this_machine() -> None:
    demo = suites.load("demo")
    for case in cases(demo):
        line = command_by_hand(demo, case, 5000)
        assert f"benchmarks/train_{case.program.framework}.py" in line
        assert str(Path.home()) not in line and str(BENCHMARKS.parent) not in line


def test_a_result_says_what_carried_the_gradients() -> None:
    assert as_it_ran("horovod-mpi", "mpi") == "horovod-mpi"
    assert as_it_ran("horovod-mpi", "nccl") == "horovod-mpi+nccl"
    assert as_it_ran("ddp-gloo", "nccl") == "ddp-nccl"
    assert as_it_ran("ddp-gloo", None) == "ddp-gloo"
    assert as_it_ran("keras-mwms", "grpc") == "keras-mwms"
    assert as_it_ran("keras-mwms", "nccl") == "keras-mwms+nccl"


def test_a_framework_is_held_against_an_engine_of_its_own() -> None:
    for name, framework in FRAMEWORKS.items():
        assert framework.yardstick in engines_of(name)


def _choices_of(program: Path, name: str) -> set[str]:
    """The keys of a dict that a program assigns at its top, read without importing it."""
    for node in ast.parse(program.read_text()).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if ast.unparse(target) == name:
            assert isinstance(node.value, ast.Dict)
            return {ast.literal_eval(key) for key in node.value.keys if key is not None}
    raise AssertionError(f"{program} assigns no dict to {name}")


@pytest.mark.parametrize(
    ("framework", "models", "images", "engines"),
    [
        ("torch", "small_images.py", "small_images.py", "train_torch.py"),
        ("keras", "keras_model.py", "colour_images.py", "keras_engines.py"),
    ],
)
def test_names_that_a_suite_may_use_are_the_programs_own(
    framework: str, models: str, images: str, engines: str
) -> None:
    may_use = FRAMEWORKS[framework]
    assert set(may_use.models) == _choices_of(BENCHMARKS / models, "MODELS")
    assert set(may_use.data) == _choices_of(BENCHMARKS / images, "DATA")
    told = {ENGINES[name].program_engine for name in engines_of(framework)}
    assert told <= _choices_of(BENCHMARKS / engines, "ENGINES")


def test_shipped_programs_are_those_that_are_there() -> None:
    assert set(programs.SHIPPED) == {file.name for file in BENCHMARKS.glob("train_*.py")}
    assert set(programs.SHIPPED.values()) == set(FRAMEWORKS)


@pytest.mark.parametrize("name", programs.SHIPPED)
def test_train_keys_are_the_programs_options(name: str) -> None:
    program = BENCHMARKS / name
    helped = subprocess.run(
        [sys.executable, str(program), "--help"], capture_output=True, text=True, timeout=120
    )
    assert helped.returncode == 0, helped.stderr
    for key in programs.TRAIN_KEYS:
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
    "program": ('"train_torch.py"', '"train.py"', "choose one of train_keras.py, train_torch.py"),
    "program path": ('"train_torch.py"', '"./train.py"', "is no file"),
    "program key": ('file = "train_torch.py"', 'fil = "x"', "Unknown key of [[program]]"),
    "engine of another framework": (
        '"horovod-gloo", "ddp-gloo"]',
        '"horovod-gloo", "keras-mwms"]',
        "The engine 'keras-mwms' does not train with PyTorch",
    ),
    "engines of two frameworks": (
        'file = "train_torch.py"      # one of benchmarks/, or ./a/path.py relative to this file\n'
        'engines = ["horovod-mpi"',
        'file = "./bad.toml"\nengines = ["keras-mwms"',
        "does not train with Keras",
    ),
    "two programs for one framework": (
        DEMO[DEMO.rindex('file = "train_keras.py"') : DEMO.rindex("[program.train]")],
        'file = "train_torch.py"\nengines = ["horovod-mpi"]\n',
        "has two programs for PyTorch",
    ),
    "no folder of images": (
        '"digits"              # or',
        '"no/such/folder"  #',
        "choose one of digits, synthetic, the path of a folder",
    ),
    "kind": ("rounds = 3", 'rounds = "3"', "rounds = '3': give it a whole number"),
    "true is no number": ("rounds = 3", "rounds = true", "rounds = True"),
    "no rounds": ("rounds = 3", "rounds = 0", "0 rounds"),
    "ranks": ("[1, 2]", "[0, 2]", "whole numbers from 1"),
    "ranks in ranks": ("[1, 2]", "[[1], [2]]", "whole numbers from 1"),
    "ranks twice": ("[1, 2]", "[2, 2]", "list each once"),
    "no engines": ('["horovod-mpi", "horovod-gloo", "ddp-gloo"]', "[]", "at least one"),
    "threads": ("threads_per_rank = 1", "threads_per_rank = 0", "more than 0"),
    "no programs": (DEMO[DEMO.index("[[program]]") :], "program = []", "has no program to run"),
    "a program in words": (DEMO[DEMO.index("[[program]]") :], 'program = ["a"]', "[[program]]"),
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
