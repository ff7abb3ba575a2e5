"""benchmarks/torch/train_torch.py: every engine does the same work, and says what it did."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from paths import BENCHMARKS
from train_torch_jobs import lines_of, needs_horovod, train

from hvdtools.bench.results.measured import PHASES, Training

pytestmark = pytest.mark.ranks

PROGRAM = BENCHMARKS / "torch" / "train_torch.py"
AVERAGING = ("hvdtools", "horovod", "ddp")
TINY_LR, TINY_STEPS, TINY_BATCH, SEED = 0.05, 3, 4, 1

Weights = dict[str, list[torch.Tensor]]


def tiny_steps(model: str, engines: str, weights: Path, result: Path) -> list[object]:
    """So many steps of a tiny model in float64, each rank on a batch of its own."""
    return [
        *("--engine", engines, "--model", model, "--precision", "float64", "--lr", TINY_LR),
        *("--batch-size", TINY_BATCH, "--steps", TINY_STEPS, "--seed", SEED),
        *("--warmup-blocks", 0, "--min-blocks", 1, "--max-blocks", 1),
        *("--weights", weights, "--result", result),
    ]


@pytest.fixture(name="benchmarks")
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs' modules can be imported, as the programs do."""


def one_process(model_name: str, ranks: int) -> list[torch.Tensor]:
    """The weights after as many steps of PyTorch alone on the batches of all ranks, joined."""
    from rank_train_torch import PLANTED

    from hvdtools.bench.programs.torch import data as torch_data
    from hvdtools.bench.programs.torch import steps as torch_steps

    spec = PLANTED[model_name]
    cpu = torch.device("cpu")
    parts = [
        torch_data.make(spec.reads, "synthetic", TINY_BATCH, cpu, torch.float64, 0, SEED + rank)
        for rank in range(ranks)
    ]
    inputs = torch.cat([part.training.inputs for part in parts])
    targets = torch.cat([part.training.targets for part in parts])
    torch.manual_seed(SEED)
    model = spec.make().to(torch.float64)
    optimizer = spec.optimizer(model.parameters(), TINY_LR * ranks, cpu)
    for _ in range(TINY_STEPS):
        optimizer.zero_grad()
        torch_steps.loss(model(inputs), targets).backward()
        optimizer.step()
    return [weight.detach() for weight in model.parameters()]


def largest_difference(mine: list[torch.Tensor], theirs: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(mine, theirs, strict=True))


@pytest.mark.timed  # the phases of a step have to add up to it
@needs_horovod
@pytest.mark.parametrize(
    ("model", "ranks"), [("tiny-adamw", 1), ("tiny-adamw", 2), ("tiny-adamw", 3), ("tiny", 2)]
)
def test_interleaved_engines_train_what_one_process_trains(
    model: str, ranks: int, benchmarks: None, tmp_path: Path
) -> None:
    weights, result = tmp_path / "w.pt", tmp_path / "r.jsonl"
    train(ranks, *tiny_steps(model, "hvdtools,horovod,ddp,no_comm", weights, result))
    trained: Weights = torch.load(weights)
    expected = one_process(model, ranks)
    for engine in AVERAGING:
        # Sums of float64 in another order, and AdamW divides by gradients next to zero.
        assert largest_difference(trained[engine], expected) < 1e-10, engine
    apart = largest_difference(trained["no_comm"], expected)
    assert (apart < 1e-10) if ranks == 1 else (apart > 1e-4)
    lines = lines_of(result)
    assert list(lines) == ["hvdtools", "horovod", "ddp", "no_comm"]
    assert {engine: line.in_sync for engine, line in lines.items()} == {
        **dict.fromkeys(AVERAGING, None if ranks == 1 else True),
        "no_comm": None,
    }
    for line in lines.values():
        check_line(line, ranks)
    assert lines["no_comm"].transport == "none" and lines["no_comm"].allreduces_per_step == 0
    assert lines["horovod"].allreduces_per_step == (4 if ranks > 1 else 0)


def check_line(line: Training, ranks: int) -> None:
    assert line.parameters == 1024 * 8 + 8 + 8 * 1024 + 1024
    assert line.gradient_bytes == 8 * line.parameters
    assert line.lr == pytest.approx(TINY_LR * ranks) and line.precision == "float64"
    assert (line.model[:4], line.data, line.device) == ("tiny", "synthetic", "cpu")
    assert line.batch_per_rank == TINY_BATCH and line.threads_per_rank == 1
    assert line.steps_per_block == TINY_STEPS and len(line.block_s) == 1
    assert line.stopped_by == "blocks" and line.accuracy is None
    assert len(line.rank_step_s) == len(line.peak_memory_bytes) == ranks
    assert max(line.rank_step_s) == pytest.approx(line.block_s[0] / TINY_STEPS)
    assert tuple(line.phase_s) == PHASES
    for rank, step_s in enumerate(line.rank_step_s):
        phases_s = sum(ranks_s[rank] for ranks_s in line.phase_s.values())
        assert phases_s == pytest.approx(step_s, rel=0.05, abs=1e-4)


@needs_horovod
def test_an_engine_trains_the_same_alone_as_beside_others(tmp_path: Path) -> None:
    def trained(name: str, engines: str) -> Weights:
        weights = tmp_path / f"{name}.pt"
        train(2, *tiny_steps("tiny", engines, weights, tmp_path / f"{name}.jsonl"))
        return torch.load(weights)  # type: ignore[no-any-return]

    beside = trained("all", "no_comm,ddp,hvdtools,horovod")
    for engine in beside:
        alone = trained(engine, engine)[engine]
        assert all(map(torch.equal, alone, beside[engine])), engine


