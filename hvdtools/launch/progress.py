"""What is shown while a job starts: a clock until its ranks speak, and the first step's time."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from hvdtools.core.log import FIRST_STEP

if TYPE_CHECKING:
    from rich.status import Status


class Progress:
    """Watches a job's lines for signs of life.

    On a terminal a spinner counts the seconds until a rank speaks; elsewhere only
    the line about the first step is printed, to stderr.
    """

    def __init__(self, what: str) -> None:
        self._start_s = time.monotonic()
        self._stepped = False
        self._status: Status | None = None
        if sys.stderr.isatty():
            from rich.console import Console

            self._status = Console(stderr=True).status(f"Starting {what}")
            self._status.start()

    def saw(self, rank: int | None, line: str) -> None:
        """Take note of a line before it is shown."""
        if rank is not None:
            self.stop()
        if not self._stepped and FIRST_STEP in line:
            self._stepped = True
            took_s = time.monotonic() - self._start_s
            print(f"first step {took_s:.1f} s after the start", file=sys.stderr, flush=True)

    def stop(self) -> None:
        """Take the spinner away."""
        if self._status is not None:
            self._status.stop()
            self._status = None
