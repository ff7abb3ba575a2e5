"""Training on N ranks equals one process on the joined batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from equality_cases import CASES, is_fast
from equality_grid import OPTIMIZERS, PRECISIONS
from equality_table import KEPT, error, largest_error, train_in_one_process, train_in_ranks
from jobs import Job
from rank_sessions import Outcome, RankCheck

GPUS = torch.cuda.device_count()


@dataclass(frozen=True)
class Mode:
    """Where a job of N ranks trains on GPUs, and how Horovod completes its all-reduces."""

    ranks: int
    completion: str = "waits"  # "async": the host runs ahead of the GPU
    stream: str = "default"  # "side": the ranks train on a CUDA stream of their own

    def __str__(self) -> str:
        return f"{self.ranks}-{self.completion}-{self.stream}"


ON_GPU = (
    *(Mode(ranks) for ranks in range(1, max(GPUS, 2) + 1)),
    *(Mode(2, "async", stream) for stream in ("default", "side")),
)
MODES = tuple(mode for mode in ON_GPU if mode.ranks <= GPUS)
# In a session with the other checks of PyTorch.
ON_CPU = [
    pytest.param(
        RankCheck("torch", ranks, "rank_equality", case_id),
        id=f"torch-{ranks}-{case_id}",
        marks=() if is_fast(case_id, ranks) else pytest.mark.slow,
    )
    for ranks in (1, 2, 3)
    for case_id in CASES
]


@pytest.fixture(scope="module")
def trained_in(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Mode], Path]:
    """The folder of what each rank trained, in a job for all cases of a mode."""
    jobs: dict[Mode, tuple[Path, Job]] = {}

    def folder_of(mode: Mode) -> Path:
        if mode not in jobs:
            folder = tmp_path_factory.mktemp("trained")
            env = {"HOROVOD_ENABLE_ASYNC_COMPLETION": str(int(mode.completion == "async"))}
            job = train_in_ranks(mode.ranks, folder, "cuda", mode.stream, env=env)
            jobs[mode] = folder, job
        folder, job = jobs[mode]
        assert job.exit_code == 0, job.text
        return folder

    return folder_of


def compare(case_id: str, folder: Path, ranks: int, device: str = "cpu") -> None:
    """Check that the ranks ended bit-equal, and within the case's tolerance of one process."""
    assert error(case_id, folder, ranks, device) <= CASES[case_id].tolerance


@pytest.mark.parametrize("rank_check", ON_CPU)
def test_case(rank_check: RankCheck, run_rank_check: Callable[[RankCheck], Outcome]) -> None:
    compare(rank_check.check, run_rank_check(rank_check).folder, rank_check.ranks)


@pytest.mark.parametrize(
    ("mode", "case_id"), [(mode, case_id) for mode in MODES for case_id in CASES], ids=str
)
def test_case_on_gpus(trained_in: Callable[[Mode], Path], mode: Mode, case_id: str) -> None:
    compare(case_id, trained_in(mode), mode.ranks, "cuda")


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_the_comparison_can_fail(ranks: int) -> None:
    """Ranks that do not average are far from one process on the joined batch."""
    alone, joined = (train_in_one_process("plain-sgd-float64", size) for size in (1, ranks))
    assert (largest_error(alone, joined) > 1e-3) == (ranks > 1)


def test_the_kept_table_has_every_row() -> None:
    kept = KEPT.read_text()
    for optimizer in OPTIMIZERS:
        for precision in PRECISIONS:
            assert f"| {optimizer}, {precision} |" in kept


@pytest.mark.skipif(GPUS < 2, reason=f"the cases on GPUs need 2, and {GPUS} are here")
def test_the_cases_ran_on_gpus() -> None:
    assert set(ON_GPU) <= set(MODES)
