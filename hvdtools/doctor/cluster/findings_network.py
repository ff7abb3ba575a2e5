"""Findings about interfaces: which of them lead from every host to every other."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from hvdtools.doctor.cluster.compare import compare, difference_in_words, listed
from hvdtools.doctor.cluster.facts import Cluster, HostFacts
from hvdtools.doctor.facts_host import Interface
from hvdtools.doctor.finding import Finding, error, ok, warning
from hvdtools.doctor.findings_network import outward_interfaces

SUBJECT = "network"
_ABSENT, _DOWN, _BARE, _UP = "absent", "down", "up without an address", "up"


def examine_network(cluster: Cluster) -> Iterator[Finding]:
    """How ranks on different hosts would reach one another."""
    if len(cluster.facts) < 2:
        return
    yield from [*_interfaces(cluster)] or [ok(SUBJECT, "the same on all hosts")]


def _interfaces(cluster: Cluster) -> Iterator[Finding]:
    if cluster.interface is not None:
        yield from _named(cluster, cluster.interface)
    elif not common_interfaces(cluster.facts):
        yield warning(
            SUBJECT,
            "no network interface is up under one name on all hosts",
            "name the interface of each kind of host to NCCL and Gloo by their own variables, and "
            "read what the all-reduce says",
        )
    names = {each.name for facts in cluster.facts.values() for each in facts.network.interfaces}
    for name in sorted(names - {cluster.interface} - twins(cluster.facts).keys()):
        yield from _one_interface(name, cluster)
    yield from _twins(cluster)


def state(facts: HostFacts, name: str) -> str:
    """An interface of a host in a word."""
    for each in facts.network.interfaces:
        if each.name == name:
            return _DOWN if not each.up else _UP if each.addresses else _BARE
    return _ABSENT


def _named(cluster: Cluster, name: str) -> Iterator[Finding]:
    """The interface that the user named must be everywhere."""
    states = {host: state(facts, name) for host, facts in cluster.facts.items()}
    lacking = {host: text for host, text in states.items() if text != _UP}
    for text, hosts in compare(lacking).groups:
        where = "all hosts" if len(hosts) == len(states) else listed(hosts)
        common = ", ".join(common_interfaces(cluster.facts)) or "one that all hosts have"
        remedy = f"bring it up on {where}, or name another ({common})"
        yield error(SUBJECT, f"--interface {name}: it is {text} on {where}", remedy)
    yield from _one_network(name, cluster)


def _one_interface(name: str, cluster: Cluster) -> Iterator[Finding]:
    """An interface that most hosts have up, and some do not."""
    states = {host: state(facts, name) for host, facts in cluster.facts.items()}
    if set(states.values()) <= {_ABSENT, _DOWN, _BARE}:
        return
    compared = compare(states)
    if compared.usual == _UP and compared.odd:
        odd = "; ".join(f"{text} on {listed(hosts)}" for text, hosts in compared.odd)
        said = f"{name} is {odd}, and up on the {len(compared.groups[0][1])} others"
        yield warning(
            SUBJECT, said, f"bring it up on {listed(compared.odd_hosts)}, or leave it out"
        )
    yield from _one_network(name, cluster)


def _one_network(name: str, cluster: Cluster) -> Iterator[Finding]:
    """An interface of one name should be in one subnet, and of one kind."""
    ups = {
        host: each
        for host, facts in cluster.facts.items()
        for each in outward_interfaces(facts.network)
        if each.name == name
    }
    subnets = compare({host: ", ".join(each.subnets) for host, each in ups.items()})
    if not subnets.agree and subnets.usual is not None:
        yield warning(
            SUBJECT,
            difference_in_words(f"{name} in", subnets),
            f"leave {name} out unless it is routed",
        )
    for what, unit, values in (
        ("MTU", "", {host: each.mtu_bytes for host, each in ups.items()}),
        ("speed", " Mbit/s", {host: each.speed_mbit_per_s for host, each in ups.items()}),
    ):
        found = compare({host: f"{value}{unit}" for host, value in values.items() if value > 0})
        if not found.agree:
            remedy = f"set one {what} for {name} on all hosts" if what == "MTU" else ""
            yield warning(SUBJECT, f"{name}: {difference_in_words(what, found)}", remedy)


def _twins(cluster: Cluster) -> Iterator[Finding]:
    """An address on several hosts, as Docker's bridge has it, leads to none of them."""
    if cluster.interface is not None:
        return
    for name, address in twins(cluster.facts).items():
        yield warning(
            SUBJECT,
            f"{name} has the address {address} on several hosts at once: it leads nowhere, and "
            "ranks may take it",
            f"start jobs with --interface {best_interface(cluster)}",
        )


def twins(facts: Mapping[str, HostFacts]) -> dict[str, str]:
    """Interface -> an address of it that several hosts have under that name."""
    places = Counter(
        (each.name, address)
        for host in facts.values()
        for each in outward_interfaces(host.network)
        for address in each.addresses
    )
    return {name: address for (name, address), count in places.items() if count > 1}


def common_interfaces(facts: Mapping[str, HostFacts]) -> list[str]:
    """Names of the interfaces that are up, have an address, and reach others, on all hosts.

    Those in one subnet on all hosts come first; one with an address that several
    hosts have is none.
    """
    each_host = [outward_interfaces(host.network) for host in facts.values()]
    found = []
    for name in {each.name: None for host in each_host for each in host}:
        ups = [each for host in each_host for each in host if each.name == name]
        if len(ups) == len(each_host) and len({each.addresses for each in ups}) == len(ups):
            found.append((not _share_subnet(ups), name))
    return [name for _, name in sorted(found, key=lambda pair: pair[0])]


def _share_subnet(interfaces: list[Interface]) -> bool:
    return bool(set.intersection(*(set(each.subnets) for each in interfaces)))


def best_interface(cluster: Cluster) -> str:
    """The interface to name for jobs: the user's, or the first that all hosts have in common."""
    if cluster.interface is not None:
        return cluster.interface
    return next(iter(common_interfaces(cluster.facts)), "NAME")
