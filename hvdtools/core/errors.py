"""The one exception that a user is meant to read."""

from __future__ import annotations


class HvdtoolsError(Exception):
    """Something the user can fix.

    The message is one clear sentence that says what is wrong and what to do.
    The command prints it without a traceback and exits with code 2; a training
    script sees it as an ordinary exception.
    """


def unknown_name(kind: str, name: str, known: list[str] | tuple[str, ...]) -> HvdtoolsError:
    """The error for a name that is not on a list: it shows the list.

    `kind` is the noun in the message ("engine", "suite").
    """
    return HvdtoolsError(f"Unknown {kind} {name!r}: choose one of {', '.join(sorted(known))}.")
