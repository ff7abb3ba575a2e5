"""save and load, alone and on two real ranks."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

CHECKS = re.findall(
    r"^def (check_\w+)", (Path(__file__).parent / "rank_checkpoint.py").read_text(), re.MULTILINE
)


@pytest.fixture(scope="module", params=(1, 2), ids=lambda n: f"{n}-ranks")
def outcomes(
    request: pytest.FixtureRequest, start_job: Any, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, str]]:
    """For each rank: check -> "ok", or the traceback it died of."""
    job = start_job(request.param, "rank_checkpoint.py", tmp_path_factory.mktemp("saved files"))
    assert job.exit_code == 0, job.text
    return [json.loads(job.of(rank)[-1]) for rank in range(request.param)]


@pytest.mark.parametrize("check", CHECKS)
def test_over_ranks(outcomes: list[dict[str, str]], check: str) -> None:
    for rank, results in enumerate(outcomes):
        assert results[check] == "ok", f"rank {rank}:\n{results[check]}"
