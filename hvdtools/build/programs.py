"""Runs other programs: queries their version, or logs their output."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.errors import TIMED_OUT

PATIENCE_S = 20


@dataclass(frozen=True)
class Answer:
    """How a program ended.

    Attributes:
        status: Its exit status; the negative signal number if a signal ended it; `TIMED_OUT` if
            it was killed after the limit.
        text: stdout and stderr together.
    """

    status: int
    text: str


def query(
    argv: Sequence[str],
    patience_s: float = PATIENCE_S,
    environment: Mapping[str, str] | None = None,
) -> Answer | None:
    """All output of the program, also if it fails; None if it cannot be started."""
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
    """What the program prints to stdout; None if it is absent, fails or takes too long."""
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


def run_logged(
    argv: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None] = lambda line: None,
) -> int:
    """Run `argv`, append its output to `log`, and pass each line to `on_line`.

    Returns its exit status. If this process is interrupted, the command and all its children are
    killed: a compiler left behind would fill the disk.
    """
    with log.open("a", errors="replace") as file:
        file.write(f"$ {' '.join(argv)}\n")
        file.flush()
        process = start_group(argv, environment)
        try:
            assert process.stdout is not None
            for line in process.stdout:
                file.write(line)
                file.flush()
                on_line(line)
            return process.wait()
        except BaseException:
            end_group(process)
            raise


def start_group(argv: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start a process in a new session, with stdout and stderr in one pipe of text."""
    return subprocess.Popen(
        argv,
        env=dict(environment),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
    )


def end_group(process: subprocess.Popen[str]) -> None:
    """Kill a process of `start_group` and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def scrubbed(environ: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """`environ` without the variables whose names begin with one of `prefixes`."""
    return {name: value for name, value in environ.items() if not name.startswith(prefixes)}
