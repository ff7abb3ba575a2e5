"""Finds the cause of a failed build in its log, and what to do."""

from __future__ import annotations

import re
from dataclasses import dataclass

SHOWN = 6


@dataclass(frozen=True)
class Diagnosis:
    """The `lines` of the log to show (at most `SHOWN`), and the `advice`."""

    lines: tuple[str, ...]
    advice: str


# (pattern of a line of the log, advice). The first match wins, so causes come before effects.
_RULES = (
    (
        r"No module named pip$",
        "pip is missing from this environment: run `python -m ensurepip`.",
    ),
    (
        r"No space left on device|Disk quota exceeded",
        "The disk is full: free space, or set TMPDIR and XDG_CACHE_HOME to another disk.",
    ),
    (
        r"Killed signal terminated program|signal 9|virtual memory exhausted"
        r"|[Oo]ut of memory|Killed$",
        "The compiler ran out of memory: run `hvdtools build --jobs 1`.",
    ),
    (
        r"fatal error: Python\.h",
        "Python.h is missing: install this Python's headers (Debian: `apt install python3-dev`).",
    ),
    (
        r"No matching distribution found|Could not find a version that satisfies",
        "pip could not get a package: check the network, or give --wheel-dir a folder that has it.",
    ),
    (
        r"unsupported GNU version|unsupported clang version",
        "This CUDA does not support this C++ compiler: set CXX to an older g++.",
    ),
    (
        r"Unsupported gpu architecture|compute_\d+'? is not",
        "This CUDA does not support one of the GPU types: give --cuda-arch those that it supports.",
    ),
    (
        r"Could NOT find MPI|MPI_CXX.*(not found|failed)",
        "CMake could not use the MPI that was found: check that `mpicxx -show` works.",
    ),
    (
        r"Could NOT find NCCL",
        "CMake could not use NCCL: check NCCL_HOME, or build with --gpu none.",
    ),
    (
        r"Could NOT find (Pytorch|Tensorflow)|ModuleNotFoundError: No module named",
        "A module that the build imports does not load: import it in this Python to see why.",
    ),
    (
        r"CMake Error",
        "CMake could not configure the build: fix the error that it names.",
    ),
    (
        r"\b(fatal )?error: |undefined reference|ld returned \d",
        "The compiler rejected the source: this compiler or framework version may be too new.",
    ),
)

_TELLING = re.compile("|".join([*(pattern for pattern, _ in _RULES), r"\bERROR\b|#error"]))
# pip and make repeat that something failed, without saying what.
_ECHO = re.compile(
    r"metadata-generation-failed|subprocess-exited-with-error|Failed building wheel"
    r"|Failed to build|make(\[\d+\])?: \*\*\*|exited with \d|exit code: |did not run successfully"
    r"|error: command |see above for output|CalledProcessError|failed-wheel-build"
)


def diagnose(log: str) -> Diagnosis:
    """Find the cause in the output of a failed build."""
    lines = log.splitlines()
    telling = [
        text
        for position, line in enumerate(lines)
        if _TELLING.search(line) and not _ECHO.search(line)
        for text in _with_detail(lines, position)
    ]
    advice = next(
        (say for pattern, say in _RULES if any(re.search(pattern, line) for line in telling)),
        "The cause is near the end of the log.",
    )
    # No known line: the last output of a program that died.
    chosen = (
        list(dict.fromkeys(telling)) or [line.strip() for line in lines if line.strip()][-SHOWN:]
    )
    return Diagnosis(tuple(chosen[:SHOWN]), advice)


def _with_detail(lines: list[str], position: int) -> list[str]:
    """A line and, for a CMake Error, the indented message on the lines below it."""
    own = lines[position].strip()
    if "CMake Error" not in own:
        return [own]
    below = (line.strip() for line in lines[position + 1 : position + 4])
    return [own, *(line for line in below if line)]
