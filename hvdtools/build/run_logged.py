"""Run a command into a log file, line by line, and leave nothing behind if it is stopped."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path


def run_logged(
    argv: Sequence[str],
    environment: Mapping[str, str],
    log: Path,
    on_line: Callable[[str], None] = lambda line: None,
) -> int:
    """Run `argv`, append its output to `log`, and hand each line to `on_line`.

    Returns its exit status. If this process is interrupted, the command and
    all that it started end too: a compiler left behind would fill the disk.
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
    """Start a process in a session of its own, both its streams in one pipe of text."""
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
    """End a process that was started in its own session, and its children."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def scrubbed(environ: Mapping[str, str], prefixes: tuple[str, ...]) -> dict[str, str]:
    """`environ` without the variables whose names begin with one of `prefixes`."""
    return {name: value for name, value in environ.items() if not name.startswith(prefixes)}
