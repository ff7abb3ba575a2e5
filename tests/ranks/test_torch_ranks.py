"""What the adapter does between ranks, with real ranks over Gloo."""

from __future__ import annotations

from typing import Any

import pytest
from jobs import assert_ok, check_names, check_outcomes

PROGRAMS = ("rank_checks.py", "rank_proofs.py")
CHECKS = [(program, check) for program in PROGRAMS for check in check_names(program)]


@pytest.fixture(scope="module", params=(2, 3), ids=lambda n: f"{n}-ranks")
def outcomes(request: pytest.FixtureRequest) -> dict[str, list[dict[str, str]]]:
    return {program: check_outcomes(request.param, program) for program in PROGRAMS}


@pytest.mark.parametrize(("program", "check"), CHECKS)
def test_between_ranks(outcomes: dict[str, list[dict[str, str]]], program: str, check: str) -> None:
    assert_ok(outcomes[program], check)


def test_a_rank_that_skips_its_allreduce_is_caught(start_job: Any) -> None:
    job = start_job(2, "rank_skips_its_allreduce.py")
    assert job.exit_code != 0
    assert "step() would use gradients that are not averaged over ranks" in job.text
    assert "trained" not in [line for _, line in job.lines]


def test_rank_0_names_the_rank_that_others_wait_for(start_job: Any) -> None:
    job = start_job(3, "rank_stalls.py")
    assert job.exit_code == 0, job.text
    stalled = [line for line in job.of(0) if "stalled" in line]
    here = "not there: rank 1, at rank_stalls.py:20 in read_slowly."
    assert any("ranks 0 and 2 waited" in line and here in line for line in stalled), job.text
    assert any("bucket 1 of 1 (1.bias to 0.weight) of model 0 in step 2" in s for s in stalled)
    assert any("for average()" in line and here in line for line in stalled), job.text
    assert not any("stalled" in line for rank in (1, 2) for line in job.of(rank))
