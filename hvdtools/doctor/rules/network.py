"""The network: interfaces of a host, and those that connect all hosts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from hvdtools.doctor.compare import compare, difference, listed
from hvdtools.doctor.facts import ClusterFacts, HostFacts, Interface, Network
from hvdtools.doctor.findings import Finding, error, ok, warning


def infiniband(facts: HostFacts) -> Iterator[Finding]:
    """InfiniBand is active and not turned off."""
    ports = facts.network.ports
    active = [port for port in ports if port.state == "ACTIVE"]
    if ports and not active:
        message = f"none of the {len(ports)} InfiniBand ports is active"
        yield warning("network", message, "ask the network administrator; NCCL uses TCP until then")
    if active and facts.variables.get("NCCL_IB_DISABLE", "0") != "0":
        message = "NCCL_IB_DISABLE is set, so NCCL does not use InfiniBand"
        yield warning("network", message, "unset NCCL_IB_DISABLE")


def outward_interfaces(network: Network) -> list[Interface]:
    """Interfaces that are up, have an address, and reach other hosts."""
    return [each for each in network.interfaces if each.up and each.addresses and not each.loopback]


def interface_variables(facts: HostFacts) -> Iterator[Finding]:
    """Environment variables name interfaces that are up."""
    outward = outward_interfaces(facts.network)
    names = [each.name for each in facts.network.interfaces if each.up and each.addresses]
    gloo = facts.variables.get("HOROVOD_GLOO_IFACE")
    if gloo is not None and gloo not in names:
        yield error(
            "network",
            f"HOROVOD_GLOO_IFACE={gloo} names no interface that is up and has an address",
            f"set it to one of {', '.join(names)}, or unset it",
        )
    nccl = facts.variables.get("NCCL_SOCKET_IFNAME")
    if nccl is None:
        return
    left = [name for name in names if nccl_takes(nccl, name)]
    loopback = [each.name for each in facts.network.interfaces if each.loopback]
    if not left:
        yield error(
            "network",
            f"NCCL_SOCKET_IFNAME={nccl} matches no interface that is up and has an address",
            f"set it to one of {', '.join(names)}, or unset it",
        )
    elif outward and set(left) & set(loopback) and nccl.startswith("^"):
        yield warning(
            "network",
            f"NCCL_SOCKET_IFNAME={nccl} allows {loopback[0]}, which reaches no other host",
            f"set NCCL_SOCKET_IFNAME={nccl},{loopback[0]}",
        )


def nccl_takes(wanted: str, name: str) -> bool:
    """True if this value of NCCL_SOCKET_IFNAME allows NCCL to use the interface.

    Source: NCCL's "Environment Variables": a list of prefixes, "=" before it for
    whole names, "^" for all but those, "^=" for all but those whole names.
    """
    excluded = wanted.startswith("^")
    text = wanted.removeprefix("^")
    exact = text.startswith("=")
    words = [word for word in text.removeprefix("=").split(",") if word]
    named = any(name == word if exact else name.startswith(word) for word in words)
    return named != excluded


def own_name(facts: HostFacts) -> Iterator[Finding]:
    """Gloo can use the interface that the host name resolves to, or another is named.

    Source: Gloo's transport/tcp/device.cc, CreateDeviceAttr.
    """
    network = facts.network
    outward = outward_interfaces(network)
    if not outward:
        message = "only the loopback interface is up: jobs stay on this machine"
        yield warning("network", message)
    if not outward or "HOROVOD_GLOO_IFACE" in facts.variables:
        return
    addresses = network.host_addresses
    names = [interface.name for interface in outward]
    # docker0 sorts before eth0, and reaches no other host.
    chosen = network.default_route if network.default_route in names else names[0]
    remedy = f"for jobs on several hosts, set HOROVOD_GLOO_IFACE={chosen}"
    taken = gloo_interface(network)
    if not addresses:
        message = f"this host's name ({network.host_name}) has no address, so Gloo cannot use it"
        yield warning("network", message, remedy)
    elif all(map(is_loopback, addresses)):
        yield warning(
            "network",
            f"this host's name resolves to {addresses[0]}: between hosts Gloo would use "
            "loopback, and fail",
            remedy,
        )
    elif taken is None:
        message = f"this host's name resolves to {addresses[0]}, which no interface has"
        yield warning("network", message, remedy)
    else:
        yield ok("network", f"Gloo uses {taken} between hosts")


def is_loopback(address: str) -> bool:
    """True for 127.0.0.1, Debian's 127.0.1.1 and ::1."""
    return ip_address(address.partition("%")[0]).is_loopback


def gloo_interface(network: Network) -> str | None:
    """The interface that Gloo chooses between hosts by default; None if it finds none."""
    for interface in outward_interfaces(network):
        if set(interface.addresses) & set(network.host_addresses):
            return interface.name
    return None


RULES = (own_name, interface_variables, infiniband)

# Between hosts

_ABSENT, _DOWN, _BARE, _UP = "absent", "down", "up without an address", "up"


