"""Are the hosts there? Asked over ssh before anything starts, all at once."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hvdtools.errors import HvdtoolsError

_CONNECT_S = 10
_PATIENCE_S = 30
_NO_FOLDER, _NO_PROGRAM = 81, 82


def check_hosts(hosts: Sequence[str], folder: Path, program: str) -> None:
    """Check that ssh reaches each host without a password, and finds the job's files there.

    A starter reports the same for each rank, deep in its own words, or waits for ever.

    Args:
        folder: The folder that ranks start in.
        program: The path of the program that each of them runs first.

    Raises:
        HvdtoolsError: A host is not reached, or lacks the folder or the program.
    """
    where, what = shlex.quote(str(folder)), shlex.quote(program)
    question = f"cd {where} || exit {_NO_FOLDER}; test -x {what} || exit {_NO_PROGRAM}"
    with ThreadPoolExecutor(max_workers=32) as pool:
        problems = list(pool.map(lambda host: _problem(host, question, folder, program), hosts))
    found = [problem for problem in problems if problem]
    if found:
        more = f" ({len(found) - 1} more hosts have a problem, too.)" if len(found) > 1 else ""
        raise HvdtoolsError(found[0] + more)


def _problem(host: str, question: str, folder: Path, program: str) -> str | None:
    """One sentence about a host, None if all is well."""
    # BatchMode: a question that nobody sees is a job that never starts.
    argv = ["ssh", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_S}", host, question]
    try:
        done = subprocess.run(
            argv,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except FileNotFoundError:
        return "There is no ssh on this machine: install openssh-client."
    except subprocess.TimeoutExpired:
        return f"{host} does not answer ssh within {_PATIENCE_S} s: correct --hosts, or mend it."
    if done.returncode == 0:
        return None
    if done.returncode == _NO_FOLDER:
        return (
            f"{host} has no folder {folder}: start the job in one that all hosts share, or copy it "
            "there."
        )
    if done.returncode == _NO_PROGRAM:
        return f"{host} has no program {program}: install it there at the same path."
    said = " ".join(done.stderr.split()) or f"ssh ended with {done.returncode}"
    return (
        f"ssh does not reach {host} ({said}): correct --hosts, or let `ssh {host} true` work "
        "without a password."
    )
