"""Are the hosts there? Asked over ssh before anything starts, all at once."""

from __future__ import annotations

import shlex
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError

CONNECT_S = 10
AT_ONCE = 32
_PATIENCE_S = 30
_NO_FOLDER, _NO_PROGRAM = 81, 82


@dataclass(frozen=True)
class Problem:
    """What keeps a host from taking part, without a full stop, and what to do about it.

    Attributes:
        unknown: True where ssh finds no such name.
    """

    message: str
    remedy: str
    unknown: bool = False


def check_hosts(hosts: Sequence[str], folder: Path, program: str) -> None:
    """Check that ssh reaches each host without a password, and finds the job's files there.

    A launcher reports the same for each rank, deep in its own words, or waits for ever.

    Args:
        folder: The folder that ranks start in.
        program: The path of the program that each of them runs first.

    Raises:
        HvdtoolsError: A host is not reached, or lacks the folder or the program.
    """
    found = list(problems(hosts, folder, program).values())
    if found:
        more = f" ({len(found) - 1} more hosts have a problem, too.)" if len(found) > 1 else ""
        raise HvdtoolsError(f"{found[0].message}: {found[0].remedy}.{more}")


def problems(hosts: Sequence[str], folder: Path, program: str) -> dict[str, Problem]:
    """What `check_hosts` checks: host -> its problem, of those that have one.

    Raises:
        HvdtoolsError: There is no ssh on this machine.
    """
    where, what = shlex.quote(str(folder)), shlex.quote(program)
    question = f"cd {where} || exit {_NO_FOLDER}; test -x {what} || exit {_NO_PROGRAM}"
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda host: _problem(host, question, folder, program), hosts)
        return {host: each for host, each in zip(hosts, found, strict=True) if each}


def ssh(host: str, command: str) -> tuple[str, ...]:
    """The command line that runs a line of shell on a host."""
    # BatchMode: a question that nobody sees is a job that never starts.
    quiet = ("-o", "BatchMode=yes", "-o", f"ConnectTimeout={CONNECT_S}")
    return ("ssh", *quiet, host, command)


def _problem(host: str, question: str, folder: Path, program: str) -> Problem | None:
    """What is wrong with a host, None if all is well."""
    try:
        done = subprocess.run(
            ssh(host, question),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_PATIENCE_S,
            check=False,
        )
    except FileNotFoundError:
        raise HvdtoolsError("There is no ssh on this machine: install openssh-client.") from None
    except subprocess.TimeoutExpired:
        message = f"{host} does not answer ssh within {_PATIENCE_S} s"
        return Problem(message, "correct --hosts, or fix it")
    if done.returncode == 0:
        return None
    if done.returncode == _NO_FOLDER:
        remedy = "start the job in one that all hosts share, or copy it there"
        return Problem(f"{host} has no folder {folder}", remedy)
    if done.returncode == _NO_PROGRAM:
        return Problem(f"{host} has no program {program}", "install it there at the same path")
    said = " ".join(done.stderr.split()) or f"ssh ended with {done.returncode}"
    remedy = f"correct --hosts, or let `ssh {host} true` work without a password"
    unknown = "Could not resolve hostname" in said
    return Problem(f"ssh does not reach {host} ({said})", remedy, unknown)
