"""This host's IPv4 addresses and interfaces, and the interface that the user names."""

from __future__ import annotations

import socket
from collections.abc import Mapping, MutableMapping

from hvdtools.core.errors import unknown_name
from hvdtools.rendezvous.protocol import LOCALHOST

GLOO_INTERFACE = "HOROVOD_GLOO_IFACE"
# Made by container engines and hypervisors; other hosts rarely reach these.
_VIRTUAL = ("docker", "veth", "br-", "virbr", "cni", "flannel", "cali", "podman", "lxc")
# Reserved for documentation (RFC 5737): its route is the default route. Nothing is sent.
_ELSEWHERE = "203.0.113.1"


def named_interface(environ: Mapping[str, str]) -> str | None:
    """The interface that the user named for Gloo, or None."""
    return environ.get(GLOO_INTERFACE) or environ.get("HVDTOOLS_INTERFACE") or None


def apply_named_interface(environ: MutableMapping[str, str]) -> None:
    """Set Gloo's and NCCL's variables from HVDTOOLS_INTERFACE; those already set stay.

    Raises:
        HvdtoolsError: This host has no such interface.
    """
    name = environ.get("HVDTOOLS_INTERFACE")
    if name:
        _require_interface("HVDTOOLS_INTERFACE", name)
        environ.setdefault(GLOO_INTERFACE, name)
        environ.setdefault("GLOO_SOCKET_IFNAME", name)
        # Without "=" NCCL takes every interface with this prefix: eth1 and eth10.
        environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")
    if environ.get(GLOO_INTERFACE):
        _require_interface(GLOO_INTERFACE, environ[GLOO_INTERFACE])


def _require_interface(variable: str, name: str) -> None:
    """Raise unless an interface called `name` is up and has an IPv4 address."""
    known = [each for each, addresses in interfaces().items() if addresses]
    if name not in known:
        kind = f"{variable} (network interface of {socket.gethostname()})"
        raise unknown_name(kind, name, known)


def interfaces() -> dict[str, list[str]]:
    """The IPv4 addresses of every interface that is up."""
    import psutil

    stats = psutil.net_if_stats()
    return {
        name: [entry.address for entry in entries if entry.family == socket.AF_INET]
        for name, entries in psutil.net_if_addrs().items()
        if name in stats and stats[name].isup
    }


def loopback() -> str | None:
    """The interface with 127.0.0.1, if it is up."""
    return interface_of(LOCALHOST)


def interface_of(address: str) -> str | None:
    """The interface with this address, or None if this host has none."""
    for name, addresses in interfaces().items():
        if address in addresses:
            return name
    return loopback() if address.startswith("127.") and address != LOCALHOST else None


def own_addresses(interface: str | None) -> tuple[str, ...]:
    """The addresses at which others may reach this host, the likeliest first.

    Args:
        interface: If given, only its address is returned.

    Returns:
        The source address of the default route, then those of physical interfaces, of
        virtual ones, and 127.0.0.1, for the ranks of this host.
    """
    found = interfaces()
    if interface is not None:
        return tuple(found[interface][:1])
    ordered = sorted(found, key=lambda name: name.startswith(_VIRTUAL))
    addresses = [address for name in ordered for address in found[name]]
    outer = [address for address in addresses if not address.startswith("127.")]
    first = [address for address in (_source_towards(_ELSEWHERE),) if address in outer]
    return tuple(dict.fromkeys([*first, *outer, LOCALHOST]))


def _source_towards(address: str) -> str | None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))  # a datagram socket only looks up the route
        except OSError:
            return None
        name: str = probe.getsockname()[0]
        return name
