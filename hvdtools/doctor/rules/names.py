"""Host names: what each host resolves its own name and the others to."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.doctor.compare import compare, listed
from hvdtools.doctor.facts import ClusterFacts, HostFacts
from hvdtools.doctor.findings import Finding, error, ok, warning
from hvdtools.doctor.rules.network import best_interface, is_loopback

_UNKNOWN = "unknown"


def names(cluster: ClusterFacts) -> Iterator[Finding]:
    """The name of each host resolves to that host, on every host."""
    if len(cluster.facts) < 2:
        return
    own = list(_own_names(cluster))
    elsewhere = [each for target in cluster.facts for each in _name_elsewhere(target, cluster)]
    yield from [*own, *elsewhere] or [ok("names", "each resolves to its host on every host")]


def _own_names(cluster: ClusterFacts) -> Iterator[Finding]:
    """What each host resolves its own name to; by default Gloo listens at that address."""
    if cluster.interface is not None:
        return
    found = {name: _own_address(facts) for name, facts in cluster.facts.items()}
    for text, hosts in compare({name: text for name, text in found.items() if text}).groups:
        yield warning(
            "names",
            f"on {listed(hosts)} the host's own name {text}, so other hosts cannot reach its ranks",
            f"map its name to its address in /etc/hosts on {listed(hosts)}, or start jobs with "
            f"--interface {best_interface(cluster)}",
        )


def _own_address(facts: HostFacts) -> str:
    """What is wrong with the address of the host's own name, "" if nothing."""
    addresses = facts.network.host_addresses
    if not addresses:
        return "has no address"
    if not any(map(is_loopback, addresses)):
        return ""
    return f"resolves to {addresses[0]} (loopback)"


def _name_elsewhere(target: str, cluster: ClusterFacts) -> Iterator[Finding]:
    """What the other hosts resolve the name of a host to."""
    name = target.rpartition("@")[2]
    owned = {each for one in cluster.facts[target].network.interfaces for each in one.addresses}
    seen = {
        host: facts.resolved.get(name, ())
        for host, facts in cluster.facts.items()
        if host != target
    }
    if not any(seen.values()):
        return  # a name that only the ssh configuration knows
    wrong = {host: _wrong_address(addresses, owned) for host, addresses in seen.items()}
    for text, hosts in compare({host: text for host, text in wrong.items() if text}).groups:
        line = f"{_address_between(cluster, target)} {name}"
        verb = "resolves" if len(hosts) == 1 else "resolve"
        found = f"cannot resolve {name}" if text == _UNKNOWN else f"{verb} {name} to {text}"
        remedy = f"put `{line}` into /etc/hosts on {listed(hosts)}, or fix DNS"
        # Launchers use the address that the starting machine sees; ranks announce their own.
        yield (warning if text == _UNKNOWN else error)("names", f"{listed(hosts)} {found}", remedy)


def _wrong_address(addresses: tuple[str, ...], owned: set[str]) -> str:
    if not addresses:
        return _UNKNOWN
    if any(map(is_loopback, addresses)):
        return f"{addresses[0]}, which is loopback"
    if owned and not owned & set(addresses):
        return f"{addresses[0]}, which that host does not have"
    return ""


def _address_between(cluster: ClusterFacts, target: str) -> str:
    name = best_interface(cluster)
    found = [each for each in cluster.facts[target].network.interfaces if each.name == name]
    return found[0].addresses[0] if found and found[0].addresses else "its address"


RULES = (names,)
