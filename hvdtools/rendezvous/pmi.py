"""Discovery by PMI-1's wire protocol, of MPICH's and Intel MPI's mpirun and `srun --mpi=pmi2`.

Commands and answers are lines of "name=value" words; the first word is "cmd=...".
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
from hvdtools.rendezvous.protocol import Discovery, Endpoint, barrier_timeout

# Slurm does not answer a second init on one connection; Hydra answers at once.
_INIT_TIMEOUT_S = 2.0


def is_available(environ: Mapping[str, str]) -> bool:
    """True if the launcher's connection is open; a program between it and Python may close it."""
    number = environ.get("PMI_FD", "")
    try:
        return number.isdigit() and stat.S_ISSOCK(os.fstat(int(number)).st_mode)
    except OSError:
        return False


class Pmi(Discovery):
    """The launcher's key-value space: rank 0 writes, all wait at a barrier, the others read."""

    def __init__(
        self, launch_env: LaunchEnvironment, environ: Mapping[str, str], timeout_s: float
    ) -> None:
        self._launch_env = launch_env
        self._timeout_s = timeout_s
        self._socket = socket.socket(fileno=os.dup(int(environ["PMI_FD"])))
        self._lines = self._socket.makefile("rb", buffering=0)
        self._space = ""
        self._found: Endpoint | None = None

    def publish(self, endpoint: Endpoint) -> None:
        self._initialize()
        key = self._key(self._count_keys())
        self._send(f"cmd=put kvsname={self._space} key={key} value={endpoint.to_text()}")
        self._barrier()

    def candidates(self) -> tuple[Endpoint, ...]:
        """Waits for all ranks in the first call."""
        if self._found is None:
            self._initialize()
            self._barrier()
            text = self._get(self._count_keys() - 1)
            if text is None:
                raise HvdtoolsError(
                    f"{self._launch_env.launcher}'s PMI did not deliver rank 0's address: set "
                    "HVDTOOLS_RENDEZVOUS=host:port, with the host of rank 0."
                )
            self._found = Endpoint.from_text(text)
        return (self._found,)

    def _initialize(self) -> None:
        self._socket.settimeout(_INIT_TIMEOUT_S)
        try:
            self._send("cmd=init pmi_version=1 pmi_subversion=1")
        except TimeoutError:
            # An earlier program in this rank has sent init; the connection remains usable.
            self._lines = self._socket.makefile("rb", buffering=0)
        self._socket.settimeout(self._timeout_s)
        self._space = self._send("cmd=get_my_kvsname")["kvsname"]
        if self._launch_env.launcher != "srun":
            _finalize_at_exit(self._socket)

    def _barrier(self) -> None:
        try:
            self._send("cmd=barrier_in")
        except TimeoutError:
            raise barrier_timeout(self._launch_env, self._timeout_s) from None

    def _count_keys(self) -> int:
        """The number of keys that earlier programs wrote: each can be written only once."""
        number = 0
        while self._get(number) is not None:
            number += 1
        return number

    def _get(self, number: int) -> str | None:
        answer = self._send(f"cmd=get kvsname={self._space} key={self._key(number)}")
        return answer.get("value") if answer.get("rc") == "0" else None

    def _key(self, number: int) -> str:
        return f"hvdtools.{number}"

    def _send(self, command: str) -> dict[str, str]:
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
                "does after one program: start each program with a separate mpirun, or set "
                "HVDTOOLS_RENDEZVOUS=host:port, with the host of rank 0."
            )
        words = line.decode(errors="replace").split()
        return dict(word.split("=", 1) for word in words if "=" in word)


def _finalize_at_exit(connection: socket.socket) -> None:
    """Tell Hydra that this rank ended normally.

    A rank that sent init and ends without finalize makes it end the job at once, which
    is right if that rank failed and wrong if it is done.
    """
    owner = os.getpid()

    def finalize() -> None:
        failed = getattr(sys, "last_type", None) is not None
        if os.getpid() == owner and not failed:
            try:
                connection.sendall(b"cmd=finalize\n")
                connection.recv(64)
            except OSError:
                return

    atexit.register(finalize)
