"""What the adapter does between ranks, with real ranks over Gloo."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

CHECKS = re.findall(
    r"^def (check_\w+)", (Path(__file__).parent / "rank_checks.py").read_text(), re.MULTILINE
)


@pytest.fixture(scope="module", params=(2, 3), ids=lambda n: f"{n}-ranks")
def outcomes(request: pytest.FixtureRequest, start_job: Any) -> list[dict[str, str]]:
    """For each rank: check -> "ok", or the traceback it died of."""
    job = start_job(request.param, "rank_checks.py")
    assert job.exit_code == 0, job.text
    return [json.loads(job.of(rank)[-1]) for rank in range(request.param)]


@pytest.mark.parametrize("check", CHECKS)
def test_between_ranks(outcomes: list[dict[str, str]], check: str) -> None:
    for rank, results in enumerate(outcomes):
        assert results[check] == "ok", f"rank {rank}:\n{results[check]}"


def test_a_rank_that_skips_its_allreduce_is_caught(start_job: Any) -> None:
    job = start_job(2, "rank_skips_its_allreduce.py")
    assert job.exit_code != 0
    assert "step() would use gradients that are not averaged over ranks" in job.text
    assert "trained" not in [line for _, line in job.lines]
