"""Training on N ranks equals one process on the joined batch."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from cases import all_cases, plain
from worlds import Joined

# Relative to the largest weight of each tensor.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 0.0, torch.bfloat16: 0.0}
GPUS = torch.cuda.device_count()


@dataclass(frozen=True)
class Mode:
    """Where a job of N ranks trains, and how Horovod completes its all-reduces."""

    ranks: int
    device: str = "cpu"
    completion: str = "waits"  # "async": the host runs ahead of the GPU
    stream: str = "default"

    def __str__(self) -> str:
        gpu = f"-{self.completion}-{self.stream}" if self.device == "cuda" else ""
        return f"{self.ranks}-{self.device}{gpu}"


ON_CPU = tuple(Mode(ranks) for ranks in (1, 2, 3))
ON_GPU = (
    *(Mode(ranks, "cuda") for ranks in (1, 2)),
    *(Mode(2, "cuda", "async", stream) for stream in ("default", "side")),
)
MODES = tuple(mode for mode in ON_CPU + ON_GPU if mode.device == "cpu" or mode.ranks <= GPUS)


@dataclass(frozen=True)
class Trained:
    """What each rank of a job trained: case -> weights, or the traceback it died of."""

    mode: Mode
    of_rank: list[dict[str, Any]]


@pytest.fixture(scope="module", params=MODES, ids=str)
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, start_job: Any
) -> Iterator[Trained]:
    mode: Mode = request.param
    folder = tmp_path_factory.mktemp("trained")
    asynchronous = {"HOROVOD_ENABLE_ASYNC_COMPLETION": str(int(mode.completion == "async"))}
    # Ranks on the CPU see no GPU: init() gives each GPU to one rank.
    environ = asynchronous if mode.device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
    job = start_job(
        mode.ranks, "rank_train_cases.py", folder, mode.device, mode.stream, env=environ
    )
    assert job.exit_code == 0, job.text
    torch.set_num_threads(1)
    torch.set_default_device(mode.device)
    yield Trained(mode, [torch.load(folder / f"rank{rank}.pt") for rank in range(mode.ranks)])
    torch.set_default_device("cpu")


def largest_error(weights: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """max |a - b| / max |b| over each tensor, the largest of all."""
    return max(
        ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-30)).item()
        for a, b in zip(weights, reference, strict=True)
    )


@pytest.mark.parametrize("name", all_cases())
def test_case(trained: Trained, name: str) -> None:
    case, optimizer, dtype = all_cases()[name]
    for rank, weights in enumerate(trained.of_rank):
        assert not isinstance(weights[name], str), f"rank {rank}:\n{weights[name]}"
    first = trained.of_rank[0][name]
    for other in trained.of_rank[1:]:
        assert all(torch.equal(a, b) for a, b in zip(first, other[name], strict=True))
    model = case(Joined(trained.mode.ranks), optimizer, dtype)
    reference = [parameter.detach().cpu() for parameter in model.parameters()]
    assert largest_error(first, reference) <= TOLERANCE[dtype]


def test_the_comparison_can_fail(trained: Trained) -> None:
    """Ranks that do not average are far from one process on the joined batch."""
    alone = plain(Joined(1), "sgd", torch.float64)
    joined = plain(Joined(trained.mode.ranks), "sgd", torch.float64)
    error = largest_error(
        [p.detach() for p in alone.parameters()], [p.detach() for p in joined.parameters()]
    )
    assert (error > 1e-3) == (trained.mode.ranks > 1)


@pytest.mark.skipif(GPUS < 2, reason=f"the cases on GPUs need 2, and {GPUS} are here")
def test_the_cases_ran_on_gpus() -> None:
    assert set(ON_GPU) <= set(MODES)
