"""hvdtools.keras and hvdtools.tensorflow between real ranks over Gloo."""

from __future__ import annotations

import pytest
from jobs import assert_ok, check_names, check_outcomes

PROGRAMS = ("rank_tensorflow.py", "rank_keras.py")
CHECKS = [(program, check) for program in PROGRAMS for check in check_names(program)]


@pytest.fixture(scope="module", params=(1, 2, 3), ids=lambda n: f"{n}-ranks")
def outcomes(request: pytest.FixtureRequest) -> dict[str, list[dict[str, str]]]:
    return {program: check_outcomes(request.param, program) for program in PROGRAMS}


@pytest.mark.parametrize(("program", "check"), CHECKS)
def test_between_ranks(outcomes: dict[str, list[dict[str, str]]], program: str, check: str) -> None:
    assert_ok(outcomes[program], check)
