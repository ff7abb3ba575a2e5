"""What the doctor concludes: one message each, with its remedy."""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = ("ok", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One conclusion.

    Attributes:
        level: "ok"; "warning" for what does not stop a run here; "error" for
            what stops a run or makes its results wrong.
        subject: What it is about: the name of a row on the screen.
        message: What was found.
        remedy: What to do, as a command or an instruction; "" if nothing.
    """

    level: str
    subject: str
    message: str
    remedy: str = ""


def ok(subject: str, message: str) -> Finding:
    """Something that was looked at and is as it should be."""
    return Finding("ok", subject, message)


def warning(subject: str, message: str, remedy: str = "") -> Finding:
    """Something that does not stop a run on this machine."""
    return Finding("warning", subject, message, remedy)


def error(subject: str, message: str, remedy: str) -> Finding:
    """Something that stops a run or makes its results wrong."""
    return Finding("error", subject, message, remedy)
