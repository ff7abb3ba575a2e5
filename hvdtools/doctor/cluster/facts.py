"""What the doctor knows of several hosts, as values: from their answers or made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hvdtools.doctor.facts_host import Interface, Memory, Network, Port
from hvdtools.doctor.finding import Finding
from hvdtools.launch.hosts import Host
from hvdtools.launch.reach import Problem


@dataclass(frozen=True)
class HostFacts:
    """What a host says of itself.

    Attributes:
        versions: Subject -> a text that hosts can be compared by; what is
            not there is left out.
        usable: Framework that loads there, Horovod for it included -> the GPUs that it sees.
        nccl: True if Horovod has NCCL.
        network: Its interfaces, and the addresses of its own name.
        resolved: Name of a host -> the addresses that it has there.
        cores: CPU cores that its ranks may use.
        memory: Main memory and /dev/shm.
        clock_s: Its clock when it answered, in seconds since 1970.
        findings: What the doctor finds on that host alone, without its "ok"s.
    """

    versions: Mapping[str, str]
    usable: Mapping[str, int]
    nccl: bool
    network: Network
    resolved: Mapping[str, tuple[str, ...]]
    cores: float
    memory: Memory
    clock_s: float
    findings: tuple[Finding, ...]


@dataclass(frozen=True)
class HostAnswer:
    """A host and what came of asking it: facts or a problem.

    Attributes:
        ahead_s: By how much its clock is ahead of this machine's, to about a second.
    """

    host: Host
    facts: HostFacts | None = None
    problem: Problem | None = None
    ahead_s: float = 0.0


@dataclass(frozen=True)
class Cluster:
    """Several hosts, as one call found them.

    Attributes:
        way: How they are reached: "ssh" or "srun".
        here: This machine's name.
        versions_here: As in `HostFacts`, of what starts the ranks from here.
        answers: One for each host, in the user's order.
        interface: The network interface that the user named, or None.
    """

    way: str
    here: str
    versions_here: Mapping[str, str]
    answers: tuple[HostAnswer, ...]
    interface: str | None = None

    @property
    def facts(self) -> dict[str, HostFacts]:
        """Name -> facts of the hosts that answered."""
        return {each.host.name: each.facts for each in self.answers if each.facts}


def read_host_facts(said: Mapping[str, Any]) -> HostFacts:
    """The facts from the JSON of `dataclasses.asdict`.

    Raises:
        KeyError, TypeError: They were written by another version of hvdtools.
    """
    network = said["network"]
    return HostFacts(
        versions=dict(said["versions"]),
        usable=dict(said["usable"]),
        nccl=said["nccl"],
        network=Network(
            host_name=network["host_name"],
            host_addresses=tuple(network["host_addresses"]),
            interfaces=tuple(_interface(each) for each in network["interfaces"]),
            ports=tuple(Port(**each) for each in network["ports"]),
            default_route=network["default_route"],
        ),
        resolved={name: tuple(addresses) for name, addresses in said["resolved"].items()},
        cores=said["cores"],
        memory=Memory(**said["memory"]),
        clock_s=said["clock_s"],
        findings=tuple(Finding(**each) for each in said["findings"]),
    )


def _interface(said: Mapping[str, Any]) -> Interface:
    lists = {name: tuple(said[name]) for name in ("addresses", "subnets")}
    return Interface(**{**said, **lists})
