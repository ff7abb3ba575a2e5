"""benchmarks/torch/input_pipeline.py: what it measures is what loading takes."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from jobs import Job, start_job
from paths import BENCHMARKS
from PIL import Image

from hvdtools.bench.results.measured import Loader, from_dict
from hvdtools.bench.run.runner import free_ports

pytestmark = pytest.mark.ranks

PROGRAM = BENCHMARKS / "torch" / "input_pipeline.py"
BLOCKS = ("--interval", 0, "--limit-s", 0, "--min-blocks", 6)  # exactly six
# One sleep is at least as long as asked; what is on top of it are this machine's other loads.
LONGER = 2.0


def meeting() -> dict[str, str]:
    return {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(free_ports(1)),
        "GLOO_SOCKET_IFNAME": "lo",
    }


def load(ranks: int, *arguments: object) -> Job:
    return start_job(ranks, str(PROGRAM), *arguments, env=meeting())


def alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def planted(ranks: int, case: str, argument: object) -> list[Any]:
    """What each rank of rank_loaders.py printed."""
    job = start_job(ranks, "rank_loaders.py", case, argument, env=meeting())
    assert job.exit_code == 0, job.text
    return [json.loads(job.of(rank)[-1]) for rank in range(ranks)]


@pytest.fixture(scope="module", name="folder")
def _folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 images of 48 x 48 pixels in ten classes."""
    folder = tmp_path_factory.mktemp("made") / "images"
    ended = alone("--make", folder, "--images", 40, "--size", 48)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.startswith("40 images, 0.1 MB, in ")
    return folder


def test_made_images_are_as_asked(folder: Path) -> None:
    files = sorted(folder.rglob("*.*"))
    assert len(files) == 40 and {file.parent.name for file in files} == {
        f"class{label}" for label in range(10)
    }
    assert len({file.read_bytes() for file in files}) == 40
    for file in files:
        with Image.open(file) as image:
            assert (image.size, image.format) == ((48, 48), "JPEG")


def test_made_images_weigh_what_photographs_do(tmp_path: Path) -> None:
    assert alone("--make", tmp_path / "x", "--images", 2, "--size", 400).returncode == 0
    for file in (tmp_path / "x").rglob("*.jpg"):
        assert 0.3 < file.stat().st_size / 400**2 < 0.8


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_folder_is_loaded_on_every_rank(ranks: int, folder: Path, tmp_path: Path) -> None:
    result = tmp_path / "result.jsonl"
    told = ("--model", "resnet50", "--data", folder, "--batch-size", 4, "--steps", 3)
    job = load(ranks, *told, "--workers", 1, *BLOCKS, "--result", result)
    assert job.exit_code == 0, job.text
    (line,) = result.read_text().splitlines()
    found = from_dict("input", json.loads(line))
    assert isinstance(found, Loader)
    assert (found.engine, found.data, found.batch_per_rank) == ("loader", str(folder), 4)
    assert (found.workers, found.steps_per_block, found.stopped_by) == (1, 3, "limit")
    assert len(found.block_s) == 6 and len(found.rank_step_s) == ranks
    # The slowest rank's time is a block's, so no rank is slower than all blocks say.
    assert max(found.rank_step_s) <= statistics.median(found.block_s) / 3 * 1.001
    said = job.of(0)
    for rank, step_s in enumerate(found.rank_step_s):
        assert said[rank - ranks - 1].startswith(f"rank {rank}: {4 / step_s:.0f} samples/s")
    rate = statistics.median(found.block_rates)
    assert f"{ranks} rank(s) with 1 worker(s) each: {rate:.0f} samples/s" in said[-1]
    assert all("samples/s" not in words for words in (job.of(1) if ranks > 1 else ()))


