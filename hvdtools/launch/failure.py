"""Which rank made a job fail."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass

# What is said in the ranks whose peer went away: by Horovod (horovod/common/exceptions.py), and by
# Open MPI, which ends such a rank itself.
_OPEN_MPI_CRY = "An error occurred in Socket closed"
_VICTIMS_CRIES = ("HorovodInternalError", _OPEN_MPI_CRY)
# MPI_ERR_UNKNOWN in Open MPI's mpi.h, the code that it then ends such ranks with. It cries once for
# several of them, so the others say nothing.
_OPEN_MPI_CODE = 14
_UNCAUGHT = "Traceback (most recent call last):"
_STOPPED_BY_LAUNCHER = 128 + signal.SIGTERM


@dataclass(frozen=True)
class Failure:
    """A rank that failed.

    Attributes:
        rank: The rank.
        exit_code: Its exit code, 128 + number for a signal.
        code_is_own: False if the launcher stopped the rank before its own code was known.
    """

    rank: int
    exit_code: int
    code_is_own: bool = True


def culprit(failures: tuple[Failure, ...], last_lines: Mapping[int, tuple[str, ...]]) -> Failure:
    """The rank that failed of itself.

    A launcher names the rank whose process ended first. When a rank fails under Horovod the
    others raise HorovodInternalError at once, and one of them may end before the culprit,
    which still has a framework to unload. So a rank that was stopped by that error gives
    way to one that failed otherwise, to one that died of an exception of its own, or to the
    only one that was not so stopped.

    Args:
        failures: What the launcher reported, in the order in which the processes ended.
        last_lines: What each rank of the job said last.
    """
    first = failures[0]
    victims = _victims(failures, last_lines)
    for failure in failures:
        was_stopped = failure is not first and failure.exit_code == _STOPPED_BY_LAUNCHER
        if failure.rank not in victims and not was_stopped:
            return failure
    others = [rank for rank in last_lines if rank not in victims]
    raised = [rank for rank in others if any(_UNCAUGHT in line for line in last_lines[rank])]
    suspects = raised or others
    if not suspects or (len(suspects) > 1 and not raised):
        return first
    # Python ends with 1 after an uncaught exception; for any other end the code is lost.
    return Failure(suspects[0], 1, code_is_own=bool(raised))


def _victims(failures: tuple[Failure, ...], last_lines: Mapping[int, tuple[str, ...]]) -> set[int]:
    """The ranks whose peer went away: those that cry, and those that Open MPI ended silently."""
    cries = {
        rank: {cry for cry in _VICTIMS_CRIES for line in lines if cry in line}
        for rank, lines in last_lines.items()
    }
    victims = {rank for rank, cried in cries.items() if cried}
    if any(_OPEN_MPI_CRY in cried for cried in cries.values()):
        victims |= {each.rank for each in failures if each.exit_code == _OPEN_MPI_CODE}
    return victims
