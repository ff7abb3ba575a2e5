"""How a job ended: as a value, which rank failed first, and as text for the user."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass

from hvdtools.core.errors import TIMED_OUT

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


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        exit_code: 0; or that of the rank that failed first (128 + number for a signal); or the
            launcher's own where it names no rank; 128 + number where a signal to this process
            ended the job; 124 where time was up.
        failed_rank: The rank that failed first, None if none did or none is known.
        last_lines: What that rank said last, 20 lines at most; the launcher's own lines where
            it failed and named no rank.
        code_is_own: False if the launcher stopped the failed rank before its own exit code was
            known; `exit_code` is 1 then.
        stopped: True if a signal to this process or the clock ended the job.
        told_to_save: True if the ranks were sent SIGUSR1, "save and exit".
    """

    exit_code: int
    failed_rank: int | None
    last_lines: tuple[str, ...]
    code_is_own: bool = True
    stopped: bool = False
    told_to_save: bool = False


def outcome_text(launcher: str, outcome: Outcome) -> str:
    """The block that ends the output of a job that did not succeed: who, how, its last lines."""
    if outcome.stopped:
        why = "time was up" if outcome.exit_code == TIMED_OUT else "interrupted"
        return f"{why}: every rank is stopped."
    if outcome.failed_rank is None:
        head = f"{launcher} failed with exit code {_named(outcome.exit_code)} and named no rank"
    elif outcome.code_is_own:
        head = f"rank {outcome.failed_rank} failed first with exit code {_named(outcome.exit_code)}"
    else:
        head = (
            f"rank {outcome.failed_rank} failed first, but {launcher} stopped it before its exit "
            "code was known (other ranks failed because it went away)"
        )
    if not outcome.last_lines:
        return f"{head}; it said nothing."
    return "\n".join([f"{head}; its last lines:", *(f"    {line}" for line in outcome.last_lines)])


def _named(exit_code: int) -> str:
    try:
        return f"{exit_code} ({signal.Signals(exit_code - 128).name})"
    except ValueError:
        return str(exit_code)