def test_the_command_starts_it(tmp_path: Path) -> None:
    command = [str(Path(sys.executable).with_name("hvdtools")), "launch", "-n", "2"]
    command += ["--launcher", "horovodrun", "--", "python", str(PROGRAM), "--model", "gpt-mini"]
    command += [*map(str, BLOCKS), "--result", str(tmp_path / "result")]
    ended = subprocess.run(
        command,
        env={**os.environ, **meeting(), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert ended.returncode == 0, ended.stderr
    found = from_dict("input", json.loads((tmp_path / "result").read_text()))
    assert isinstance(found, Loader)
    assert found.workers == 0 and len(found.rank_step_s) == 2  # one batch on the device


@pytest.mark.timed
def test_a_sample_that_takes_5_ms_shows_as_5_ms() -> None:
    (blocks,) = planted(1, "sleeps", 0)
    sample_s = statistics.median(row[0] for row in blocks) / (4 * 5)
    assert 0.005 <= sample_s < 0.005 * LONGER


@pytest.mark.timed
def test_two_loading_processes_share_the_samples() -> None:
    (blocks,) = planted(1, "sleeps", 2)
    sample_s = statistics.median(row[0] for row in blocks) / (4 * 5)
    assert 0.0025 * 0.9 <= sample_s < 0.0025 * LONGER


@pytest.mark.timed
def test_a_slow_rank_shows_on_its_own_times() -> None:
    first, second = planted(2, "sleeps", 0)
    assert first == second and all(len(row) == 2 for row in first)
    steps_s = [statistics.median(row[rank] for row in first) / 5 for rank in range(2)]
    assert 0.02 <= steps_s[0] < 0.02 * LONGER
    assert 0.04 <= steps_s[1] < 0.04 * LONGER


@pytest.mark.timed
@pytest.mark.parametrize(("steps", "epochs"), [(2, 1), (4, 2)])
def test_the_begin_of_an_epoch_is_in_the_time(steps: int, epochs: int) -> None:
    (blocks,) = planted(1, "restarts", steps)
    assert all(row[0] >= 0.05 * epochs for row in blocks)
    assert statistics.median(row[0] for row in blocks) < 0.05 * epochs * LONGER


@pytest.mark.timed
def test_to_load_nothing_costs_next_to_nothing() -> None:
    (blocks,) = planted(1, "nothing", "")
    assert statistics.median(row[0] for row in blocks) / 5 < 0.005


def test_ranks_see_different_samples_and_together_all(tmp_path: Path) -> None:
    for label in range(12):
        (tmp_path / f"{label:02d}").mkdir()
        Image.new("RGB", (8, 8)).save(tmp_path / f"{label:02d}" / "0.png")
    first, second = planted(2, "deals", tmp_path)
    for epoch in range(2):
        assert len(first[epoch]) == len(second[epoch]) == 6
        assert sorted(first[epoch] + second[epoch]) == list(range(12))
    assert first[0] != first[1]


def test_a_broken_image_is_named_and_ends_the_job(folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "images" / "class0" / "0000000.jpg"
    for number in range(8):
        (tmp_path / "images" / f"class{number}").mkdir(parents=True)
        picture = (folder / f"class{number}" / f"000000{number}.jpg").read_bytes()
        target = tmp_path / "images" / f"class{number}" / f"000000{number}.jpg"
        target.write_bytes(picture if target != broken else picture[:200])
    told = ("--data", tmp_path / "images", "--batch-size", 2, "--steps", 2, "--workers", 1)
    job = load(2, *told)
    assert job.exit_code == 2, job.text
    said = [line for _, line in job.lines if str(broken) in line]
    assert said and all(line.startswith(f"input_pipeline: {broken} cannot be") for line in said)
    assert not any("DataLoader worker" in line for _, line in job.lines)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--model", "rnn"], "invalid choice: 'rnn' (choose from"),
        (["--data", "cats"], "Unknown data 'cats': choose one of synthetic, the path of a folder"),
        (["--engine", "ddp"], "invalid choice: 'ddp' (choose from"),
        (["--batch-size", "0"], "--batch-size must be at least 1"),
        (["--workers", "-1"], "--workers must be at least 0"),
        (["--make", "FOLDER"], "is there already: name a new or an empty folder"),
        (["--make", "new", "--images", "0"], "0 images of 500 pixels are none"),
    ],
)
def test_a_bad_argument_is_one_sentence(
    arguments: list[str],
    said: str,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # What is found out without PyTorch: importing it, and loading, would be an ImportError.
    monkeypatch.setitem(sys.modules, "hvdtools.bench.programs.torch.input_measure", None)
    from hvdtools.bench.programs.torch import input_pipeline

    with pytest.raises(SystemExit) as ended:
        input_pipeline.main([str(folder) if word == "FOLDER" else word for word in arguments])
    told = capsys.readouterr().err
    assert ended.value.code == 2, told
    assert said in told.strip().splitlines()[-1] and "Traceback" not in told


def test_a_command_that_cannot_be_ends_with_one_sentence(folder: Path) -> None:
    ended = alone("--data", folder, "--batch-size", 41)
    assert ended.returncode == 2, ended.stderr
    said = ended.stderr.strip().splitlines()[-1]
    assert "less than a batch of 41: bring more data" in said and "Traceback" not in ended.stderr


def test_several_ranks_need_a_place_to_meet() -> None:
    job = start_job(2, str(PROGRAM))
    assert job.exit_code == 2, job.text
    assert "2 ranks meet at MASTER_ADDR:MASTER_PORT: set both" in job.text
