"""What to run: the job as the user asked for it, before anyone looks at the machine."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hvdtools.errors import HvdtoolsError, unknown_name

STARTER_NAMES = ("auto", "mpirun", "horovodrun")

# The tools that hand variables on read any other name as an option or as a word of shell.
_VARIABLE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class JobSpec:
    """A job on this machine, checked when it is made.

    Attributes:
        command: What every rank runs, as words; no shell reads them.
        ranks: How many processes to start, 1 or more.
        starter: Who starts them: "mpirun", "horovodrun", or "auto" to choose.
        env: Extra variables for every rank, as (name, value).
        oversubscribe: Allow more ranks than slots (CPU cores this process may use).

    Raises:
        HvdtoolsError: A field cannot be right on any machine.
    """

    command: tuple[str, ...]
    ranks: int
    starter: str = "auto"
    env: tuple[tuple[str, str], ...] = ()
    oversubscribe: bool = False

    def __post_init__(self) -> None:
        if self.ranks < 1:
            raise HvdtoolsError(
                f"{self.ranks} ranks cannot train anything: ask for one or more, as in -n 2."
            )
        if not self.command or not self.command[0]:
            raise HvdtoolsError(
                "There is no command to run: put it last, as in "
                "`hvdtools launch -n 2 -- python train.py`."
            )
        if self.starter not in STARTER_NAMES:
            raise unknown_name("starter", self.starter, STARTER_NAMES)
        for name, _ in self.env:
            if not _VARIABLE_NAME.fullmatch(name):
                raise HvdtoolsError(
                    f"{name!r} is not a name for an environment variable: write --env NAME=VALUE, "
                    "or --env NAME to hand on a variable that is set."
                )
        if any("\0" in text for text in (*self.command, *(value for _, value in self.env))):
            raise HvdtoolsError(
                "The command or a variable holds a NUL character, which no program can be given: "
                "remove it."
            )
