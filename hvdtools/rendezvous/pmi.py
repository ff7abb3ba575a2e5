"""PMI-1's wire protocol, which the mpiruns of MPICH and Intel MPI and `srun --mpi=pmi2` speak.

Commands and answers are lines of "name=value" words, the first of which is "cmd=...".
Source: MPICH's documentation of the PMI v1 wire protocol, and Slurm's plugin mpi/pmi2.
"""

from __future__ import annotations

import atexit
import os
import socket
import stat
import sys
from collections.abc import Mapping

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment
from hvdtools.rendezvous.discovery import Discovery
from hvdtools.rendezvous.endpoint import Endpoint

# Slurm leaves a second greeting on one connection unanswered, hydra answers at once.
_GREETING_S = 2.0


def is_there(environ: Mapping[str, str]) -> bool:
    """True if the launcher left a connection; programs between it and Python may close that."""
    number = environ.get("PMI_FD", "")
    try:
        return number.isdigit() and stat.S_ISSOCK(os.fstat(int(number)).st_mode)
    except OSError:
        return False


class Pmi(Discovery):
    """The launcher's key-value space: rank 0 writes, a barrier, the others read."""

    def __init__(
        self, launch_env: LaunchEnvironment, environ: Mapping[str, str], timeout_s: float
    ) -> None:
        self._launch_env = launch_env
        self._timeout_s = timeout_s
        self._socket = socket.socket(fileno=os.dup(int(environ["PMI_FD"])))
        self._lines = self._socket.makefile("rb", buffering=0)
        self._space = ""
        self._found: Endpoint | None = None

    def publish(self, offer: Endpoint) -> None:
        self._greet()
        self._ask(
            f"cmd=put kvsname={self._space} key={self._key(self._written())} value={offer.text()}"
        )
        self._barrier()

    def look(self) -> tuple[Endpoint, ...]:
        """Waits for all ranks the first time."""
        if self._found is None:
            self._greet()
            self._barrier()
            text = self._get(self._written() - 1)
            if text is None:
                raise HvdtoolsError(
                    f"{self._launch_env.launcher}'s PMI did not pass on where rank 0 listens: set "
                    "HVDTOOLS_RENDEZVOUS=host:port, with the host of rank 0."
                )
            self._found = Endpoint.of(text)
        return (self._found,)

    def _greet(self) -> None:
        self._socket.settimeout(_GREETING_S)
        try:
            self._ask("cmd=init pmi_version=1 pmi_subversion=1")
        except TimeoutError:
            # An earlier program in this rank has greeted; the connection goes on.
            self._lines = self._socket.makefile("rb", buffering=0)
        self._socket.settimeout(self._timeout_s)
        self._space = self._ask("cmd=get_my_kvsname")["kvsname"]
        if self._launch_env.launcher != "srun":
            _say_goodbye_at_the_end(self._socket)

    def _barrier(self) -> None:
        try:
            self._ask("cmd=barrier_in")
        except TimeoutError:
            size, launcher = self._launch_env.size, self._launch_env.launcher
            raise HvdtoolsError(
                f"Not all of the {size} ranks that {launcher} started came to init() within "
                f"{self._timeout_s:g} s: see what the others do, or give them more time with "
                "HVDTOOLS_RENDEZVOUS_TIMEOUT_S."
            ) from None

    def _written(self) -> int:
        """How many programs in these ranks have written before: a key is written once."""
        number = 0
        while self._get(number) is not None:
            number += 1
        return number

    def _get(self, number: int) -> str | None:
        answer = self._ask(f"cmd=get kvsname={self._space} key={self._key(number)}")
        return answer.get("value") if answer.get("rc") == "0" else None

    def _key(self, number: int) -> str:
        return f"hvdtools.{number}"

    def _ask(self, command: str) -> dict[str, str]:
        try:
            self._socket.sendall(command.encode() + b"\n")
            line = self._lines.readline()
        except TimeoutError:
            raise
        except OSError:
            line = b""
        if not line.endswith(b"\n"):
            raise HvdtoolsError(
                f"{self._launch_env.launcher} has closed its PMI connection to this rank, as it "
                "does after one program: start each program with an mpirun of its own, or set "
                "HVDTOOLS_RENDEZVOUS=host:port, with the host of rank 0."
            )
        words = line.decode(errors="replace").split()
        return dict(word.split("=", 1) for word in words if "=" in word)


def _say_goodbye_at_the_end(connection: socket.socket) -> None:
    """Let hydra know a good end from a bad one.

    A rank that greeted and ends without a goodbye makes it end the job at once,
    which is right if that rank failed and wrong if it is done.
    """
    owner = os.getpid()

    def goodbye() -> None:
        failed = getattr(sys, "last_type", None) is not None
        if os.getpid() == owner and not failed:
            try:
                connection.sendall(b"cmd=finalize\n")
                connection.recv(64)
            except OSError:
                return

    atexit.register(goodbye)
