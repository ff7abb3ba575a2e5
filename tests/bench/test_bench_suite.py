"""A suite's file: what is read, in which order it runs, and every way it can be wrong."""

from __future__ import annotations

import ast
import dataclasses
import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from bench_examples import training_result
from paths import BENCHMARKS
from rich.console import Console

from hvdtools.bench.analysis.summary import analyze
from hvdtools.bench.report.console import print_run
from hvdtools.bench.report.csv_files import to_csv
from hvdtools.bench.report.palette import Mark, mark_of
from hvdtools.bench.results.result_file import from_json
from hvdtools.bench.run.placement import Placement
from hvdtools.bench.suite import suite_file as suites
from hvdtools.bench.suite.cases import Case, cases, names_of, program_arguments, together
from hvdtools.bench.suite.engines import FAMILIES, BenchEngine, Look
from hvdtools.bench.suite.options import MODELS, OPTIONS
from hvdtools.cli import main
from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.hosts import read_hosts
from hvdtools.launch.schedulers.slurm.request import Slurm
from hvdtools.launch.schedulers.ssh import Hosts

SUITE = """
name = "mine"
ranks = [1, 2]
repeats = 3
threads_per_rank = 1
timeout_s = 300

[[program]]
file = "train_torch.py"
engines = ["hvdtools-mpi", "hvdtools-gloo", "ddp"]
scaling = ["weak"]

[program.options]
model = "cnn"
data = "digits"
batch_size = 45
epochs = 12
warmup_epochs = 2
lr = 0.03
seed = 1

[[program]]
file = "train_keras.py"
engines = ["hvdtools-mpi", "hvdtools-gloo", "mwms"]
scaling = ["weak"]

[program.options]
model = "cnn"
data = "digits"
batch_size = 64
epochs = 8
warmup_epochs = 1
lr = 0.001
seed = 1
"""
GPU = (BENCHMARKS / "suites" / "gpu.toml").read_text()


@dataclass(frozen=True)
class Ended:
    """What a command that ran in this process said: a hundred of their own would take minutes."""

    returncode: int
    stdout: str
    stderr: str


