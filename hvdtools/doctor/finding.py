"""What the doctor concludes: one sentence each, with its remedy."""

from __future__ import annotations

from dataclasses import dataclass

LEVELS = ("ok", "note", "broken")


@dataclass(frozen=True)
class Finding:
    """One conclusion.

    Attributes:
        level: "ok"; "note" for what a run here can live with; "broken" for
            what stops a run or makes it a wrong one.
        subject: What it is about: the name of a row on the screen.
        sentence: What was found.
        remedy: What to do, as a command or an instruction; "" if nothing.
    """

    level: str
    subject: str
    sentence: str
    remedy: str = ""


def ok(subject: str, sentence: str) -> Finding:
    """Something that was looked at and is as it should be."""
    return Finding("ok", subject, sentence)


def note(subject: str, sentence: str, remedy: str = "") -> Finding:
    """Something that a run on this machine can live with."""
    return Finding("note", subject, sentence, remedy)


def broken(subject: str, sentence: str, remedy: str) -> Finding:
    """Something that stops a run, or makes it a wrong one."""
    return Finding("broken", subject, sentence, remedy)
