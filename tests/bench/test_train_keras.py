"""benchmarks/keras/train_keras.py: the images it reads, and engines that all do the same work."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from jobs import start_job
from paths import BENCHMARKS

from hvdtools.bench.results.measured import Training, from_dict
from hvdtools.bench.run.runner import free_ports
from hvdtools.core.errors import HvdtoolsError

pytestmark = pytest.mark.ranks

PROGRAM = BENCHMARKS / "keras" / "train_keras.py"
BATCHES = [f"data_batch_{number}.bin" for number in range(1, 6)]
# One batch of 180 in all, and one learning rate in all, whatever the number of ranks.
WHOLE_BATCH, WHOLE_LR = 180, 1.2e-3


@pytest.fixture(name="images")
def _images(monkeypatch: pytest.MonkeyPatch) -> object:
    """The module of images, as the program imports it."""
    from hvdtools.bench.programs.keras import color_images as colour_images

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
        timeout=600,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--data", "cats"], "--data cats is neither digits, synthetic nor a folder"),
        (["--data", "."], "There is no file data_batch_1.bin"),
        (["--engine", "ddp"], "choose one of horovod, hvdtools, mwms, no_comm"),
        (["--engine", "hvdtools,no_comm"], "cannot share a process"),
        (["--engine", "hvdtools,x"], "Unknown engine 'x'"),
        (["--engine", "mwms"], "meets at MASTER_ADDR"),
        (["--model", "lenet"], "choose from 'cnn', 'resnet50', 'vgg16', 'gpt-mini', 'gpt-124m'"),
        (
            ["--model", "vgg16", "--data", "digits"],
            "vgg16 trains on synthetic",
        ),
        (["--model", "gpt-mini", "--epochs", "2"], "has no epochs: give --steps"),
        (["--epochs", "2", "--steps", "3"], "a block is an epoch, or so many steps"),
        (["--epochs", "12", "--warmup-epochs", "12"], "leaves no epoch to count"),
        (["--batch-size", "0"], "--batch-size 0 trains nothing"),
        (["--engine", "no_comm", "--batch-size", "2000"], "more than the 1440 training images"),
    ],
)
def test_a_bad_argument_is_one_sentence(
    arguments: list[str],
    said: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    # What is found out without TensorFlow: importing it, and training, would be an ImportError.
    monkeypatch.setitem(sys.modules, "hvdtools.bench.programs.keras.engines", None)
    from hvdtools.bench.programs.keras import train_keras

    with pytest.raises(SystemExit) as ended:
        train_keras.main(arguments)
    told = capsys.readouterr().err
    assert ended.value.code == 2, told
    assert said in told.strip().splitlines()[-1] and "Traceback" not in told


def test_a_command_that_cannot_be_ends_with_one_sentence() -> None:
    ended = train_alone("--engine", "no_comm", "--batch-size", 2000)
    assert ended.returncode == 2, ended.stderr
    assert "more than the 1440 training images" in ended.stderr.strip().splitlines()[-1]
    assert "Traceback" not in ended.stderr


COUNTING = """
import gc, math, sys
from hvdtools.bench.programs.keras import environment
environment.set_environment()
from hvdtools.bench.programs.keras.model import MODELS
for name in sys.argv[1:] or MODELS:
    made = MODELS[name].make()
    print(name, sum(math.prod(weight.shape) for weight in made.trainable_variables))
    del made
    gc.collect()
