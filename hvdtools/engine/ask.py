"""Ask a program for its version."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Sequence

PATIENCE_S = 20


def ask(argv: Sequence[str]) -> str | None:
    """What the program prints, or None if it is absent, fails or says nothing in time."""
    try:
        done = subprocess.run(
            argv, capture_output=True, text=True, timeout=PATIENCE_S, check=True, errors="replace"
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout


def first_match(pattern: str, text: str | None) -> str | None:
    """The first group of the first match in `text`, or None."""
    found = re.search(pattern, text or "", re.MULTILINE)
    return found.group(1) if found else None
