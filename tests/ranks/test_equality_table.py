"""The equality table: every row holds, and the kept one has every row."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from equality import CASES, OPTIMIZERS, PRECISIONS, Case
from equality_table import KEPT, RANKS, error, tolerance, train_in_ranks


@pytest.fixture(scope="module", params=RANKS, ids=lambda n: f"{n}-ranks")
def of_rank(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, Any]]:
    torch.set_num_threads(1)
    return train_in_ranks(request.param, tmp_path_factory.mktemp("equality"))


@pytest.mark.parametrize("case", CASES, ids=str)
def test_n_ranks_equal_one_process(of_rank: list[dict[str, Any]], case: Case) -> None:
    assert error(of_rank, case) <= tolerance(case)


def test_the_kept_table_has_every_row() -> None:
    kept = KEPT.read_text()
    for optimizer in OPTIMIZERS:
        for precision in PRECISIONS:
            assert f"| {optimizer}, {precision} |" in kept
