"""The words that put this between a launcher and the program in a rank, and read it."""

from __future__ import annotations

import re
from collections.abc import Sequence

_PROGRAM = ("-m", "hvdtools.rank_wrapper")

# Before each line of a watched rank that tags its own lines.
TAG = re.compile(r"\[(?P<rank>\d+)\]<(?P<stream>stdout|stderr)>:")

# The last line of a watched rank that failed. It names the rank: what an aborting mpirun still
# prints comes without its tags, and behind the unfinished lines of others.
_ENDED = re.compile(r"hvdtools: rank (\d+) ended with exit code (\d+)$")


def watched(python: str, command: Sequence[str], *, tag: bool = False) -> tuple[str, ...]:
    """The command that runs `command` and watches it; with `tag`, its lines begin as in `TAG`."""
    return (python, *_PROGRAM, "--watch", *(["--tag"] if tag else []), "--", *command)


def bound(
    python: str, command: Sequence[str], bind: str, cpus: int | None, *, show: bool
) -> tuple[str, ...]:
    """The command that binds its rank (see `JobSpec.bind`), says so if asked, and runs `command`.

    Args:
        cpus: Cores for the rank; None for its share of those that it may use.
    """
    if bind == "none" and not show:
        return tuple(command)
    counted = () if cpus is None else ("--cpus", str(cpus))
    shown = ("--show",) if show else ()
    return (python, *_PROGRAM, "--bind", bind, *counted, *shown, "--", *command)


def ending(rank: int, exit_code: int) -> str:
    """The last line of a watched rank that failed."""
    return f"hvdtools: rank {rank} ended with exit code {exit_code}"


def read_ending(line: str) -> tuple[int, int] | None:
    """(rank, exit code) of a line that ends as `ending` has it; None for any other line."""
    found = _ENDED.search(line)
    return (int(found[1]), int(found[2])) if found else None
