"""benchmarks/train_keras.py: the images it reads, and engines that all do the same work."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import start_job

from hvdtools.bench.runs import free_ports
from hvdtools.errors import HvdtoolsError

BENCHMARKS = Path(__file__).parent.parent / "benchmarks"
PROGRAM = BENCHMARKS / "train_keras.py"
BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)]
# One batch of 180 in all, and one learning rate in all, whatever the number of ranks.
WHOLE_BATCH, WHOLE_LR = 180, 1.2e-3


@pytest.fixture(name="images")
def _images(monkeypatch: pytest.MonkeyPatch) -> object:
    """The module of images, as the program imports it."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import colour_images

    return colour_images


def write_cifar10(folder: Path) -> dict[str, np.ndarray]:
    """Seven records in each file; name -> the records, (7, 3073)."""
    random = np.random.default_rng(5)
    written = {}
    for name in (*BATCHES, "test_batch.bin"):
        records = random.integers(256, size=(7, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        records.tofile(folder / name)
        written[name] = records
    return written


def test_cifar10_files_are_read_pixel_by_pixel(images: object, tmp_path: Path) -> None:
    written = write_cifar10(tmp_path)
    training, test = images.load(str(tmp_path))  # type: ignore[attr-defined]
    assert training.pixels.shape == (35, 32, 32, 3) and len(test) == 7
    assert training.labels.tolist() == [r[0] for name in BATCHES for r in written[name]]
    # By the format's own words: 1024 red bytes, then green, then blue; row by row.
    for image, record in zip(test.pixels, written["test_batch.bin"], strict=True):
        for colour in range(3):
            for row in (0, 13, 31):
                begin = 1 + 1024 * colour + 32 * row
                assert (image[row, :, colour] == record[begin : begin + 32]).all()


@pytest.mark.parametrize(
    ("harm", "said"),
    [
        (lambda folder: (folder / "data_batch_3.bin").unlink(), "There is no file .*data_batch_3"),
        (lambda folder: (folder / "test_batch.bin").unlink(), "There is no file .*test_batch"),
        (lambda folder: os.truncate(folder / "data_batch_2.bin", 5000), "5000 bytes.*cut short"),
        (lambda folder: os.truncate(folder / "data_batch_2.bin", 0), "has 0 bytes"),
        (lambda folder: (folder / "test_batch.bin").write_bytes(b"\x0b" * 3073), "a label 11"),
    ],
)
def test_harmed_cifar10_files_are_named(
    harm: object, said: str, images: object, tmp_path: Path
) -> None:
    write_cifar10(tmp_path)
    harm(tmp_path)  # type: ignore[operator]
    with pytest.raises(HvdtoolsError, match=said):
        images.load(str(tmp_path))  # type: ignore[attr-defined]


@pytest.mark.parametrize("data", ["digits", "synthetic"])
def test_images_are_split_as_those_of_pytorch_are(data: str, images: object) -> None:
    training, test = images.load(data)  # type: ignore[attr-defined]
    assert (len(training), len(test)) == (1440, 357)
    assert training.pixels.shape == (1440, 32, 32, 3) and training.pixels.dtype == np.uint8
    assert training.pixels.max() > 200 and set(training.labels) == set(range(10))


def train_alone(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(PROGRAM), *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "cats"], "--data cats is neither digits, synthetic nor a folder"),
        (["--data", "."], "There is no file data_batch_1.bin"),
        (["--engine", "mwms"], "meets at MASTER_ADDR"),
        (["--warmup-epochs", "12"], "leaves no epoch to count"),
        (["--engine", "none", "--batch-size", "2000"], "more than the 1440 training images"),
    ],
)
def test_a_bad_argument_is_one_sentence(arguments: list[str], said: str) -> None:
    ended = train_alone(*arguments)
    assert ended.returncode == 2, ended.stderr
    assert said in ended.stderr.strip().splitlines()[-1] and "Traceback" not in ended.stderr


def options(ranks: int, weights: Path, result: Path) -> list[object]:
    """One epoch in float64; the job does the same whatever the number of ranks."""
    return [
        *("--data", "synthetic", "--dtype", "float64", "--epochs", 1, "--warmup-epochs", 0),
        *("--batch-size", WHOLE_BATCH // ranks, "--lr", WHOLE_LR / ranks),
        *("--weights", weights, "--result", result),
    ]


@pytest.fixture(scope="module", name="alone")
def _alone(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The weights that one process trains, on the batches of all ranks together."""
    folder = tmp_path_factory.mktemp("alone")
    ended = train_alone("--engine", "none", *options(1, folder / "w.npz", folder / "result"))
    assert ended.returncode == 0, ended.stderr
    return list(np.load(folder / "w.npz").values())


@pytest.mark.parametrize(("engine", "ranks"), [("horovod", 2), ("mwms", 2), ("mwms", 3)])
def test_engines_train_what_one_process_trains(
    engine: str, ranks: int, alone: list[np.ndarray], tmp_path: Path
) -> None:
    weights, result = tmp_path / "w.npz", tmp_path / "result"
    job = start_job(
        ranks,
        f"../benchmarks/{PROGRAM.name}",
        *("--engine", engine, *options(ranks, weights, result)),
        env={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(ranks))},
    )
    assert job.exit_code == 0, job.text
    for mine, theirs in zip(np.load(weights).values(), alone, strict=True):
        # Sums of float64 in another order: 2e-15. Gradients of a wrong scale: 9e-3.
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)
    measured = json.loads(result.read_text())
    assert measured["ranks"] == ranks and measured["in_sync"] is True
    assert measured["steps_per_block"] == 1440 // WHOLE_BATCH
    assert measured["threads_per_rank"] == 1 and len(measured["block_s"]) == 1
    assert measured["lr"] == pytest.approx(WHOLE_LR)
