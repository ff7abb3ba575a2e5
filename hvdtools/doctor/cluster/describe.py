"""From the facts of several hosts to the rows of the screen: equal facts once, then the rest."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.doctor.cluster.compare import NONE, listed, row
from hvdtools.doctor.cluster.facts import Cluster
from hvdtools.doctor.cluster.findings_hosts import CLOCKS, HOSTS, MEMORY
from hvdtools.doctor.cluster.findings_names import SUBJECT as NAMES
from hvdtools.doctor.cluster.findings_network import SUBJECT as NETWORK
from hvdtools.doctor.cluster.findings_network import common_interfaces
from hvdtools.doctor.cluster.findings_versions import FRAMEWORKS, compared

_GIB = 2**30
_ALWAYS = ("hvdtools", "Python", *FRAMEWORKS, "Horovod", "MPI", "GPUs")


def rows(cluster: Cluster) -> Iterator[tuple[str, str]]:
    """(subject, text) in the order of the screen."""
    yield HOSTS, _hosts(cluster)
    if not cluster.facts:
        return
    for subject, found in compared(cluster).items():
        if subject in _ALWAYS or not found.agree or found.usual != NONE:
            yield subject, row(found)
    if len(cluster.facts) > 1:
        yield NAMES, ""
        yield NETWORK, _network(cluster)
    yield CLOCKS, ""
    yield MEMORY, _memory(cluster)


def title(cluster: Cluster) -> str:
    """The first line: whom was asked, and how."""
    named = listed([str(each.host) for each in cluster.answers])
    slots = sum(each.host.slots for each in cluster.answers)
    way = {"ssh": "over ssh", "srun": "through srun"}[cluster.way]
    count = f"{len(cluster.answers)} host{'s' * (len(cluster.answers) != 1)}"
    return f"{count} with {slots} slots ({named}), asked from {cluster.here} {way}"


def _hosts(cluster: Cluster) -> str:
    count, answered = len(cluster.answers), len(cluster.facts)
    if answered == count:
        return f"{'all ' * (count > 1)}{count} answered"
    missing = [each.host.name for each in cluster.answers if each.facts is None]
    return f"{answered} of {count} answered; not {listed(missing)}"


def _network(cluster: Cluster) -> str:
    parts = []
    for name in common_interfaces(cluster.facts):
        subnets = {
            subnet
            for facts in cluster.facts.values()
            for each in facts.network.interfaces
            if each.name == name
            for subnet in each.subnets
        }
        where = next(iter(subnets)) if len(subnets) == 1 else f"{len(subnets)} subnets"
        parts.append(f"{name} in {where}")
    return f"on all: {', '.join(parts)}" if parts else "no interface is up on all"


def _memory(cluster: Cluster) -> str:
    memories = [facts.memory for facts in cluster.facts.values()]
    free = _range([each.available_bytes for each in memories])
    total = _range([each.total_bytes for each in memories])
    shared = _range([each.shared_free_bytes for each in memories])
    return f"{free} of {total} GiB free; /dev/shm {shared} GiB free"


def _range(values: list[int]) -> str:
    low, high = f"{min(values) / _GIB:.1f}", f"{max(values) / _GIB:.1f}"
    return low if low == high else f"{low} to {high}"