@needs_horovod
def test_epochs_deal_the_same_batches_to_any_number_of_ranks(tmp_path: Path) -> None:
    def trained(ranks: int) -> tuple[Weights, dict[str, Training]]:
        weights, result = tmp_path / f"{ranks}.pt", tmp_path / f"{ranks}.jsonl"
        options = (
            *("--engine", ",".join(AVERAGING), "--model", "cnn", "--data", "synthetic"),
            *("--precision", "float64", "--epochs", 2, "--warmup-epochs", 1),
            *("--batch-size", 180 // ranks, "--lr", 0.06 / ranks),
            *("--weights", weights, "--result", result),
        )
        train(ranks, *options)
        return torch.load(weights), lines_of(result)

    (alone, of_one), (shared, of_two) = trained(1), trained(2)
    for engine in AVERAGING:
        assert largest_difference(alone[engine], shared[engine]) < 1e-9, engine
        assert of_two[engine].accuracy == of_one[engine].accuracy
        for line in (of_one[engine], of_two[engine]):
            assert line.steps_per_block == 8 and len(line.block_s) == 1
            assert line.accuracy is not None and line.accuracy > 0.2
            assert line.lr == pytest.approx(0.06) and line.parameters > 100_000
        assert of_two[engine].in_sync is True and of_one[engine].in_sync is None


@needs_horovod
def test_messages_are_those_that_are_sent(tmp_path: Path) -> None:
    result, steps = tmp_path / "r.jsonl", 4  # DDP has made its buckets anew by then
    job = train(
        *(2, "--engine", "hvdtools,ddp", "--model", "mlp", "--batch-size", 2, "--steps", steps),
        *("--warmup-blocks", 0, "--min-blocks", 1, "--max-blocks", 1, "--result", result),
        env={"COUNT_BUCKETS": "1"},
    )
    lines = lines_of(result)
    (said,) = [line for line in job.of(0) if line.startswith("buckets sent:")]
    allreduces_per_step = lines["hvdtools"].allreduces_per_step
    assert allreduces_per_step is not None and allreduces_per_step > 1
    assert said == f"buckets sent: {allreduces_per_step * steps}"
    # 4.2, three of 29.4 and 8.4 MB, as DDP's own log has it.
    assert lines["ddp"].allreduces_per_step == 5
    assert lines["ddp"].gradient_bytes == 24 * (1024 * 1024 + 1024) * 4
    for line in lines.values():  # weights, gradients and momentum at the least
        assert min(line.peak_memory_bytes) > 2.5 * line.gradient_bytes
        assert max(line.peak_memory_bytes) < 6 * line.gradient_bytes


@needs_horovod
def test_loading_processes_feed_all_engines_in_turn(tmp_path: Path) -> None:
    text, result = tmp_path / "text", tmp_path / "r.jsonl"
    text.write_bytes(bytes(range(256)) * 40)
    train(
        *(2, "--engine", "hvdtools,ddp", "--model", "gpt-mini", "--data", text, "--workers", 1),
        *("--batch-size", 1, "--steps", 2, "--warmup-blocks", 1, "--min-blocks", 1),
        *("--max-blocks", 1, "--precision", "bfloat16", "--result", result),
    )
    for line in lines_of(result).values():
        assert line.in_sync is True and line.data == str(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "hvdtools,magic"], "Unknown engine 'magic': choose one of ddp, horovod"),
        (["--engine", ""], "Unknown engine ''"),
        (["--engine", "no_comm,no_comm"], "lists an engine twice"),
        (["--model", "alexnet"], "Unknown model 'alexnet': choose one of cnn, gpt-124m"),
        (["--data", "cats"], "Unknown data 'cats': choose one of digits, synthetic"),
        (["--model", "gpt-mini", "--data", "digits"], "Unknown data 'digits': choose one of"),
        (["--precision", "float16"], "bfloat16"),
        (["--batch-size", "0"], "--batch-size trains nothing"),
        (["--workers", "-1"], "--workers"),
        (["--epochs", "0"], "leaves no epoch to count"),
        (["--epochs", "2", "--warmup-epochs", "2"], "leaves no epoch to count"),
        (["--warmup-epochs", "2"], "goes with --epochs"),
    ],
)
def test_a_bad_option_is_one_sentence(
    options: list[str], said: str, benchmarks: None, capsys: pytest.CaptureFixture[str]
) -> None:
    from hvdtools.bench.programs.torch import train_torch

    with pytest.raises(SystemExit) as ended:
        train_torch.parse(options)
    told = capsys.readouterr().err
    assert ended.value.code == 2, told
    assert said in told.strip().splitlines()[-1] and "Traceback" not in told


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--engine", "ddp"], "MASTER_ADDR:MASTER_PORT"),
        (["--model", "gpt-mini", "--data", "."], "the path of a file"),
        (["--epochs", "1", "--batch-size", "2000"], "less than"),
        (["--batch-size", "2000"], "less than"),
        (["--epochs", "1", "--model", "mlp"], "has no epochs"),
    ],
)
def test_work_that_cannot_be_is_one_sentence(
    options: list[str],
    said: str,
    benchmarks: None,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from hvdtools.bench.programs.torch import train_torch

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # or it would set this process's threads
    with pytest.raises(SystemExit) as ended:
        train_torch.main(["--engine", "no_comm", *options])
    told = capsys.readouterr().err
    assert ended.value.code == 2, told
    assert said in told.strip().splitlines()[-1] and "Traceback" not in told


def test_a_command_that_cannot_be_ends_with_one_sentence() -> None:
    command = [sys.executable, str(PROGRAM), "--engine", "no_comm", "--batch-size", "2000"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert "less than" in ended.stderr.strip().splitlines()[-1] and "Traceback" not in ended.stderr
