"""Who can start the ranks: name -> the module that knows its options and its words."""

from __future__ import annotations

import re
from typing import Protocol

from hvdtools.launch import horovodrun, mpirun
from hvdtools.launch.failure import Failure
from hvdtools.launch.machine import Machine
from hvdtools.launch.spec import JobSpec


class Starter(Protocol):
    """What a starter's module offers; each function is documented there."""

    def usable(self, machine: Machine) -> object: ...

    def environment(self, machine: Machine) -> tuple[tuple[str, str], ...]: ...

    def tokens(
        self, spec: JobSpec, machine: Machine, names: tuple[str, ...]
    ) -> tuple[str, ...]: ...

    def tag(self, argv: tuple[str, ...]) -> re.Pattern[str]: ...

    def failures(self, words: str, exit_code: int) -> tuple[Failure, ...]: ...


STARTERS: dict[str, Starter] = {"mpirun": mpirun, "horovodrun": horovodrun}
