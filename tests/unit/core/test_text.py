"""Plurals, lists of ranks, and the notations of the kernel and of Slurm."""

from __future__ import annotations

import pytest

from hvdtools.core.text import (
    count_noun,
    expand_hostlist,
    format_ranges,
    parse_ranges,
    parse_tasks_per_node,
    ranks_text,
)


def test_nouns_are_counted() -> None:
    assert [count_noun(n, "rank") for n in (0, 1, 2)] == ["0 ranks", "1 rank", "2 ranks"]


def test_lists_of_ranks() -> None:
    assert ranks_text([3]) == "rank 3"
    assert ranks_text([0, 2, 3]) == "ranks 0, 2 and 3"
    assert ranks_text(list(range(64))) == "ranks 0, 1, 2 and 61 more"


def test_ranges_of_numbers() -> None:
    assert parse_ranges("0-3,8\n") == [0, 1, 2, 3, 8]
    assert parse_ranges("12001-12002,12009") == [12001, 12002, 12009]
    assert parse_ranges("\n") == []
    assert format_ranges(frozenset({8, 0, 1, 2, 3})) == "0-3,8"
    assert format_ranges([]) == ""


@pytest.mark.parametrize(
    ("text", "tasks"),
    [("3(x2),1", [3, 3, 1]), ("12", [12]), ("", []), ("2 each", []), ("2(x3),", [])],
)
def test_slurms_tasks_per_node(text: str, tasks: list[int]) -> None:
    assert parse_tasks_per_node(text) == tasks


@pytest.mark.parametrize(
    ("hostlist", "names"),
    [
        ("", ()),
        ("n1", ("n1",)),
        ("n[1-3,7],login", ("n1", "n2", "n3", "n7", "login")),
        ("rack[1-2]n[08-10]x", tuple(f"rack{r}n{n}x" for r in (1, 2) for n in ("08", "09", "10"))),
    ],
)
def test_slurms_hostlist(hostlist: str, names: tuple[str, ...]) -> None:
    assert expand_hostlist(hostlist) == names
