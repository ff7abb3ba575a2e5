"""Horovod's own horovodrun, over Gloo, as the launcher of the ranks."""

from __future__ import annotations

import re
import shlex

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.machine import Machine
from hvdtools.launch.outcome import Failure
from hvdtools.launch.spec import JobSpec
from hvdtools.rank_wrapper import watch_command

# horovod/runner/common/util/safe_shell_exec.py, prefix_connection: no space after the colon.
_TAG = re.compile(r"\[(?P<rank>\d+)\]<(?P<stream>stdout|stderr)>:")

# horovod/runner/gloo_run.py: _exec_command prints each failure, and launch_gloo sorts the
# ranks by the time at which they ended and raises an error that names the first.
_EACH = re.compile(r"^Process (\d+) exit with status code (\d+)\.", re.MULTILINE)
_FIRST = re.compile(r"first process to do so was:\s+Process name: (\d+)\s+Exit code: (\d+)")


def usable(spec: JobSpec, machine: Machine) -> None:
    """Raise if this launcher cannot start the job here.

    Raises:
        HvdtoolsError: Horovod is missing, or was built without Gloo; or the job asks for what
            horovodrun does not know.
    """
    _check_horovod(machine)
    if spec.distribution != "block":
        raise HvdtoolsError(
            f"horovodrun fills host after host and knows no --distribution {spec.distribution}: "
            "use --launcher mpirun."
        )


def _check_horovod(machine: Machine) -> None:
    if machine.horovod is None:
        raise HvdtoolsError(
            "Horovod is not installed here, and horovodrun comes with it: run `hvdtools build`."
        )
    if "gloo" not in machine.controllers:
        raise HvdtoolsError(
            f"The installed Horovod {machine.horovod} was built without Gloo: run "
            "`hvdtools build`, or use --launcher mpirun."
        )


def environment(spec: JobSpec, machine: Machine) -> tuple[tuple[str, str], ...]:
    """The variables that every job under horovodrun has, as (name, value).

    horovodrun names the controller to its ranks and makes them unbuffered itself. It must not be
    unbuffered too: its threads would write into one another's long lines.
    """
    del spec, machine
    return (("PYTHONUNBUFFERED", ""),)


def tokens(spec: JobSpec, machine: Machine, names: tuple[str, ...]) -> tuple[str, ...]:
    """The command line; horovodrun hands its whole environment on, so `names` is not needed.

    The command goes as one word that sh takes apart in the rank. horovodrun's parser looks at the
    program's options too, and gives up on one that could be short for two of its own (`--log`).

    Raises:
        HvdtoolsError: There is no horovodrun that can start ranks.
    """
    del names
    _check_horovod(machine)
    return (
        *(machine.python, "-m", "hvdtools.launch.launchers.start_horovodrun"),
        "--gloo",
        *("-np", str(spec.ranks)),
        *_placement(spec, machine),
        *spec.pass_on,
        *("sh", "-c", f"exec {shlex.join(_command(spec, machine))}"),
    )


def _placement(spec: JobSpec, machine: Machine) -> tuple[str, ...]:
    if hosts := spec.on.hosts(machine):
        named = ("--network-interfaces", spec.interface) if spec.interface else ()
        return ("-H", ",".join(map(str, hosts)), *named)
    # All ranks are here, so the loopback interface serves: left alone, Gloo fails
    # where the machine's own name resolves to an address of no interface.
    return ("-H", f"localhost:{spec.ranks}", "--network-interfaces", spec.interface or "lo")


def _command(spec: JobSpec, machine: Machine) -> tuple[str, ...]:
    # When horovodrun ends, it ends its ssh clients, and nobody tells the ranks behind them.
    if spec.on.hosts(machine):
        return watch_command(machine.python, spec.command)
    return spec.command


def tag(argv: tuple[str, ...]) -> re.Pattern[str]:
    """What stands before a rank's text in the output of this command line."""
    del argv
    return _TAG


def failures(words: str, exit_code: int) -> tuple[Failure, ...]:
    """The ranks that failed, the first one first, from horovodrun's own words.

    Args:
        words: All that horovodrun said itself, line breaks and all.
        exit_code: horovodrun's, which is 1 whatever its ranks' are, so of no use.
    """
    del exit_code
    found = [*_FIRST.findall(words), *_EACH.findall(words)]
    return tuple(Failure(int(rank), int(code)) for rank, code in dict.fromkeys(found))
