"""The launchers that `--launcher` knows: modules, imported when one is wanted.

A site can add its own: an entry point of the group "hvdtools.launchers", a name and a module.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Protocol, cast

from hvdtools.core.registry import Registry

if TYPE_CHECKING:
    from hvdtools.launch.machine import Machine
    from hvdtools.launch.outcome import Failure
    from hvdtools.launch.spec import JobSpec


class Launcher(Protocol):
    """What a launcher's module offers; each function is documented there."""

    def usable(self, spec: JobSpec, machine: Machine) -> None: ...

    def environment(self, spec: JobSpec, machine: Machine) -> tuple[tuple[str, str], ...]: ...

    def tokens(
        self, spec: JobSpec, machine: Machine, names: tuple[str, ...]
    ) -> tuple[str, ...]: ...

    def tag(self, argv: tuple[str, ...]) -> re.Pattern[str]: ...

    def failures(self, words: str, exit_code: int) -> tuple[Failure, ...]: ...


# mpirun is Open MPI's or, under another name since its options differ, MPICH's and Intel MPI's.
REGISTRY = Registry(
    "launcher",
    "hvdtools.launchers",
    {
        "mpirun": "hvdtools.launch.launchers.mpirun",
        "horovodrun": "hvdtools.launch.launchers.horovodrun",
        "srun": "hvdtools.launch.launchers.srun",
        "hydra": "hvdtools.launch.launchers.hydra",
    },
)


def choices() -> tuple[str, ...]:
    """What `--launcher` takes."""
    return ("auto", *(name for name in REGISTRY.names() if name != "hydra"))


def launcher(name: str) -> Launcher:
    """The module of a launcher; "hydra" is the mpirun of MPICH and Intel MPI."""
    return cast(Launcher, REGISTRY.load(name))
