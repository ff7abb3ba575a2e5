"""Text: plurals, lists of ranks, and the compact notations of the kernel and of Slurm."""

from __future__ import annotations

import re
from collections.abc import Iterable


def count_noun(count: int, noun: str) -> str:
    """ "1 rank", "4 ranks"."""
    return f"{count} {noun}{'s' * (count != 1)}"


def ranks_text(ranks: list[int]) -> str:
    """ "rank 3", "ranks 0, 2 and 3", "ranks 0, 1, 2 and 61 more"."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 8:
        return f"ranks {', '.join(map(str, ranks[:3]))} and {len(ranks) - 3} more"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"


def format_ranges(numbers: Iterable[int]) -> str:
    """[0, 1, 2, 3, 8] -> "0-3,8", as the kernel writes lists of CPUs."""
    runs: list[list[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def parse_ranges(text: str) -> list[int]:
    """ "0-3,8" -> [0, 1, 2, 3, 8]; [] for an empty text.

    Raises:
        ValueError: Another text.
    """
    found: list[int] = []
    for part in text.strip().split(","):
        first, _, last = part.partition("-")
        if first:
            found.extend(range(int(first), int(last or first) + 1))
    return found


def parse_tasks_per_node(text: str) -> list[int]:
    """Slurm's "3(x2),1" -> [3, 3, 1]; [] for another text."""
    if not re.fullmatch(r"\d+(\(x\d+\))?(,\d+(\(x\d+\))?)*", text):
        return []
    runs = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in runs for _ in range(int(times or 1))]


def expand_hostlist(hostlist: str) -> tuple[str, ...]:
    """ "login,rack[1-2]n[08-09]" -> login, rack1n08, rack1n09, rack2n08, rack2n09.

    Source: Slurm's hostlist expressions, as in slurm.conf(5), "NodeName".
    """
    names: list[str] = []
    for word in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", hostlist):
        found = [""]
        for literal, ranges in re.findall(r"([^\[]+)|\[([^\]]*)\]", word):
            endings = [literal] if literal else _expand_padded(ranges)
            found = [name + ending for name in found for ending in endings]
        names += found
    return tuple(names)


def _expand_padded(text: str) -> list[str]:
    """ "08-10,12" -> "08", "09", "10", "12": leading zeros are kept."""
    runs = [part.partition("-") for part in text.split(",")]
    return [
        str(number).zfill(len(low))
        for low, _, high in runs
        for number in range(int(low), int(high or low) + 1)
    ]