def interfaces(cluster: ClusterFacts) -> Iterator[Finding]:
    """Ranks on different hosts reach one another over the same interface everywhere."""
    if len(cluster.facts) < 2:
        return
    yield from [*_interfaces(cluster)] or [ok("network", "the same on all hosts")]


def _interfaces(cluster: ClusterFacts) -> Iterator[Finding]:
    if cluster.interface is not None:
        yield from _named(cluster, cluster.interface)
    elif not common_interfaces(cluster.facts):
        yield warning(
            "network",
            "no network interface is up under one name on all hosts",
            "set NCCL_SOCKET_IFNAME and HOROVOD_GLOO_IFACE for each kind of host, and check the "
            "result of the all-reduce",
        )
    names = {each.name for facts in cluster.facts.values() for each in facts.network.interfaces}
    for name in sorted(names - {cluster.interface} - duplicate_addresses(cluster.facts).keys()):
        yield from _one_interface(name, cluster)
    yield from _duplicate_addresses(cluster)


def state(facts: HostFacts, name: str) -> str:
    """The state of an interface: "absent", "down", "up without an address" or "up"."""
    for each in facts.network.interfaces:
        if each.name == name:
            return _DOWN if not each.up else _UP if each.addresses else _BARE
    return _ABSENT


def _named(cluster: ClusterFacts, name: str) -> Iterator[Finding]:
    """The interface that the user named must be up on all hosts."""
    states = {host: state(facts, name) for host, facts in cluster.facts.items()}
    lacking = {host: text for host, text in states.items() if text != _UP}
    for text, hosts in compare(lacking).groups:
        where = "all hosts" if len(hosts) == len(states) else listed(hosts)
        common = ", ".join(common_interfaces(cluster.facts)) or "one that all hosts have"
        remedy = f"bring it up on {where}, or name another ({common})"
        yield error("network", f"--interface {name}: it is {text} on {where}", remedy)
    yield from _one_network(name, cluster)


def _one_interface(name: str, cluster: ClusterFacts) -> Iterator[Finding]:
    """An interface that is up on most hosts, and not on some."""
    states = {host: state(facts, name) for host, facts in cluster.facts.items()}
    if set(states.values()) <= {_ABSENT, _DOWN, _BARE}:
        return
    compared = compare(states)
    if compared.usual == _UP and compared.outliers:
        outliers = "; ".join(f"{text} on {listed(hosts)}" for text, hosts in compared.outliers)
        said = f"{name} is {outliers}, and up on the {len(compared.groups[0][1])} others"
        yield warning(
            "network", said, f"bring it up on {listed(compared.outlier_hosts)}, or leave it out"
        )
    yield from _one_network(name, cluster)


def _one_network(name: str, cluster: ClusterFacts) -> Iterator[Finding]:
    """Interfaces of one name should share subnet, MTU and speed."""
    ups = {
        host: each
        for host, facts in cluster.facts.items()
        for each in outward_interfaces(facts.network)
        if each.name == name
    }
    subnets = compare({host: ", ".join(each.subnets) for host, each in ups.items()})
    if not subnets.agree and subnets.usual is not None:
        yield warning(
            "network",
            difference(f"{name} in", subnets),
            f"leave {name} out unless it is routed",
        )
    for what, unit, values in (
        ("MTU", "", {host: each.mtu_bytes for host, each in ups.items()}),
        ("speed", " Mbit/s", {host: each.speed_mbit_per_s for host, each in ups.items()}),
    ):
        found = compare({host: f"{value}{unit}" for host, value in values.items() if value > 0})
        if not found.agree:
            remedy = f"set the same {what} for {name} on all hosts" if what == "MTU" else ""
            yield warning("network", f"{name}: {difference(what, found)}", remedy)


def _duplicate_addresses(cluster: ClusterFacts) -> Iterator[Finding]:
    """An address that several hosts have, as with the bridge of Docker, reaches none of them."""
    if cluster.interface is not None:
        return
    for name, address in duplicate_addresses(cluster.facts).items():
        yield warning(
            "network",
            f"{name} has the address {address} on several hosts: it reaches no other host, "
            "but ranks may use it",
            f"start jobs with --interface {best_interface(cluster)}",
        )


def duplicate_addresses(facts: Mapping[str, HostFacts]) -> dict[str, str]:
    """Interface -> an address of it that several hosts have under that name."""
    places = Counter(
        (each.name, address)
        for host in facts.values()
        for each in outward_interfaces(host.network)
        for address in each.addresses
    )
    return {name: address for (name, address), count in places.items() if count > 1}


def common_interfaces(facts: Mapping[str, HostFacts]) -> list[str]:
    """Names of the interfaces that are up, have an address and are not loopback on all hosts.

    Those in one subnet on all hosts come first. Interfaces with an address that several hosts
    have do not count.
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


def best_interface(cluster: ClusterFacts) -> str:
    """The interface to recommend for jobs: the user's, or the first that all hosts share."""
    if cluster.interface is not None:
        return cluster.interface
    return next(iter(common_interfaces(cluster.facts)), "NAME")


CLUSTER_RULES = (interfaces,)