Bench = Callable[..., Ended]


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Bench:
    """`hvdtools bench`, called in an empty folder."""

    def run(*arguments: str) -> Ended:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["hvdtools", "bench", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        code = ended.value.code
        return Ended(code if isinstance(code, int) else int(bool(code)), *capsys.readouterr())

    return run


def test_a_suite_is_what_its_file_says(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SUITE)
    suite = suites.load(str(file))
    assert (suite.name, suite.sizes) == ("mine", ((1, 1), (2, 1)))
    torch, keras = suite.programs
    assert torch.engines == ("hvdtools-mpi", "hvdtools-gloo", "ddp")
    assert torch.file.samefile(BENCHMARKS / "torch" / "train_torch.py")
    assert torch.asked("batch_size") == 45 and torch.scalings == ("weak",)
    assert keras.engines == ("hvdtools-mpi", "hvdtools-gloo", "mwms")
    assert keras.file.samefile(BENCHMARKS / "keras" / "train_keras.py")


def test_every_shipped_suite_can_be_unrolled() -> None:
    assert suites.suite_names() == ["cluster", "cpu", "demo", "gpu"]
    for name in suites.suite_names():
        suite = suites.load(name)
        assert suite.name == name and cases(suite)
    kinds = {FAMILIES[program.family].kind for program in suites.load("cpu").programs}
    assert kinds == {"training", "allreduce", "input"}


def test_engines_take_turns_in_every_round(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(SUITE.replace("repeats = 3", "repeats = 2").replace("[1, 2]", "[2, 1]"))
    order = [(case.repeat, case.ranks, case.engines) for case in cases(suites.load(str(file)))]
    torch = [("hvdtools-mpi",), ("hvdtools-gloo",), ("ddp",)]
    keras = [("hvdtools-mpi",), ("hvdtools-gloo",), ("mwms",)]
    assert order == [
        (number, ranks, engines)
        for number in (1, 2)
        for turn in (torch, keras)
        for ranks in (1, 2)
        for engines in turn[:: 1 if number == 1 else -1]
    ]


def test_interleaved_engines_share_the_jobs_that_one_launcher_serves() -> None:
    allreduce, _, resnet, *_ = suites.load("gpu").programs
    # Plain Horovod needs settings of its own.
    assert list(together(resnet)) == [("hvdtools-gloo", "ddp", "no_comm"), ("horovod-gloo",)]
    mixed = dataclasses.replace(resnet, engines=("ddp", "hvdtools-mpi", "hvdtools-gloo", "no_comm"))
    assert list(together(mixed)) == [("ddp", "hvdtools-mpi", "no_comm"), ("hvdtools-gloo",)]
    assert list(together(dataclasses.replace(mixed, interleaved=False))) == [
        (name,) for name in mixed.engines
    ]
    only = dataclasses.replace(resnet, engines=("ddp", "no_comm"))
    assert list(together(only)) == [("ddp", "no_comm")]
    # One rank has nobody to reduce with.
    ranks = {case.ranks for case in cases(suites.load("gpu")) if case.program == allreduce}
    assert ranks == {2}


def argument(case: Case, name: str) -> str:
    arguments = program_arguments(case)
    return arguments[arguments.index(name) + 1]


def test_weak_scaling_keeps_a_ranks_batch_and_strong_that_of_the_job(tmp_path: Path) -> None:
    found = {
        (case.scaling, case.ranks): argument(case, "--batch-size")
        for case in cases(suites.load("gpu"))
        if case.program.asked("model") == "resnet50" and "ddp" in case.engines
    }
    assert found[("weak", 1)] == found[("weak", 2)] == found[("strong", 1)] == "128"
    assert found[("strong", 2)] == "64"
    file = tmp_path / "three.toml"
    file.write_text(GPU.replace("ranks = [1, 2]", "ranks = [3]"))
    with pytest.raises(HvdtoolsError, match="cannot be shared by 3 ranks: choose a multiple"):
        cases(suites.load(str(file)))


def test_nodes_and_ranks_make_sizes() -> None:
    cluster = suites.load("cluster")
    assert cluster.sizes == ((1, 1), (8, 1), (16, 2))
    four = dataclasses.replace(cluster, ranks=(1, 2), nodes=(4,), ranks_per_node=4)
    assert four.sizes == ((1, 1), (2, 1), (16, 4))
    assert four.digest == cluster.digest  # what is measured, not where and how often
    other = dataclasses.replace(cluster, programs=cluster.programs[:1])
    assert other.digest != cluster.digest


def test_every_case_has_the_same_thread_bound() -> None:
    demo = suites.load("demo")
    for case in cases(demo):
        seen = dict(Placement().environment(demo, case, 5000))
        assert seen["OMP_NUM_THREADS"] == "1"
        assert ("MASTER_PORT" in seen) == (case.engines[0] in ("ddp", "mwms", "torch"))


def test_where_ranks_meet_and_who_starts_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = suites.load("cluster")
    case = next(c for c in cases(cluster) if c.nodes == 2 and c.family.kind == "training")
    hosts = Placement(Hosts(read_hosts("jo@a:8,b:9,c:8")), interface="eth1")
    spec = hosts.job(cluster, case, 5000, Path("answer"))
    assert isinstance(spec.on, Hosts) and [str(host) for host in spec.on.named] == ["jo@a:8", "b:8"]
    seen = dict(spec.env)
    assert seen["MASTER_ADDR"] == "a" and "GLOO_SOCKET_IFNAME" not in seen
    assert spec.launcher == "horovodrun" and spec.interface == "eth1"
    here = Placement(interface="eth1").environment(cluster, case, 5000)
    assert dict(here)["MASTER_ADDR"] == "127.0.0.1" and "GLOO_SOCKET_IFNAME" not in dict(here)
    assert dict(Placement().environment(cluster, case, 5000))["GLOO_SOCKET_IFNAME"] == "lo"
    monkeypatch.setenv("SLURMD_NODENAME", "node7")
    spec = Placement(Slurm()).job(cluster, case, 5000, Path("answer"))
    assert (spec.launcher, spec.nodes, spec.ranks_per_node) == ("srun", 2, 8)
    assert dict(spec.env)["MASTER_ADDR"] == "node7"
    with pytest.raises(HvdtoolsError, match="need other machines"):
        Placement().job(cluster, case, 5000, Path("answer"))
    few = Placement(Hosts(read_hosts("a:8,b:4")))
    with pytest.raises(HvdtoolsError, match="name more hosts or slots"):
        few.job(cluster, case, 5000, Path("answer"))


@pytest.mark.parametrize("name", ["demo", "cpu"])
def test_the_command_by_hand_names_no_folder_of_this_machine(name: str) -> None:
    suite = suites.load(name)
    for case in cases(suite):
        line = Placement().command_by_hand(suite, case, 5000)
        assert f"benchmarks/{case.family.folder}/{case.family.program}" in line
        assert str(Path.home()) not in line and str(BENCHMARKS.parent) not in line


def test_a_family_is_held_against_engines_of_its_own() -> None:
    for family in FAMILIES.values():
        for name in (family.baseline, family.ideal):
            assert name is None or name in family.engines


def _keys_of(file: str, name: str) -> tuple[str, ...]:
    """The keys of a dict that a program assigns at its top, read without importing it."""
    for node in ast.parse((BENCHMARKS / file).read_text()).body:
        if not isinstance(node, (ast.Assign, ast.AnnAssign)):
            continue
        target = node.targets[0] if isinstance(node, ast.Assign) else node.target
        if ast.unparse(target) == name:
            assert isinstance(node.value, ast.Dict)
            return tuple(ast.literal_eval(key) for key in node.value.keys if key is not None)
    raise AssertionError(f"{file} assigns no dict to {name}")


def test_names_that_a_suite_may_use_are_the_programs_own() -> None:
    assert (
        set(MODELS["torch"]) == set(MODELS["input"]) == set(_keys_of("torch/models.py", "MODELS"))
    )
    assert set(MODELS["keras"]) == set(_keys_of("keras/model.py", "MODELS"))
    for family, file in (
        ("torch", "torch/engines.py"),
        ("keras", "keras/engines.py"),
        ("allreduce", "allreduce/engines.py"),
    ):
        told = {engine.program_engine for engine in FAMILIES[family].engines.values()}
        assert told == set(_keys_of(file, "ENGINES"))


@pytest.mark.parametrize("family", FAMILIES)
def test_options_of_a_suite_are_the_programs(family: str) -> None:
    program = FAMILIES[family].file
    helped = subprocess.run(
        [sys.executable, str(program), "--help"], capture_output=True, text=True, timeout=120
    )
    assert helped.returncode == 0, helped.stderr
    for key in OPTIONS[family]:
        assert f"--{key.replace('_', '-')} " in helped.stdout, key


LAST_PROGRAM = SUITE[SUITE.rindex("[[program]]") :]
ALL_PROGRAMS = SUITE[SUITE.index("[[program]]") :]
BAD = {
    "not TOML": ('name = "mine"', "name = ", "is not valid TOML"),
    "key": ("repeats = 3", "repeats = 3\nrepeat = 3", "'repeat'"),
    "missing key": ("repeats = 3", "", "lacks 'repeats'"),
    "option": ("seed = 1", "seed = 1\nbatchsize = 2", "Unknown option of [program.options]"),
    "engine": ('"ddp"]', '"dpd"]', "Unknown engine of PyTorch 'dpd': choose one of ddp"),
    "engine of another family": ('"ddp"]', '"mwms"]', "Unknown engine of PyTorch 'mwms'"),
    "model": ('"cnn"', '"rnn"', "Unknown model 'rnn': choose one of cnn"),
    "data": ('"digits"', '"cats"', "choose one of digits, synthetic, the path of a folder"),
    "scaling": ('["weak"]', '["sideways"]', "Unknown scaling 'sideways': choose one of strong"),
    "no scaling": ('scaling = ["weak"]', "", "does not say how train_torch.py scales"),
    "strong without its batch": ('["weak"]', '["strong"]', "needs strong_batch_size"),
    "its batch without strong": (
        'scaling = ["weak"]',
        'scaling = ["weak"]\nstrong_batch_size = 8',
        "needs strong_batch_size",
    ),
    "program": ('"train_torch.py"', '"train.py"', "choose one of allreduce.py, input_pipeline.py"),
    "program path": ('"train_torch.py"', '"./train.py"\nfamily = "torch"', "is no file"),
    "program of no family": ('"train_torch.py"', '"./bad.toml"', 'add family = "torch"'),
    "unknown family": (
        '"train_torch.py"',
        '"./bad.toml"\nfamily = "jax"',
        "Unknown family 'jax': choose one of allreduce",
    ),
    "family of another": ('"train_torch.py"', '"train_torch.py"\nfamily = "keras"', "leave family"),
    "program key": ('file = "train_torch.py"', 'fil = "x"', "Unknown key of [[program]]"),
    "interleaved in TensorFlow": (
        'engines = ["hvdtools-mpi", "hvdtools-gloo", "mwms"]',
        'engines = ["mwms"]\ninterleaved = true',
        "runs one engine a job",
    ),
    "interleaved in words": (
        'engines = ["hvdtools-mpi", "hvdtools-gloo", "mwms"]',
        'engines = ["mwms"]\ninterleaved = "yes"',
        "give it true or false",
    ),
    "scaling of what trains nothing": (
        LAST_PROGRAM,
        '[[program]]\nfile = "allreduce.py"\nengines = ["torch"]\n'
        'scaling = ["weak"]\n[program.options]',
        "trains nothing: leave it out",
    ),
    "epochs and steps": ("epochs = 12", "epochs = 12\nsteps = 5", "a block is an epoch, or"),
    "kind": ("repeats = 3", 'repeats = "3"', "repeats = '3': give it a whole number"),
    "true is no number": ("repeats = 3", "repeats = true", "repeats = True"),
    "no repeats": ("repeats = 3", "repeats = 0", "0 repeats"),
    "no size": ("ranks = [1, 2]", "", "No number of ranks is given"),
    "nodes without ranks": ("ranks = [1, 2]", "nodes = [1, 2]", "add --ranks-per-node"),
    "ranks": ("[1, 2]", "[0, 2]", "whole numbers from 1"),
    "ranks in ranks": ("[1, 2]", "[[1], [2]]", "whole numbers from 1"),
    "ranks twice": ("[1, 2]", "[2, 2]", "list each once"),
    "no engines": ('["hvdtools-mpi", "hvdtools-gloo", "ddp"]', "[]", "at least one"),
    "threads": ("threads_per_rank = 1", "threads_per_rank = 0", "more than 0"),
    "no programs": (ALL_PROGRAMS, "program = []", "has no program to run"),
    "a program in words": (ALL_PROGRAMS, 'program = ["a"]', "[[program]]"),
    "batch": ("batch_size = 45", "batch_size = 0", "batch_size = 0"),
    "warm-up": ("warmup_epochs = 2", "warmup_epochs = 12", "leaves none to count"),
    "name": ('name = "mine"', 'name = "../mine"', "cannot name a folder"),
    "the same twice": (
        ALL_PROGRAMS,
        f"{ALL_PROGRAMS}\n{ALL_PROGRAMS.replace('epochs = 12', 'epochs = 13')}",
        "and both do the same but for how long they measure",
    ),
    "strong scaling without a learning rate": (
        LAST_PROGRAM,
        LAST_PROGRAM.replace('["weak"]', '["strong"]\nstrong_batch_size = 90').replace("lr =", "#"),
        "add lr, one rank's",
    ),
}


@pytest.mark.parametrize("wrong", BAD)
def test_a_bad_suite_is_one_sentence(wrong: str, bench: Bench, tmp_path: Path) -> None:
    right, bad, said = BAD[wrong]
    assert right in SUITE
    (tmp_path / "bad.toml").write_text(SUITE.replace(right, bad, 1))
    ended = bench("run", "bad.toml")
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr
    assert ended.stderr.startswith("hvdtools: ") and ended.stderr.count("\n") == 1
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("run", "dmeo"), "Unknown suite 'dmeo': choose one of cluster, cpu, demo, gpu"),
        (("run", "missing.toml"), "There is no suite file 'missing.toml'"),
        (("run", "demo", "--repeats", "0"), "0 repeats"),
        (("run", "demo", "--ranks", "1,two"), "--ranks 1,two is not a list of numbers"),
        (("run", "demo", "--ranks", "0"), "--ranks 0 is not a list of numbers"),
        (("run", "demo", "--nodes", "2"), "add --ranks-per-node"),
        (("run", "demo", "--ranks-per-node", "4"), "no number of them is given: add --nodes"),
        (("run", "cluster"), "2 nodes need other machines"),
        (("run", "demo", "--hosts", "a:1"), "1 nodes with 2 ranks each are more than --hosts a:1"),
        (("run", "demo", "--on", "moon"), "Unknown place 'moon': choose one of hosts, local"),
        (("run", "demo", "--on", "hosts"), "Name the hosts with --hosts"),
        (("run", "demo", "--hosts", "a:x"), "'x'"),
        (("run", "demo", "--sbatch=--qos=high"), "--sbatch is for Slurm"),
        (("run", "demo", "--hosts", "a:2", "--oversubscribe"), "--oversubscribe is for --on local"),
        (("run", "demo", "--resume"), "There are no results in results/demo"),
        (("run", "demo", "--out", "/dev/null/results"), "cannot be made"),
        (("report",), "There are no results in results"),
        (("report", "nowhere"), "There are no results in nowhere"),
        (("compare", "nowhere", "nowhere"), "There are no results in nowhere"),
        (("predict", "nowhere", "--ranks", "8"), "There are no results in nowhere"),
    ],
)
def test_a_bad_argument_is_one_sentence(
    arguments: tuple[str, ...], said: str, bench: Bench
) -> None:
    ended = bench(*arguments)
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr and ended.stderr.count("\n") == 1


