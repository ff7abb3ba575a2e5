"""Who can start the ranks: name -> the module that knows its options and its words."""

from __future__ import annotations

import importlib
import re
from typing import Protocol, cast

from hvdtools.launch.failure import Failure
from hvdtools.launch.machine import Machine
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


# Imported when one is wanted: most jobs want one of them.
_MODULES = {
    "mpirun": "hvdtools.launch.launchers.mpirun",
    "hydra": "hvdtools.launch.launchers.hydra",
    "horovodrun": "hvdtools.launch.launchers.horovodrun",
    "srun": "hvdtools.launch.launchers.srun",
}


def launcher(name: str) -> Launcher:
    """The module of a launcher; "hydra" is the mpirun of MPICH and Intel MPI."""
    return cast(Launcher, importlib.import_module(_MODULES[name]))
