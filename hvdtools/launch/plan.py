"""From a job and the facts of a machine to the text that starts it. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True)
class Plan:
    """A job that is ready to start, by a program that stays until it ends.

    Attributes:
        argv: The launcher's command line.
        env: Variables to set for the launcher, on top of the caller's environment.
        ranks: How many ranks it starts.
        launcher: "mpirun", "hydra" (MPICH's and Intel's mpirun), "horovodrun" or "srun".
        note: In one line for the user, what was chosen and why.
        hosts: The hosts that ssh must reach; empty where all ranks are here.
    """

    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...]
    ranks: int
    launcher: str
    note: str = ""
    hosts: tuple[str, ...] = ()

    def text(self) -> str:
        """The plan as one shell command, to copy and paste."""
        return shlex.join(["env", *(f"{name}={value}" for name, value in self.env), *self.argv])


@dataclass(frozen=True)
class Submission:
    """A job that is ready to be handed to someone who runs it later.

    Attributes:
        document: The batch script, manifest or request, complete.
        argv: The program that takes it in, on its standard input.
        program: What must be installed for that, in words ("Slurm's sbatch").
        on: The scheduler, as `--on` takes it.
        ranks: How many ranks it starts.
        note: In one line for the user, what was chosen and why.
    """

    document: str
    argv: tuple[str, ...]
    program: str
    on: str
    ranks: int
    note: str = ""

    def text(self) -> str:
        """The document itself."""
        return self.document


def interface_variables(name: str | None) -> dict[str, str]:
    """The variables that keep ranks to a network interface; none for None."""
    if name is None:
        return {}
    return {
        "HVDTOOLS_INTERFACE": name,
        "HOROVOD_GLOO_IFACE": name,
        "GLOO_SOCKET_IFNAME": name,
        "NCCL_SOCKET_IFNAME": f"={name}",  # NCCL takes a bare name for the beginning of one
    }
