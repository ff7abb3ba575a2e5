"""A suite really run: every engine, a case that fails, replicas that differ, a run resumed."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from bench_examples import training_result
from paths import BENCHMARKS

from hvdtools.bench.report.page import PAGE_NAME
from hvdtools.bench.results.result_file import FILE_NAME, Result, append, read
from hvdtools.bench.run import runner
from hvdtools.bench.run.placement import Placement
from hvdtools.bench.run.runner import Run, run_cases
from hvdtools.bench.suite.cases import cases
from hvdtools.bench.suite.engines import FAMILIES
from hvdtools.bench.suite.suite_file import load
from hvdtools.core import installed
from hvdtools.launch import Outcome, detect_host

SECRET = "correct-horse-battery-staple"
SUITE = """
name = "tiny"
ranks = [{ranks}]
repeats = {repeats}
threads_per_rank = 1
timeout_s = {timeout_s}
[[program]]
file = "{program}"
{family}
engines = [{engines}]
scaling = ["weak"]
{more}
[program.options]
model = "cnn"
data = "synthetic"
batch_size = 45
lr = {lr}
seed = 1
{length}
"""
EPOCHS = "epochs = 4\nwarmup_epochs = 1"

pytestmark = [
    pytest.mark.ranks,
    pytest.mark.skipif(
        detect_host().slots < 2 or not detect_host().controllers,
        reason="needs two cores and a Horovod: run `hvdtools build`",
    ),
]


def write_suite(
    folder: Path,
    program: str = "train_torch.py",
    engines: tuple[str, ...] = ("ddp",),
    ranks: str = "2",
    timeout_s: float = 120,
    lr: float = 0.03,
    family: str = "torch",
    more: str = "",
    length: str = EPOCHS,
    repeats: int = 1,
) -> Path:
    file = folder / "tiny.toml"
    file.write_text(
        SUITE.format(
            program=program,
            engines=", ".join(f'"{engine}"' for engine in engines),
            ranks=ranks,
            timeout_s=timeout_s,
            lr=lr,
            family=f'family = "{family}"' if "/" in program else "",
            more=more,
            length=length,
            repeats=repeats,
        )
    )
    return file


PROGRAM = "import sys; from hvdtools.cli import main; sys.argv[0] = 'hvdtools'; main()"


def bench(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "bench", *arguments],
        cwd=cwd,
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": SECRET},
        capture_output=True,
        text=True,
        timeout=400,
    )


def results_in(folder: Path) -> tuple[Result, ...]:
    return read(folder / "results" / "tiny" / FILE_NAME).results


@pytest.mark.parametrize(
    ("name", "engines"),
    [
        ("torch", ("hvdtools-mpi", "ddp", "no_comm")),
        ("keras", ("hvdtools-mpi", "no_comm")),
        *(
            pytest.param(name, tuple(family.engines), id=f"{name}-all", marks=pytest.mark.slow)
            for name, family in FAMILIES.items()
            if family.kind == "training"
        ),
    ],
)
def test_engines_train_on_two_ranks_and_stay_in_sync(
    name: str, engines: tuple[str, ...], tmp_path: Path
) -> None:
    family = FAMILIES[name]
    lr = {"torch": 0.03, "keras": 0.001}[name]
    suite = write_suite(tmp_path, family.program, engines, lr=lr)
    ended = bench("run", str(suite), cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = results_in(tmp_path)
    assert [result.engine for result in found] == list(engines)
    for result in found:
        measured = result.training
        assert measured is not None and result.error is None
        known = family.engines[result.engine]
        assert (measured.engine, measured.transport) == (known.program_engine, known.transport)
        assert measured.in_sync is (None if result.engine == "no_comm" else True)
        # A rank that averages with nobody has seen its half of the images alone.
        assert measured.accuracy is not None
        assert measured.accuracy > (0.3 if result.engine == "no_comm" else 0.8)
        assert measured.threads_per_rank == 1 and result.environment["OMP_NUM_THREADS"] == "1"
        assert len(measured.block_s) == 3  # four epochs, the first not counted
        assert measured.steps_per_block == 16  # 1440 images / 2 ranks / 45
        assert len(measured.rank_step_s) == len(measured.peak_memory_bytes) == 2
        assert measured.lr == pytest.approx(2 * lr)
        assert (result.family, result.program, result.scaling) == (name, family.program, "weak")
    assert "\x1b[" not in ended.stdout
    assert str(Path("results") / "tiny" / PAGE_NAME) in ended.stdout
    everything = (tmp_path / "results" / "tiny" / FILE_NAME).read_text()
    assert SECRET not in everything and "AWS" not in everything
    assert os.uname().nodename not in everything


def test_interleaved_engines_are_one_job_and_many_results(tmp_path: Path) -> None:
    engines = ("ddp", "hvdtools-mpi", "no_comm")
    length = "steps = 2\nlimit_s = 1\nmax_blocks = 8"
    suite = write_suite(tmp_path, engines=engines, more="interleaved = true", length=length)
    ended = bench("run", str(suite), "--csv", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = results_in(tmp_path)
    assert [result.engine for result in found] == list(engines)
    assert {result.interleaved for result in found} == {engines}
    assert len({(result.wall_s, result.command) for result in found}) == 1
    blocks = {len(result.block_rates) for result in found}
    assert len(blocks) == 1 and 6 <= blocks.pop() <= 8
    for result in found:
        assert result.training is not None and result.training.phase_s.keys() >= {"forward"}
    assert "csv:" in ended.stdout and (tmp_path / "results" / "tiny" / "training.csv").is_file()


def test_a_second_run_adds_and_report_shows_either(tmp_path: Path) -> None:
    suite = write_suite(tmp_path, ranks="1")
    for _ in range(2):
        assert bench("run", str(suite), cwd=tmp_path).returncode == 0
    first, second = results_in(tmp_path)
    assert first.run_id != second.run_id
    shown = bench("report", cwd=tmp_path)
    assert shown.returncode == 0 and f"run {second.run_id}" in shown.stdout
    shown = bench("report", "results/tiny", "--run", first.run_id, cwd=tmp_path)
    assert shown.returncode == 0 and f"run {first.run_id}" in shown.stdout
    assert first.run_id in (tmp_path / "results" / "tiny" / PAGE_NAME).read_text()


def test_a_failing_case_is_a_row_and_the_suite_goes_on(tmp_path: Path) -> None:
    (tmp_path / "moody.py").write_text(
        "import os, runpy, sys\n"
        "if 'ddp' in sys.argv and os.environ['OMPI_COMM_WORLD_RANK'] == '1':\n"
        "    sys.exit('no luck today')\n"
        f"runpy.run_path({str(BENCHMARKS / 'torch' / 'train_torch.py')!r}, run_name='__main__')\n"
    )
    suite = write_suite(tmp_path, "./moody.py", ("ddp", "hvdtools-gloo"))
    ended = bench("run", str(suite), cwd=tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    bad, good = results_in(tmp_path)
    assert bad.error is not None and "no luck today" in bad.error and "rank 1" in bad.error
    assert bad.exit_code == 1 and bad.measured is None
    assert good.error is None and good.training is not None
    assert "FAILED" in ended.stdout and "no luck today" in ended.stdout
    assert "1 of 2 cases failed" in ended.stderr
    assert "no luck today" in (tmp_path / "results" / "tiny" / PAGE_NAME).read_text()


def test_a_case_that_hangs_ends_and_says_so(tmp_path: Path) -> None:
    (tmp_path / "hang.py").write_text("import time\ntime.sleep(300)\n")
    ended = bench("run", str(write_suite(tmp_path, "./hang.py", timeout_s=3)), cwd=tmp_path)
    assert ended.returncode == 1
    (result,) = results_in(tmp_path)
    assert result.error == "not done after the 3 s that the suite allows a case"


def test_a_program_that_measures_nothing_is_a_failure(tmp_path: Path) -> None:
    (tmp_path / "idle.py").write_text("print('done')\n")
    ended = bench("run", str(write_suite(tmp_path, "./idle.py")), cwd=tmp_path)
    assert ended.returncode == 1
    assert results_in(tmp_path)[0].error == "the program ended well but wrote no result"


PLANTED_IN_TORCH = """
import torch
from hvdtools.bench.programs.torch import train_torch, training as torch_training
digest = torch_training.Trainer.digest
def plant_then_digest(trainer):
    if trainer.engine.rank == 1:
        weight = next(trainer.model.parameters()).data.view(-1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    return digest(trainer)
torch_training.Trainer.digest = plant_then_digest
train_torch.main()
train_torch.leave()
"""
PLANTED_IN_KERAS = """
from hvdtools.bench.programs.keras import environment
environment.set_environment()
from hvdtools.bench.programs.keras import train_keras, measure as keras_measure
import numpy as np
replicas_equal = keras_measure.replicas_equal
def plant_then_compare(engine, model):
    if engine.rank == 1:
        weights = model.get_weights()
        weights[0].flat[0] = np.nextafter(weights[0].flat[0], np.float32(9))
        model.set_weights(weights)
    return replicas_equal(engine, model)
keras_measure.replicas_equal = plant_then_compare
train_keras.main()
"""


@pytest.mark.parametrize(
    ("engine", "planted"),
    [
        ("ddp", PLANTED_IN_TORCH),
        pytest.param("hvdtools-mpi", PLANTED_IN_TORCH, marks=pytest.mark.slow),
        pytest.param("mwms", PLANTED_IN_KERAS, marks=pytest.mark.slow),
        ("hvdtools-mpi", PLANTED_IN_KERAS),
    ],
)
def test_a_weight_that_differs_on_one_rank_is_caught(
    engine: str, planted: str, tmp_path: Path
) -> None:
    (tmp_path / "planted.py").write_text(planted)
    family = "torch" if planted is PLANTED_IN_TORCH else "keras"
    suite = write_suite(tmp_path, "./planted.py", (engine,), family=family)
    ended = bench("run", str(suite), cwd=tmp_path)
    (result,) = results_in(tmp_path)
    assert result.error is None, result.error
    assert result.training is not None and result.training.in_sync is False
    assert ended.returncode == 1 and "REPLICAS DIFFER" in ended.stdout
    assert "in 1 the replicas differ" in ended.stderr


def test_a_missing_framework_is_a_row_and_starts_no_rank(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installed, "_TENSORFLOW_DISTRIBUTIONS", ("no-such-tensorflow",))
    suite = load(str(write_suite(tmp_path, "train_keras.py", ("mwms", "hvdtools-mpi"))))
    said: list[str] = []
    this = Run(suite, Placement(), "run-1", tmp_path / FILE_NAME)
    results = list(run_cases(this, cases(suite), lambda case, line: said.append(line)))
    assert said == ["starting", "starting"]
    for result in results:
        assert result.error is not None and "Keras needs tensorflow" in result.error
        assert result.exit_code == 2 and result.versions["tensorflow"] == "not installed"
    assert read(this.file).results == tuple(results)


def test_a_rank_that_a_signal_ended_is_a_case_that_failed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)
    ended = Outcome(143, 1, ("loss 0.5",))
    assert runner._why(ended, 10) == "rank 1 ended with exit code 143: loss 0.5"
    assert runner._why(dataclasses.replace(ended, stopped=True), 10) == "stopped by the user"
    monkeypatch.setenv("SLURM_JOB_ID", "7")  # where scancel reaches the ranks first
    assert runner._why(ended, 10) == "stopped by the user"


def test_a_stopped_run_leaves_no_process_and_goes_on_where_it_was(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import os, runpy, sys, time\n"
        "if 'ddp' in sys.argv and not os.path.exists('resumed'):\n"
        "    open('waiting', 'w').close()\n"
        "    time.sleep(300)\n"
        f"runpy.run_path({str(BENCHMARKS / 'torch' / 'train_torch.py')!r}, run_name='__main__')\n"
    )
    suite = write_suite(tmp_path, "./slow.py", ("hvdtools-gloo", "ddp", "no_comm"), ranks="1")
    running = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "bench", "run", str(suite)],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    file = tmp_path / "results" / "tiny" / FILE_NAME
    end = time.monotonic() + 120
    while not (tmp_path / "waiting").exists():
        assert time.monotonic() < end and running.poll() is None
        time.sleep(0.2)
    ranks = psutil.Process(running.pid).children(recursive=True)
    running.send_signal(signal.SIGINT)
    said = running.communicate(timeout=60)[0]
    assert running.returncode == 2 and "--resume" in said, said
    assert ranks and not any(each.is_running() for each in ranks)
    (first,) = read(file).results
    assert first.engine == "hvdtools-gloo"
    assert {entry.name for entry in file.parent.iterdir()} == {FILE_NAME}

    (tmp_path / "resumed").touch()
    ended = bench("run", str(suite), "--resume", cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "1 of 3 cases are there already" in ended.stdout
    found = read(file).results
    assert found[0] == first and [each.engine for each in found] == [
        "hvdtools-gloo",
        "ddp",
        "no_comm",
    ]
    assert {each.run_id for each in found} == {first.run_id}
    again = bench("run", str(suite), "--resume", "--run", first.run_id, cwd=tmp_path)
    assert "3 of 3 cases are there already" in again.stdout and read(file).results == found


def test_a_run_is_not_resumed_with_another_suite(tmp_path: Path) -> None:
    write_suite(tmp_path)
    file = tmp_path / "results" / "tiny" / FILE_NAME
    file.parent.mkdir(parents=True)
    append(file, dataclasses.replace(training_result("ddp", 2), suite_digest="other"))
    ended = bench("run", str(tmp_path / "tiny.toml"), "--resume", cwd=tmp_path)
    assert ended.returncode == 2 and "has changed since run run-1 began" in ended.stderr
