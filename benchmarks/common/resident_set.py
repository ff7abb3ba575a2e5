"""The most memory that this process has held at once, as the kernel counts it."""

from __future__ import annotations

import contextlib
import resource
import sys
from pathlib import Path

_CLEAR_REFS, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


def forget_the_peak() -> None:
    """Where the kernel lets us; otherwise only what goes beyond the old peak is seen.

    Source: proc(5), /proc/pid/clear_refs, the value 5.
    """
    with contextlib.suppress(OSError):
        _CLEAR_REFS.write_text("5")


def peak_bytes() -> int:
    """The largest resident set so far, or since the peak was forgotten."""
    try:
        lines = _STATUS.read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return taken if sys.platform == "darwin" else taken * 1024
