"""This host's addresses and interfaces. IPv4, as Horovod's store is reached by it."""

from __future__ import annotations

import socket

from hvdtools.core.errors import unknown_name

# What container engines and hypervisors make; other hosts hardly ever reach these.
_VIRTUAL = ("docker", "veth", "br-", "virbr", "cni", "flannel", "cali", "podman", "lxc")
# Reserved for documentation (RFC 5737): the way there is the default route. Nothing is sent.
_ELSEWHERE = "203.0.113.1"


def interfaces() -> dict[str, list[str]]:
    """The IPv4 addresses of every interface that is up."""
    import psutil

    stats = psutil.net_if_stats()
    return {
        name: [entry.address for entry in entries if entry.family == socket.AF_INET]
        for name, entries in psutil.net_if_addrs().items()
        if name in stats and stats[name].isup
    }


def require_interface(variable: str, name: str) -> None:
    """Raise if no interface that is up and has an IPv4 address is called `name`.

    Args:
        variable: The environment variable that names it.
    """
    known = [each for each, addresses in interfaces().items() if addresses]
    if name not in known:
        kind = f"{variable} (network interface of {socket.gethostname()})"
        raise unknown_name(kind, name, known)


def loopback() -> str | None:
    """The name of the interface of 127.0.0.1, where it is up."""
    return interface_of("127.0.0.1")


def interface_of(address: str) -> str | None:
    """The interface that has this address, or None if no own one does."""
    for name, addresses in interfaces().items():
        if address in addresses:
            return name
    return loopback() if address.startswith("127.") and address != "127.0.0.1" else None


def own_addresses(interface: str | None) -> tuple[str, ...]:
    """The addresses at which others may reach this host, the likeliest first.

    Args:
        interface: If named, its address alone.

    Returns:
        That towards the default route, then those of real interfaces, of virtual
        ones, and 127.0.0.1, which serves the ranks of this host.
    """
    found = interfaces()
    if interface is not None:
        return tuple(found[interface][:1])
    ordered = sorted(found, key=lambda name: name.startswith(_VIRTUAL))
    addresses = [address for name in ordered for address in found[name]]
    outer = [address for address in addresses if not address.startswith("127.")]
    first = [address for address in (_source_towards(_ELSEWHERE),) if address in outer]
    return tuple(dict.fromkeys([*first, *outer, "127.0.0.1"]))


def _source_towards(address: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # a datagram socket only looks up the route
        except OSError:
            return None
        name: str = probe.getsockname()[0]
        return name
