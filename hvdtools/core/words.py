"""Words that every room says alike."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """ "1 rank", "4 ranks"."""
    return f"{count} {noun}{'s' * (count != 1)}"
