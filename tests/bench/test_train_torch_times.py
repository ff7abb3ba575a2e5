"""train_torch.py measures what is: planted sleeps, stragglers, steps that do nothing."""

from __future__ import annotations

import json
import statistics
import time
from pathlib import Path

import pytest
import torch
from jobs import Job
from train_torch_jobs import lines_of, needs_horovod, train

from hvdtools.bench.results.measured import PHASES, Training

pytestmark = [pytest.mark.ranks, pytest.mark.timed]


@pytest.fixture(name="benchmarks")
def _benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The programs' modules can be imported, as the programs do."""


def difference_s(lines: dict[str, Training], phase: str | None) -> float:
    """What a step, or one phase of it, takes "slow" longer than "no_comm" on the only rank."""
    if phase is None:
        return lines["slow"].rank_step_s[0] - lines["no_comm"].rank_step_s[0]
    return lines["slow"].phase_s[phase][0] - lines["no_comm"].phase_s[phase][0]


def test_a_millisecond_more_in_forward_shows_as_one_there(tmp_path: Path) -> None:
    """Three tries: a busy machine may take a millisecond from either engine, but not each time."""
    shown = []
    for number in range(3):
        job, lines = none_and_slow(tmp_path / f"{number}.jsonl", blocks=300)
        assert min(lines["slow"].block_s) > 1e-3
        (said,) = [line for line in job.of(0) if line.startswith("slept:")]
        _, *slept_s = json.loads(said.removeprefix("slept:"))  # the first was to warm up
        assert len(slept_s) == 300
        a_millisecond = statistics.median(slept_s)  # and what the kernel took to wake it
        assert a_millisecond >= 1e-3
        shown.append((a_millisecond, difference_s(lines, "forward"), difference_s(lines, None)))
        if all(more_s == pytest.approx(a_millisecond, abs=0.4e-3) for more_s in shown[-1]):
            return
    pytest.fail(f"(slept, more in forward, more in a step), seconds: {shown}")


def none_and_slow(result: Path, blocks: int) -> tuple[Job, dict[str, Training]]:
    """A millisecond's sleep in "slow"; so short blocks that others seldom come between."""
    job = train(
        *(1, "--engine", "no_comm,slow", "--model", "tiny", "--batch-size", 1, "--steps", 1),
        *("--min-blocks", blocks, "--max-blocks", blocks, "--result", result),
        plants={"slow": [None, 1e-3]},
    )
    return job, lines_of(result)


def test_a_block_takes_what_its_phases_take(benchmarks: None) -> None:
    from rank_train_torch import PLANTED, plant_sleep

    from hvdtools.bench.programs.torch import data as torch_data
    from hvdtools.bench.programs.torch import engines as torch_engines
    from hvdtools.bench.programs.torch import training as torch_training

    class Planted(torch_engines.NoComm):
        pass

    plant_sleep(Planted, None, 1e-3)
    cpu = torch.device("cpu")
    data = torch_data.make("vectors", "synthetic", 1, cpu, torch.float32, 0, 1)
    workload = torch_training.Workload(PLANTED["tiny"], data, torch.float32, False, 1e-3, 1, 4)
    trainer = torch_training.Trainer(Planted(), workload, lambda: None)
    rests_s = []
    for _ in range(50):
        seconds = trainer.block()
        steps, phases_s = trainer.blocks[-1]
        assert steps == 4 and phases_s[PHASES.index("forward")] >= 1e-3
        rests_s.append(seconds - steps * sum(phases_s))
    assert min(rests_s) >= 0 and statistics.median(rests_s) < 0.1e-3


@pytest.mark.parametrize("order", [("no_comm", "slow"), ("slow", "no_comm")])
def test_the_order_of_engines_is_that_of_lines_and_nothing_else(
    order: tuple[str, str], tmp_path: Path
) -> None:
    result = tmp_path / "r.jsonl"
    train(
        *(1, "--engine", ",".join(order), "--model", "tiny", "--batch-size", 1, "--steps", 3),
        *("--min-blocks", 6, "--max-blocks", 6, "--result", result),
        plants={"slow": [None, 20e-3]},
    )
    lines = lines_of(result)
    assert tuple(lines) == order
    assert difference_s(lines, "forward") > 15e-3
    assert min(lines["slow"].block_s) > 3 * 20e-3


@needs_horovod
def test_a_straggler_is_found_in_its_own_forward_and_slows_whoever_averages(
    tmp_path: Path,
) -> None:
    result = tmp_path / "r.jsonl"
    engines = ("hvdtools", "horovod", "ddp", "no_comm")
    train(
        *(2, "--engine", ",".join(engines), "--model", "tiny", "--batch-size", 1, "--steps", 5),
        *("--min-blocks", 8, "--max-blocks", 8, "--result", result),
        plants={engine: [1, 40e-3] for engine in engines},
    )
    for engine, line in lines_of(result).items():
        forward_s, step_s = line.phase_s["forward"], line.rank_step_s
        assert forward_s[1] > 40e-3 and forward_s[0] < 20e-3, engine
        assert step_s[1] > 40e-3 and min(line.block_s) > 5 * 40e-3, engine
        if engine == "no_comm":
            assert step_s[0] < 20e-3
        else:
            assert step_s[0] > 35e-3, engine
            # Plain Horovod waits in the optimizer's step, the others in backward.
            waits_in = "optimizer" if engine == "horovod" else "backward"
            assert line.phase_s[waits_in][0] > 25e-3, engine


def test_timing_nothing_costs_nothing(benchmarks: None) -> None:
    from hvdtools.bench.programs.torch import steps as torch_steps

    class Nothing:
        def input(self) -> bool:
            return True

        def forward(self) -> None: ...

        backward = optimizer = forward

    clock = torch_steps.HostClock()
    taken_s = []
    for _ in range(20):
        begun_s = time.perf_counter()
        assert torch_steps.run_steps(Nothing(), clock, 50) == 50
        phases_s = torch_steps.phase_means_s(clock, 50)
        taken_s.append((time.perf_counter() - begun_s) / 50)
        assert len(phases_s) == len(PHASES) and 0 <= sum(phases_s) <= taken_s[-1] + 1e-9
    assert min(taken_s) < 50e-6  # whoever else runs here only makes it longer


def test_a_clock_that_missed_a_mark_is_not_believed(benchmarks: None) -> None:
    from hvdtools.bench.programs.torch import steps as torch_steps

    clock = torch_steps.HostClock()
    for _ in range(4):
        clock.mark()
    with pytest.raises(ValueError, match="3 phases are not 1 steps"):
        torch_steps.phase_means_s(clock, 1)
