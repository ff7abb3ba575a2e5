"""Errors that all ranks raise alike, and the ranks that a divergence error names."""

from __future__ import annotations

import pytest

from hvdtools import HvdtoolsError
from hvdtools.core.agreement import (
    describe_differences,
    divergence_error,
    find_differences,
    on_every_rank,
)


def missing() -> None:
    raise FileNotFoundError(2, "No such file or directory")


def test_every_rank_raises_the_first_ranks_error() -> None:
    sent = []

    def exchange(problem: str | None) -> list[str | None]:
        sent.append(problem)
        return [None, "load() could not read a.pt: disk full", problem]

    for action in (missing, lambda: None):
        with pytest.raises(HvdtoolsError, match=r"could not read .*: disk full"):
            on_every_rank(action, "load() could not read a.pt", exchange)
    assert sent == ["load() could not read a.pt: No such file or directory", None]


def test_success_on_all_ranks_returns_the_result() -> None:
    assert on_every_rank(lambda: 3, "failed", lambda problem: [None, problem]) == 3


def test_a_fatal_error_is_raised_without_an_exchange() -> None:
    with pytest.raises(FileNotFoundError):
        on_every_rank(missing, "failed", lambda problem: pytest.fail("exchanged"), (OSError,))


def test_the_minority_differs_or_without_one_all_but_rank_0() -> None:
    assert find_differences([[1, 2], [1, 2]]) == {}
    assert find_differences([[9, 2], [1, 2], [1, 2]]) == {0: [0]}
    assert find_differences([[1, 5], [1, 6]]) == {1: [1]}


def test_the_error_names_ranks_and_variables() -> None:
    names = ["the weight a", "the weight b", "the weight c"]
    assert describe_differences({1: [2]}, names) == "rank 2 differs from the others in the weight b"
    text = describe_differences({0: [1], 2: [3]}, names)
    assert text == "ranks 1 and 3 differ from the others in the weight a (and 1 more)"
    assert str(divergence_error(text, "at step 5")).startswith("Replicas diverged at step 5: ranks")
    assert str(divergence_error(text)).startswith("Replicas diverged: ranks 1 and 3 differ")
