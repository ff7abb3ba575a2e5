"""save and load, alone and on two real ranks."""

from __future__ import annotations

import pytest
from jobs import assert_ok, check_names, check_outcomes


@pytest.fixture(scope="module", params=(1, 2), ids=lambda n: f"{n}-ranks")
def outcomes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> list[dict[str, str]]:
    folder = tmp_path_factory.mktemp("saved files")
    return check_outcomes(request.param, "rank_checkpoint.py", folder)


@pytest.mark.parametrize("check", check_names("rank_checkpoint.py"))
def test_over_ranks(outcomes: list[dict[str, str]], check: str) -> None:
    assert_ok(outcomes, check)
