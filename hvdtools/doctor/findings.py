"""What the doctor concludes: a level, a message and a remedy."""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = ("ok", "warning", "error")


@dataclass(frozen=True)
class Finding:
    """One conclusion.

    Attributes:
        level: "ok"; "warning" for what does not stop a run here; "error" for what stops a run or
            makes its results wrong.
        subject: The row of the screen that it belongs to.
        message: What was found.
        remedy: What to do, as a command or an instruction; "" if nothing.
    """

    level: str
    subject: str
    message: str
    remedy: str = ""


def ok(subject: str, message: str) -> Finding:
    """Something that was checked and is fine."""
    return Finding("ok", subject, message)


def warning(subject: str, message: str, remedy: str = "") -> Finding:
    """Something that does not stop a run on this machine."""
    return Finding("warning", subject, message, remedy)


def error(subject: str, message: str, remedy: str) -> Finding:
    """Something that stops a run or makes its results wrong."""
    return Finding("error", subject, message, remedy)


def worst(findings: tuple[Finding, ...]) -> str:
    """The worst level among findings; "warning" if there are none, for bare facts."""
    return max((finding.level for finding in findings), key=LEVELS.index, default="warning")
