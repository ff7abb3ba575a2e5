"""From a job and the facts of a machine to the command line that starts it. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, replace

from hvdtools.errors import HvdtoolsError
from hvdtools.launch import horovodrun, mpirun
from hvdtools.launch.machine import Machine
from hvdtools.launch.spec import JobSpec
from hvdtools.launch.starters import STARTERS


@dataclass(frozen=True)
class Plan:
    """A job that is ready to start.

    Attributes:
        argv: The starter's command line.
        env: Variables to set for the starter, on top of the caller's environment.
        ranks: How many ranks it starts.
        starter: "mpirun" or "horovodrun".
        note: In one line for the user, what was chosen and why.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    ranks: int
    starter: str
    note: str = ""

    def text(self) -> str:
        """The plan as one shell command, to copy and paste."""
        return shlex.join(["env", *(f"{name}={value}" for name, value in self.env), *self.argv])


def make_plan(spec: JobSpec, machine: Machine) -> Plan:
    """Plan `spec` for `machine`; starts nothing and reads nothing.

    The variables of `spec.env` win over those that hvdtools sets itself. A leading
    `python` is the one that hvdtools is installed in, so that ranks find the same Horovod.

    Raises:
        HvdtoolsError: The ranks do not fit, or the starter cannot start here.
    """
    if spec.ranks > machine.slots and not spec.oversubscribe:
        raise HvdtoolsError(
            f"{spec.ranks} ranks are more than the {machine.slots} slots (CPU cores) of this "
            f"machine: use -n {machine.slots} or fewer, or add --oversubscribe."
        )
    name, why = _choose(spec, machine)
    starter = STARTERS[name]
    env = tuple({**dict(starter.environment(machine)), **dict(spec.env)}.items())
    handed_on = tuple(name for name, _ in env if not name.startswith("OMPI_ALLOW_RUN_AS_ROOT"))
    ready = _with_this_python(spec, machine)
    return Plan(
        argv=starter.tokens(ready, machine, handed_on),
        env=env,
        ranks=spec.ranks,
        starter=name,
        note=f"{_counted(spec.ranks)} on this machine with {_described(name, machine)}{why}",
    )


def _choose(spec: JobSpec, machine: Machine) -> tuple[str, str]:
    """The starter and, if it was not named, why it."""
    if spec.starter != "auto":
        STARTERS[spec.starter].usable(machine)
        return spec.starter, ""
    if machine.horovod is None:
        raise HvdtoolsError("Horovod is not installed here: run `hvdtools build`.")
    try:
        mpirun.usable(machine)
    except HvdtoolsError as no_mpi:
        if "gloo" not in machine.controllers:
            raise HvdtoolsError(
                f"Neither starter can work: {no_mpi} Gloo is not built into Horovod either."
            ) from None
        horovodrun.usable(machine)
        reason = str(no_mpi).partition(":")[0]
        return "horovodrun", f"; not with mpirun: {reason[0].lower()}{reason[1:]}"
    return "mpirun", ", because MPI goes through shared memory where Gloo goes through TCP"


def _with_this_python(spec: JobSpec, machine: Machine) -> JobSpec:
    if spec.command[0] not in ("python", "python3"):
        return spec
    return replace(spec, command=(machine.python, *spec.command[1:]))


def _counted(ranks: int) -> str:
    return "1 rank" if ranks == 1 else f"{ranks} ranks"


def _described(starter: str, machine: Machine) -> str:
    if starter == "mpirun" and machine.mpirun is not None:
        return f"mpirun ({machine.mpirun.name})"
    return f"horovodrun (Horovod {machine.horovod}, Gloo)"
