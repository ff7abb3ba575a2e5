"""Jobs of their own: ranks that fail or stall, and what only a first step says."""

from __future__ import annotations

from typing import Any


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
    first_steps = [(rank, line) for rank, line in job.lines if "first step" in line]
    assert first_steps == [(0, "hvdtools: first step done")]
