"""A suite really run: two ranks, every engine, a case that fails, replicas that differ."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from hvdtools import installed
from hvdtools.bench.engines import ENGINES, FRAMEWORKS, engines_of
from hvdtools.bench.report import PAGE_NAME
from hvdtools.bench.results import FILE_NAME, Result, read
from hvdtools.bench.runs import run_suite
from hvdtools.bench.suite import load
from hvdtools.launch import look_around

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
SECRET = "correct-horse-battery-staple"
SUITE = """
name = "tiny"
scaling = "weak"
ranks = [{ranks}]
rounds = 1
threads_per_rank = 1
timeout_s = {timeout_s}
[[program]]
file = "{program}"
engines = [{engines}]
[program.train]
model = "cnn"
data = "synthetic"
batch_size = 45
epochs = 4
warmup_epochs = 1
lr = {lr}
seed = 1
"""

pytestmark = pytest.mark.skipif(
    look_around().slots < 2 or not look_around().controllers,
    reason="needs two cores and a Horovod: run `hvdtools build`",
)


def write_suite(
    folder: Path,
    program: str = "train_torch.py",
    engines: str = '"ddp-gloo"',
    ranks: str = "2",
    timeout_s: float = 120,
    lr: float = 0.03,
) -> Path:
    file = folder / "tiny.toml"
    words = {"program": program, "engines": engines, "ranks": ranks}
    file.write_text(SUITE.format(**words, timeout_s=timeout_s, lr=lr))
    return file


def bench(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    program = "import sys; from hvdtools.cli import main; sys.argv[0] = 'hvdtools'; main()"
    return subprocess.run(
        [sys.executable, "-c", program, "bench", *arguments],
        cwd=cwd,
        env={**os.environ, "AWS_SECRET_ACCESS_KEY": SECRET},
        capture_output=True,
        text=True,
        timeout=400,
    )


def results_in(folder: Path) -> tuple[Result, ...]:
    return read(folder / "results" / "tiny" / FILE_NAME).results


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_engine_trains_on_two_ranks_and_stays_in_sync(framework: str, tmp_path: Path) -> None:
    engines = engines_of(framework)
    listed = ", ".join(f'"{engine}"' for engine in engines)
    lr = {"torch": 0.03, "keras": 0.001}[framework]
    suite = write_suite(tmp_path, f"train_{framework}.py", listed, lr=lr)
    ended = bench("run", str(suite), cwd=tmp_path)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = results_in(tmp_path)
    assert [result.engine for result in found] == list(engines)
    assert [result.moved_by for result in found] == [ENGINES[name].moved_by for name in engines]
    for result in found:
        assert result.in_sync is True and result.error is None
        assert result.accuracy is not None and result.accuracy > 0.8
        assert result.threads_per_rank == 1 and result.environment["OMP_NUM_THREADS"] == "1"
        assert len(result.block_s) == 3  # four epochs, the first not counted
        assert result.steps_per_block == 16  # 1440 images / 2 ranks / 45
        assert result.samples_per_s == pytest.approx(sorted(result.block_rates)[1])
        assert result.lr == pytest.approx(2 * lr)
        assert result.framework == framework and result.program == f"train_{framework}.py"
    assert f"3/3 {engines[-1]}, 2 ranks, round 1" in ended.stdout
    assert "\x1b[" not in ended.stdout
    assert str(Path("results") / "tiny" / PAGE_NAME) in ended.stdout
    everything = (tmp_path / "results" / "tiny" / FILE_NAME).read_text()
    assert SECRET not in everything and "AWS" not in everything
    assert os.uname().nodename not in everything


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
        f"sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        f"runpy.run_path({str(BENCHMARKS / 'train_torch.py')!r}, run_name='__main__')\n"
    )
    suite = write_suite(tmp_path, "./moody.py", '"ddp-gloo", "horovod-gloo"')
    ended = bench("run", str(suite), cwd=tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    bad, good = results_in(tmp_path)
    assert bad.error is not None and "no luck today" in bad.error and "rank 1" in bad.error
    assert bad.exit_code == 1 and bad.samples_per_s is None and bad.block_s == ()
    assert good.error is None and good.samples_per_s is not None
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
import torch, train_torch
train = train_torch.train
def train_then_plant(engine, model, *rest):
    times_s = train(engine, model, *rest)
    if engine.rank == 1:
        weight = next(model.parameters()).data.view(-1)
        weight[0] = torch.nextafter(weight[0], torch.tensor(9.0))
    return times_s
train_torch.train = train_then_plant
train_torch.main()
"""
PLANTED_IN_KERAS = """
import numpy as np, train_keras
replicas_equal = train_keras.replicas_equal
def plant_then_compare(engine, model):
    if engine.rank == 1:
        weights = model.get_weights()
        weights[0].flat[0] = np.nextafter(weights[0].flat[0], np.float32(9))
        model.set_weights(weights)
    return replicas_equal(engine, model)
train_keras.replicas_equal = plant_then_compare
train_keras.main()
"""


@pytest.mark.parametrize(
    ("engine", "planted"),
    [
        ("ddp-gloo", PLANTED_IN_TORCH),
        ("horovod-mpi", PLANTED_IN_TORCH),
        ("keras-mwms", PLANTED_IN_KERAS),
        ("keras-horovod-mpi", PLANTED_IN_KERAS),
    ],
)
def test_a_weight_that_differs_on_one_rank_is_caught(
    engine: str, planted: str, tmp_path: Path
) -> None:
    (tmp_path / "planted.py").write_text(
        f"import sys\nsys.path.insert(0, {str(BENCHMARKS)!r})\n{planted}"
    )
    suite = write_suite(tmp_path, "./planted.py", f'"{engine}"')
    ended = bench("run", str(suite), cwd=tmp_path)
    (result,) = results_in(tmp_path)
    assert result.error is None, result.error
    assert result.in_sync is False
    assert ended.returncode == 1 and "REPLICAS DIFFER" in ended.stdout
    assert "in 1 the replicas differ" in ended.stderr


def test_a_missing_framework_is_a_row_and_starts_no_rank(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(installed, "_TENSORFLOW_DISTRIBUTIONS", ("no-such-tensorflow",))
    suite = load(str(write_suite(tmp_path, "train_keras.py", '"keras-mwms", "keras-horovod-mpi"')))
    said: list[str] = []
    file = tmp_path / FILE_NAME
    results = list(run_suite(suite, "run-1", file, lambda case, line: said.append(line)))
    assert said == ["starting", "starting"]
    for result in results:
        assert result.error is not None and "Keras needs tensorflow" in result.error
        assert result.exit_code == 2 and result.versions["tensorflow"] == "not installed"
    assert read(file).results == tuple(results)
