"""How a job ended, as a value and in words."""

from __future__ import annotations

import signal
from dataclasses import dataclass

TIMED_OUT = 124  # as coreutils' timeout does


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
