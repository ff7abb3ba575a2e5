"""Training on N ranks equals one process on the joined batch."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import all_cases, plain
from worlds import Joined

RANKS = (1, 2, 3)
# Relative to the largest weight of each tensor.
TOLERANCE = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 0.0, torch.bfloat16: 0.0}


@pytest.fixture(scope="module", params=RANKS, ids=lambda n: f"{n}-ranks")
def trained(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, start_job: Any
) -> list[dict[str, Any]]:
    """What each of N ranks trained: case -> weights, or the traceback it died of."""
    ranks: int = request.param
    folder = tmp_path_factory.mktemp("trained")
    job = start_job(ranks, "rank_train_cases.py", folder)
    assert job.exit_code == 0, job.text
    return [torch.load(folder / f"rank{rank}.pt") for rank in range(ranks)]


def largest_error(weights: list[torch.Tensor], reference: list[torch.Tensor]) -> float:
    """max |a - b| / max |b| over each tensor, the largest of all."""
    return max(
        ((a.double() - b.double()).abs().max() / b.double().abs().max().clamp_min(1e-30)).item()
        for a, b in zip(weights, reference, strict=True)
    )


@pytest.mark.parametrize("name", all_cases())
def test_case(trained: list[dict[str, Any]], name: str) -> None:
    case, optimizer, dtype = all_cases()[name]
    torch.set_num_threads(1)
    for rank, weights in enumerate(trained):
        assert not isinstance(weights[name], str), f"rank {rank}:\n{weights[name]}"
    first = trained[0][name]
    for other in trained[1:]:
        assert all(torch.equal(a, b) for a, b in zip(first, other[name], strict=True))
    model = case(Joined(len(trained)), optimizer, dtype)
    reference = [parameter.detach() for parameter in model.parameters()]
    assert largest_error(first, reference) <= TOLERANCE[dtype]


def test_the_comparison_can_fail(trained: list[dict[str, Any]]) -> None:
    """Ranks that do not average are far from one process on the joined batch."""
    alone = plain(Joined(1), "sgd", torch.float64)
    reference = plain(Joined(len(trained)), "sgd", torch.float64)
    error = largest_error(
        [p.detach() for p in alone.parameters()], [p.detach() for p in reference.parameters()]
    )
    assert (error > 1e-3) == (len(trained) > 1)
