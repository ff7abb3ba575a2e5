"""The process between a launcher and the program of a rank: its command line and its messages.

`__main__` is the wrapper itself, `binding` binds a rank to cores.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_PROGRAM = ("-m", "hvdtools.rank_wrapper")

# The prefix of each line of a rank that tags its own lines.
TAG = re.compile(r"\[(?P<rank>\d+)\]<(?P<stream>stdout|stderr)>:")

# The last line of a failed rank. It contains the rank: an aborting mpirun prints the last lines
# without its tags, and after the unfinished lines of other ranks.
_EXIT_LINE = re.compile(r"hvdtools: rank (\d+) ended with exit code (\d+)$")


def watch_command(python: str, command: Sequence[str], *, tag: bool = False) -> tuple[str, ...]:
    """The command line that runs `command` and watches it; with `tag`, it prefixes its lines."""
    return (python, *_PROGRAM, "--watch", *(["--tag"] if tag else []), "--", *command)


def bind_command(
    python: str, command: Sequence[str], bind: str, cpus: int | None, *, show: bool
) -> tuple[str, ...]:
    """The command line that binds its rank (see `JobSpec.bind`), then runs `command`.

    Args:
        cpus: Cores for the rank; None for its share of the usable ones.
        show: Print where the rank runs.
    """
    if bind == "none" and not show:
        return tuple(command)
    cpu_option = () if cpus is None else ("--cpus", str(cpus))
    show_option = ("--show",) if show else ()
    return (python, *_PROGRAM, "--bind", bind, *cpu_option, *show_option, "--", *command)


def exit_line(rank: int, exit_code: int) -> str:
    """The last line of a watched rank that failed."""
    return f"hvdtools: rank {rank} ended with exit code {exit_code}"


def parse_exit_line(line: str) -> tuple[int, int] | None:
    """(rank, exit code) of a line that ends with an exit line; None for any other line."""
    found = _EXIT_LINE.search(line)
    return (int(found[1]), int(found[2])) if found else None
