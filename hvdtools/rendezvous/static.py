"""Discovery without a messenger: all ranks compute where rank 0 listens, or share a file."""

from __future__ import annotations

import hashlib
import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.text import expand_hostlist, parse_ranges
from hvdtools.core.topology import LaunchEnvironment
from hvdtools.rendezvous.network import interface_of
from hvdtools.rendezvous.protocol import LOCALHOST, Discovery, Endpoint

# Below Linux' own range for outgoing connections (from 32768), above well-known services.
_FIRST_PORT, _PORTS = 20000, 12000
_CANDIDATES = 8


@dataclass(frozen=True)
class StaticDiscovery(Discovery):
    """Rank 0 listens on the first free one of `ports`, on one of `hosts`.

    Another program may hold any of the ports: the token identifies ours.
    """

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    token: str

    def candidates(self) -> tuple[Endpoint, ...]:
        return tuple(Endpoint(self.hosts, port, self.token) for port in self.ports)


def from_user(address: str, token: str) -> StaticDiscovery:
    """The address in HVDTOOLS_RENDEZVOUS.

    Raises:
        HvdtoolsError: It is not host:port.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise HvdtoolsError(
            f"HVDTOOLS_RENDEZVOUS is {address!r}: it must be host:port, with the host of rank 0 "
            "and a free port of it."
        )
    return StaticDiscovery((host,), (int(port),), f"{token}@{address}")


def from_torchrun(environ: Mapping[str, str], token: str) -> StaticDiscovery:
    """Ports above torchrun's own store, which listens on MASTER_PORT of rank 0's host.

    Raises:
        HvdtoolsError: MASTER_PORT is not a port.
    """
    master, port = environ["MASTER_ADDR"], environ["MASTER_PORT"]
    if not port.isdigit() or not 0 < int(port) < 65535:
        raise HvdtoolsError(f"MASTER_PORT is {port!r}: it must be a port from 1 to 65534.")
    is_local = environ["LOCAL_WORLD_SIZE"] == environ["WORLD_SIZE"]
    hosts = (LOCALHOST, master) if is_local else (master,)
    return StaticDiscovery(hosts, tuple(range(int(port) + 1, min(int(port) + 17, 65536))), token)


def from_slurm(environ: Mapping[str, str], token: str) -> StaticDiscovery:
    """The first node of the step, on ports that Slurm reserved or that the token determines."""
    reserved = parse_ranges(environ.get("SLURM_STEP_RESV_PORTS", ""))[:_CANDIDATES]
    ports = (*reserved, *computed_ports(token))
    nodes = expand_hostlist(environ.get("SLURM_STEP_NODELIST", ""))
    if environ.get("SLURM_STEP_NUM_NODES") == "1":
        nodes = (LOCALHOST,)
    elif not environ.get("SLURM_DISTRIBUTION", "").startswith("arbitrary"):
        nodes = nodes[:1]  # otherwise rank 0 may be on any of them
    return StaticDiscovery(nodes, ports, token)


def on_this_host(token: str) -> StaticDiscovery:
    """For a job of which all ranks are on this host."""
    return StaticDiscovery((LOCALHOST,), computed_ports(token), token)


def job_token(launch_env: LaunchEnvironment, environ: Mapping[str, str]) -> str:
    """The launcher's name for this start of this job; "" if it has none."""
    names = {
        "srun": ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
        "torchrun": ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"),
        "Open MPI's mpirun": ("PMIX_NAMESPACE",),
    }.get(launch_env.launcher, ())
    return ".".join(environ.get(name, "") for name in names)


def computed_ports(token: str) -> tuple[int, ...]:
    """The same few ports for all ranks that know the token."""
    digest = hashlib.sha256(token.encode()).digest()
    pairs = [digest[2 * index : 2 * index + 2] for index in range(_CANDIDATES)]
    return tuple(_FIRST_PORT + int.from_bytes(pair, "big") % _PORTS for pair in pairs)


class SharedFile(Discovery):
    """A file in the working folder, which must be the same on all hosts."""

    def __init__(self, folder: Path, token: str) -> None:
        self.token = token
        digest = hashlib.sha256(token.encode()).hexdigest()[:16]
        self._path = folder / f".hvdtools-rendezvous-{digest}"

    def publish(self, endpoint: Endpoint) -> None:
        """Write the file.

        Raises:
            HvdtoolsError: The folder is not writable.
        """
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.write_text(endpoint.to_text())
            draft.replace(self._path)
        except OSError as error:
            raise HvdtoolsError(
                f"Rank 0 cannot write {self._path} to publish its address ({error.strerror}): "
                "start in a folder that all hosts share, or set HVDTOOLS_RENDEZVOUS=host:port, "
                "with the host of rank 0."
            ) from None

    def candidates(self) -> tuple[Endpoint, ...]:
        try:
            return (Endpoint.from_text(self._path.read_text()),)
        except (OSError, ValueError):
            return ()

    def clean_up(self) -> None:
        self._path.unlink(missing_ok=True)


class HostNamesOrFile(Discovery):
    """A static address where the launcher's host names resolve to it, otherwise a shared file.

    Slurm's node names may be unknown to DNS; then rank 0 notices, and writes the file.
    """

    def __init__(self, static: StaticDiscovery, file: SharedFile, own_name: str) -> None:
        self.ports, self.token = static.ports, static.token
        self._static, self._file = static, file
        self._own_name = own_name

    def publish(self, endpoint: Endpoint) -> None:
        if not self._resolves():
            self._file.publish(endpoint)

    def _resolves(self) -> bool:
        if self._own_name not in self._static.hosts:
            return LOCALHOST in self._static.hosts
        try:
            address = socket.gethostbyname(self._own_name)
        except OSError:
            return False
        # A host often resolves its own name to a loopback address, and other hosts to a real one.
        return address.startswith("127.") or interface_of(address) is not None

    def candidates(self) -> tuple[Endpoint, ...]:
        return (*self._file.candidates(), *self._static.candidates())

    def clean_up(self) -> None:
        self._file.clean_up()
