"""Findings about the network: how ranks of several hosts would reach one another."""

from __future__ import annotations

from collections.abc import Iterator

from hvdtools.doctor.facts import Facts
from hvdtools.doctor.facts_host import Interface, Network
from hvdtools.doctor.finding import Finding, error, ok, warning


def examine_network(facts: Facts) -> Iterator[Finding]:
    """On one machine ranks talk over the loopback interface; between hosts, over the others."""
    outward = outward_interfaces(facts.network)
    if not outward:
        message = "only the loopback interface is up: jobs stay on this machine"
        yield warning("network", message)
    elif "HOROVOD_GLOO_IFACE" not in facts.variables:
        yield from _own_name(facts.network, outward)
    yield from examine_interfaces(facts)


def examine_interfaces(facts: Facts) -> Iterator[Finding]:
    """Interfaces that variables name, and InfiniBand."""
    yield from _named(facts, outward_interfaces(facts.network))
    ports = facts.network.ports
    active = [port for port in ports if port.state == "ACTIVE"]
    if ports and not active:
        message = f"none of the {len(ports)} InfiniBand ports is active"
        yield warning("network", message, "ask who runs the network; NCCL takes TCP until then")
    if active and facts.variables.get("NCCL_IB_DISABLE", "0") != "0":
        message = "NCCL_IB_DISABLE is set, so NCCL does not use InfiniBand"
        yield warning("network", message, "unset NCCL_IB_DISABLE")


def outward_interfaces(network: Network) -> list[Interface]:
    """Interfaces that are up, have an address, and reach other hosts."""
    return [each for each in network.interfaces if each.up and each.addresses and not each.loopback]


def _named(facts: Facts, outward: list[Interface]) -> Iterator[Finding]:
    """Interfaces that the user has named."""
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
            f"NCCL_SOCKET_IFNAME={nccl} leaves NCCL no interface",
            f"let it name one of {', '.join(names)}, or unset it",
        )
    elif outward and set(left) & set(loopback) and nccl.startswith("^"):
        yield warning(
            "network",
            f"NCCL_SOCKET_IFNAME={nccl} lets NCCL take {loopback[0]}, which reaches no other host",
            f"write NCCL_SOCKET_IFNAME={nccl},{loopback[0]}",
        )


def nccl_takes(wanted: str, name: str) -> bool:
    """True if NCCL_SOCKET_IFNAME's value lets NCCL take the interface.

    Source: NCCL's "Environment Variables": a list of prefixes, "=" before it for
    whole names, "^" for all but those, "^=" for all but those whole names.
    """
    excluded = wanted.startswith("^")
    text = wanted.removeprefix("^")
    exact = text.startswith("=")
    words = [word for word in text.removeprefix("=").split(",") if word]
    named = any(name == word if exact else name.startswith(word) for word in words)
    return named != excluded


def _own_name(network: Network, outward: list[Interface]) -> Iterator[Finding]:
    """Unless an interface is named, Gloo takes the one with the host name's address.

    Source: Gloo's transport/tcp/device.cc, CreateDeviceAttr.
    """
    addresses = network.host_addresses
    names = [interface.name for interface in outward]
    # By name docker0 comes before eth0, and leads nowhere.
    chosen = network.default_route if network.default_route in names else names[0]
    remedy = f"for jobs on several hosts, set HOROVOD_GLOO_IFACE={chosen}"
    taken = gloo_interface(network)
    if not addresses:
        message = f"this host's name ({network.host_name}) has no address, so Gloo cannot use it"
        yield warning("network", message, remedy)
    elif all(text.startswith("127.") or text == "::1" for text in addresses):
        yield warning(
            "network",
            f"this host's name resolves to {addresses[0]}: between hosts Gloo would take "
            "loopback, and fail",
            remedy,
        )
    elif taken is None:
        message = f"this host's name resolves to {addresses[0]}, which no interface has"
        yield warning("network", message, remedy)
    else:
        yield ok("network", f"Gloo takes {taken} between hosts")


def gloo_interface(network: Network) -> str | None:
    """The interface that Gloo takes by itself between hosts; None if it finds none."""
    for interface in outward_interfaces(network):
        if set(interface.addresses) & set(network.host_addresses):
            return interface.name
    return None
