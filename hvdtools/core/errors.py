"""The one exception that a user is meant to read, and the exit code of a time limit."""

from __future__ import annotations

# Exit code of a command that was ended at its time limit, as coreutils' timeout returns it.
TIMED_OUT = 124


class HvdtoolsError(Exception):
    """Something the user can fix.

    The message says in one line what is wrong, with which value, and what to do. The
    command prints it without a traceback and exits with code 2; a training script sees
    an ordinary exception.
    """


def unknown_name(kind: str, name: str, known: list[str] | tuple[str, ...]) -> HvdtoolsError:
    """The error for a name that is not in `known`; it lists the known ones.

    Args:
        kind: The noun in the message, "engine" or "suite".
    """
    return HvdtoolsError(f"Unknown {kind} {name!r}: choose one of {', '.join(sorted(known))}.")