def test_strong_batches_are_told_apart(tmp_path: Path) -> None:
    strong = LAST_PROGRAM.replace('["weak"]', '["weak", "strong"]\nstrong_batch_size = 90')
    other = strong.replace("90", "180").replace('["weak", "strong"]', '["strong"]')
    file = tmp_path / "two.toml"
    file.write_text(SUITE.replace(ALL_PROGRAMS, f"{strong}\n{other}"))
    made = cases(suites.load(str(file)))
    names = [name for case in made for name in names_of(case)]
    assert len(set(names)) == len(names)
    batches = {dict(name[2]).get("strong_batch_size") for name in names}  # type: ignore[call-overload]
    assert batches == {None, 90, 180}


def test_a_dry_run_prints_every_command_and_starts_nothing(bench: Bench, tmp_path: Path) -> None:
    ended = bench("run", "gpu", "--ranks", "2", "--repeats", "1", "--dry-run")
    assert ended.returncode == 0, ended.stderr
    lines = ended.stdout.splitlines()
    assert len(lines) == 9 and all(line.startswith("hvdtools launch -n 2 ") for line in lines)
    assert not list(tmp_path.iterdir())


def test_an_engine_is_added_in_one_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Suites, results, tables and plots know it; the program has the class that trains with it."""
    file = tmp_path / "suite.toml"
    file.write_text(SUITE.replace('"ddp"', '"ours"'))
    with pytest.raises(HvdtoolsError, match="Unknown engine of PyTorch 'ours'"):
        suites.load(str(file))
    added = BenchEngine("ours", "mpirun", "mpi", Look("other", "*"))
    monkeypatch.setitem(FAMILIES["torch"].engines, "ours", added)
    suite = suites.load(str(file))
    assert "ours" in FAMILIES["torch"].program_engines
    assert any("ours" in case.engines for case in cases(suite))
    result = training_result("ours", 2)
    assert from_json(result.to_json()) == result
    run = analyze([result, training_result("ours", 1)])
    assert "ours" in to_csv(run, "training")
    console = Console(file=io.StringIO(), width=160)
    print_run(console, run)
    assert "ours" in console.file.getvalue()  # type: ignore[attr-defined]
    assert mark_of("ours+nccl") == Mark("other", "*", hollow=True)
