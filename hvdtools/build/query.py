"""Ask a program for its version."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hvdtools.core.errors import TIMED_OUT

PATIENCE_S = 20


@dataclass(frozen=True)
class Answer:
    """What a program said.

    Attributes:
        status: Its exit status; minus the signal's number if one ended it;
            `TIMED_OUT` if it was ended because it took too long.
        text: Both its streams, as they came.
    """

    status: int
    text: str


def query(
    argv: Sequence[str],
    patience_s: float = PATIENCE_S,
    environment: Mapping[str, str] | None = None,
) -> Answer | None:
    """All that the program says, also if it fails; None if it cannot be started."""
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=patience_s,
            env=environment,
            check=False,
        )
    except OSError:
        return None
    except subprocess.TimeoutExpired as late:
        said = late.output or b""
        return Answer(TIMED_OUT, said.decode(errors="replace"))
    return Answer(done.returncode, done.stdout)


def query_output(argv: Sequence[str]) -> str | None:
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
