"""Ways that need no messenger: all ranks work out where rank 0 listens."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment
from hvdtools.rendezvous.discovery import Discovery
from hvdtools.rendezvous.endpoint import Endpoint

# Below Linux' own range for outgoing connections (from 32768), above well-known services.
_FIRST_PORT, _PORTS = 20000, 12000
_CANDIDATES = 8
HERE = "127.0.0.1"


@dataclass(frozen=True)
class StaticDiscovery(Discovery):
    """Rank 0 listens on the first of `ports` that is free, on one of `hosts`.

    Another program may hold any of the ports: the token tells which is ours.
    """

    hosts: tuple[str, ...]
    ports: tuple[int, ...]
    token: str

    def look(self) -> tuple[Endpoint, ...]:
        return tuple(Endpoint(self.hosts, port, self.token) for port in self.ports)


def given(place: str, token: str) -> StaticDiscovery:
    """The place that the user named.

    Raises:
        HvdtoolsError: It is not host:port.
    """
    host, _, port = place.rpartition(":")
    if not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise HvdtoolsError(
            f"HVDTOOLS_RENDEZVOUS is {place!r}: it must be host:port, with the host of rank 0 and "
            "a port that is free there."
        )
    return StaticDiscovery((host,), (int(port),), f"{token}@{place}")


def torchruns(environ: Mapping[str, str], token: str) -> StaticDiscovery:
    """Beside torchrun's own store, which listens on MASTER_PORT of rank 0's host.

    Raises:
        HvdtoolsError: MASTER_PORT is no port.
    """
    master, port = environ["MASTER_ADDR"], environ["MASTER_PORT"]
    if not port.isdigit() or not 0 < int(port) < 65535:
        raise HvdtoolsError(f"MASTER_PORT is {port!r}: it must be a port from 1 to 65534.")
    hosts = (HERE, master) if environ["LOCAL_WORLD_SIZE"] == environ["WORLD_SIZE"] else (master,)
    return StaticDiscovery(hosts, tuple(range(int(port) + 1, min(int(port) + 17, 65536))), token)


def slurms(environ: Mapping[str, str], token: str) -> StaticDiscovery:
    """The first node of the step, on ports that Slurm reserved or that its number gives."""
    reserved = _numbers(environ.get("SLURM_STEP_RESV_PORTS", ""))[:_CANDIDATES]
    ports = (*reserved, *computed_ports(token))
    nodes = expand(environ.get("SLURM_STEP_NODELIST", ""))
    if environ.get("SLURM_STEP_NUM_NODES") == "1":
        nodes = (HERE,)
    elif not environ.get("SLURM_DISTRIBUTION", "").startswith("arbitrary"):
        nodes = nodes[:1]  # else rank 0 may be on any
    return StaticDiscovery(nodes, ports, token)


def here(token: str) -> StaticDiscovery:
    """All ranks are on this host."""
    return StaticDiscovery((HERE,), computed_ports(token), token)


def job_token(launch_env: LaunchEnvironment, environ: Mapping[str, str]) -> str:
    """What the launcher calls this job and this start of it; "" if it has no word for that."""
    names = {
        "srun": ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT"),
        "torchrun": ("TORCHELASTIC_RUN_ID", "MASTER_PORT", "TORCHELASTIC_RESTART_COUNT"),
        "Open MPI's mpirun": ("PMIX_NAMESPACE",),
    }.get(launch_env.launcher, ())
    return ".".join(environ.get(name, "") for name in names)


def computed_ports(token: str) -> tuple[int, ...]:
    """The same few ports for all who know the token."""
    digest = hashlib.sha256(token.encode()).digest()
    pairs = [digest[2 * index : 2 * index + 2] for index in range(_CANDIDATES)]
    return tuple(_FIRST_PORT + int.from_bytes(pair, "big") % _PORTS for pair in pairs)


def _numbers(text: str) -> tuple[int, ...]:
    """ "12001-12003,12009" -> 12001, 12002, 12003, 12009."""
    runs = re.findall(r"(\d+)(?:-(\d+))?", text)
    return tuple(n for low, high in runs for n in range(int(low), int(high or low) + 1))


def expand(nodelist: str) -> tuple[str, ...]:
    """ "login,rack[1-2]n[08-09]" -> login, rack1n08, rack1n09, rack2n08, rack2n09.

    Source: Slurm's hostlist expressions, as in slurm.conf(5), "NodeName".
    """
    names: list[str] = []
    for word in re.findall(r"(?:[^,\[]|\[[^\]]*\])+", nodelist):
        found = [""]
        for plain, ranges in re.findall(r"([^\[]+)|\[([^\]]*)\]", word):
            ends = [plain] if plain else _range(ranges)
            found = [start + end for start in found for end in ends]
        names += found
    return tuple(names)


def _range(text: str) -> list[str]:
    """ "08-10,12" -> "08", "09", "10", "12": zeros in front stay."""
    runs = [part.partition("-") for part in text.split(",")]
    return [
        str(number).zfill(len(low))
        for low, _, high in runs
        for number in range(int(low), int(high or low) + 1)
    ]