"""


# keras.io/api/applications: 25.6 and 138.4 million, the first with 53120 statistics.
WEIGHTS = {
    "cnn": "122570",
    "resnet50": "25583592",
    "vgg16": "138357544",
    "gpt-mini": "1878144",
    "gpt-124m": "124439808",
    "gpt-350m": "354823168",
}


@pytest.mark.parametrize(
    "names",
    [
        ("cnn", "resnet50", "gpt-mini"),
        pytest.param((), id="all", marks=pytest.mark.slow),  # gigabytes of random numbers
    ],
)
def test_networks_have_as_many_weights_as_published(names: tuple[str, ...]) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", COUNTING, *names],
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert ended.returncode == 0, ended.stderr
    counted = dict(line.split() for line in ended.stdout.splitlines())
    assert counted == {name: WEIGHTS[name] for name in names or WEIGHTS}


def options(ranks: int, weights: Path, result: Path) -> list[object]:
    """One epoch in float64; the job does the same whatever the number of ranks."""
    return [
        *("--data", "synthetic", "--precision", "float64", "--epochs", 1, "--warmup-epochs", 0),
        *("--batch-size", WHOLE_BATCH // ranks, "--lr", WHOLE_LR / ranks),
        *("--weights", weights, "--result", result),
    ]


def measured_in(result: Path) -> Training:
    """The one line of a result file."""
    (line,) = result.read_text().splitlines()
    measured = from_dict("training", json.loads(line))
    assert isinstance(measured, Training)
    return measured


@pytest.fixture(scope="module", name="alone")
def _alone(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """The weights that one process trains, on the batches of all ranks together."""
    folder = tmp_path_factory.mktemp("alone")
    ended = train_alone("--engine", "no_comm", *options(1, folder / "w.npz", folder / "result"))
    assert ended.returncode == 0, ended.stderr
    return list(np.load(folder / "w.npz").values())


@pytest.mark.parametrize(
    ("engine", "ranks"),
    [
        pytest.param(
            engine,
            ranks,
            # Other sizes of the engines that ours is compared with.
            marks=pytest.mark.slow if engine != "hvdtools" and ranks != 2 else (),
        )
        for engine in ("hvdtools", "horovod", "mwms")
        for ranks in (1, 2, 3)
    ],
)
def test_engines_train_what_one_process_trains(
    engine: str, ranks: int, alone: list[np.ndarray], tmp_path: Path
) -> None:
    weights, result = tmp_path / "w.npz", tmp_path / "result"
    job = start_job(
        ranks,
        str(PROGRAM),
        *("--engine", engine, *options(ranks, weights, result)),
        env={"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(ranks))},
        timeout_s=600,
    )
    assert job.exit_code == 0, job.text
    for mine, theirs in zip(np.load(weights).values(), alone, strict=True):
        # Sums of float64 in another order: 2e-15. Gradients of a wrong scale: 9e-3.
        np.testing.assert_allclose(mine, theirs, rtol=0, atol=1e-12)
    measured = measured_in(result)
    assert measured.engine == engine and measured.stopped_by == "blocks"
    assert measured.transport == ("grpc" if engine == "mwms" else "gloo")
    assert measured.in_sync is (None if ranks == 1 else True)
    assert measured.steps_per_block == 1440 // WHOLE_BATCH and len(measured.block_s) == 1
    assert measured.threads_per_rank == 1 and measured.accuracy is not None
    assert measured.lr == pytest.approx(WHOLE_LR)
    assert measured.gradient_bytes == 8 * measured.parameters == 8 * 122570
    # 0.94 MiB fit into one bucket of hvdtools, which sends none on a single rank.
    assert measured.allreduces_per_step == (min(ranks - 1, 1) if engine == "hvdtools" else None)
    a_rank_each = [measured.rank_step_s, measured.peak_memory_bytes, *measured.phase_s.values()]
    assert {len(values) for values in a_rank_each} == {ranks}
    assert list(measured.phase_s) == ["input", "forward", "backward", "optimizer"]
    # Each rank holds weights, gradients and Adam's two moments.
    assert min(measured.peak_memory_bytes) > 4 * measured.gradient_bytes


def run_until_known(tmp_path: Path, engine: str, env: dict[str, str]) -> tuple[Training, list[str]]:
    """Two ranks that stop after 6 blocks of 2 steps; the measurement, and rank 0's lines."""
    result = tmp_path / "result"
    job = start_job(
        2,
        "rank_train_keras.py",
        *("--engine", engine, "--batch-size", 16, "--steps", 2, "--interval", 100),
        *("--result", result),
        env=env,
        timeout_s=600,
    )
    assert job.exit_code == 0, job.text
    return measured_in(result), job.of(0)


def test_fit_stops_on_all_ranks_when_the_median_is_known(tmp_path: Path) -> None:
    measured, lines = run_until_known(tmp_path, "hvdtools", {})
    assert measured.stopped_by == "interval" and len(measured.block_s) == 6
    assert measured.in_sync is True and measured.accuracy is None
    assert "steps taken: 14" in lines  # with the block that comes first and is not counted


def test_a_straggler_shows_where_nobody_waits_for_it(tmp_path: Path) -> None:
    measured, _ = run_until_known(tmp_path, "no_comm", {"SLEEP_S": "0.5"})
    quick_s, slow_s = measured.rank_step_s
    assert slow_s - quick_s > 0.25 and slow_s > 0.5
    assert min(measured.block_s) > 2 * 0.5  # the slowest rank's
    waits, forwards, _, updates = measured.phase_s.values()
    assert waits[1] + forwards[1] + updates[1] < slow_s - 0.25  # the sleep is in none of these
    assert measured.transport == "none" and measured.in_sync is None
    assert measured.allreduces_per_step == 0 and measured.gradient_bytes == 0


def test_a_gpt_learns_its_batch_in_bfloat16(tmp_path: Path) -> None:
    ended = train_alone(
        *("--engine", "no_comm", "--model", "gpt-mini", "--precision", "bfloat16"),
        *("--batch-size", 1, "--steps", 5, "--max-blocks", 6, "--interval", 0),
        *("--result", tmp_path / "result"),
    )
    assert ended.returncode == 0, ended.stderr
    losses = [float(loss) for loss in re.findall(r"loss ([0-9.]+)", ended.stdout)]
    assert len(losses) == 7
    assert losses[0] < 6 and losses[-1] < losses[0] / 2  # log(256) is 5.5, and it has one text
    measured = measured_in(tmp_path / "result")
    assert measured.precision == "bfloat16" and measured.model == "gpt-mini"
    parts_s = {name: seconds for name, (seconds,) in measured.phase_s.items()}
    assert sum(parts_s.values()) >= 0.999 * measured.rank_step_s[0]
    assert 0.05 < parts_s["forward"] / measured.rank_step_s[0] < 0.8  # a third, but for noise
