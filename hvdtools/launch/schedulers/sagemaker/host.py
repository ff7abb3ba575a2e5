"""What SageMaker tells a host about its job, and what each rank there is told."""

from __future__ import annotations

import json
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError
from hvdtools.launch.plan import interface_variables

# Below the ports that Linux gives out by itself, so that nothing else has it.
PORT = 29400
PATIENCE_S = 600.0
_PAUSE_S = 1.0


@dataclass(frozen=True)
class Host:
    """A host of a training job.

    Attributes:
        name: Its name on the job's network, "algo-1".
        hosts: All of them, in an order that they agree on.
        interface: The network interface between them; None if SageMaker names none.
    """

    name: str
    hosts: tuple[str, ...]
    interface: str | None

    @property
    def number(self) -> int:
        """This host among all."""
        return self.hosts.index(self.name)


def read_host(file: Path) -> Host:
    """The host of resourceconfig.json.

    Source: https://docs.aws.amazon.com/sagemaker/latest/dg/
    your-algorithms-training-algo-running-container.html

    Raises:
        HvdtoolsError: The file cannot be read, or does not say who is here.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        host = Host(
            said["current_host"], tuple(said["hosts"]), said.get("network_interface_name") or None
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise HvdtoolsError(
            f"{file} does not name the hosts of a training job ({error!r}): run this as the entry "
            "point of a SageMaker container."
        ) from None
    if host.name not in host.hosts:
        raise HvdtoolsError(f"{file} names {host.name} as this host, but not among the hosts.")
    return host


def wait_for_names(host: Host, patience_s: float = PATIENCE_S) -> None:
    """Wait until every host's name is known: hosts come up one after the other.

    Raises:
        HvdtoolsError: One is still unknown after `patience_s` seconds.
    """
    deadline = time.monotonic() + patience_s
    for name in host.hosts:
        while not _is_known(name):
            if time.monotonic() > deadline:
                raise HvdtoolsError(
                    f"The host {name} has no address after {patience_s:g} s: see in CloudWatch "
                    "whether its container started."
                )
            time.sleep(_PAUSE_S)


def _is_known(name: str) -> bool:
    try:
        socket.getaddrinfo(name, None)
    except OSError:
        return False
    return True


def variables(host: Host, ranks_per_node: int, local_rank: int) -> dict[str, str]:
    """What a rank is told: torchrun's variables, and the size that its init() then checks."""
    size = str(len(host.hosts) * ranks_per_node)
    nodes = str(len(host.hosts))
    return {
        "RANK": str(host.number * ranks_per_node + local_rank),
        "WORLD_SIZE": size,
        "LOCAL_RANK": str(local_rank),
        "LOCAL_WORLD_SIZE": str(ranks_per_node),
        "GROUP_RANK": str(host.number),
        "GROUP_WORLD_SIZE": nodes,
        "MASTER_ADDR": host.hosts[0],
        "MASTER_PORT": str(PORT),
        "HVDTOOLS_SIZE": size,
        "HVDTOOLS_NODES": nodes,
        "PYTHONUNBUFFERED": "1",
        **interface_variables(host.interface),
    }
