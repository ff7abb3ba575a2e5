"""Network interfaces, InfiniBand ports and the name of this host."""

from __future__ import annotations

import socket
from ipaddress import ip_interface
from pathlib import Path

from hvdtools.doctor.facts import Interface, Network, Port

_INFINIBAND = Path("/sys/class/infiniband")
_ROUTES = Path("/proc/net/route")


def find_network() -> Network:
    """What the kernel and the resolver report; only resolves names, contacts no other host."""
    name = socket.gethostname()
    return Network(
        name,
        addresses_of(name),
        find_interfaces(),
        find_ports(_INFINIBAND),
        find_default_route(_ROUTES),
    )


def find_default_route(routes: Path) -> str:
    """The interface of the default route; "" if there is none.

    Source: /proc/net/route has the columns "Iface Destination Gateway ...", with addresses in
    hexadecimal; the default route has the destination 00000000.
    """
    rows = (line.split() for line in _read(routes).splitlines()[1:])
    return next((row[0] for row in rows if len(row) > 1 and row[1] == "00000000"), "")


def addresses_of(host_name: str) -> tuple[str, ...]:
    """The addresses that a name resolves to here; () if there is none."""
    try:
        found = socket.getaddrinfo(host_name, None, proto=socket.IPPROTO_TCP)
    except (OSError, UnicodeError):
        return ()
    return tuple(dict.fromkeys(str(address[0]) for *_, address in found))


def find_interfaces() -> tuple[Interface, ...]:
    """Every interface, with its addresses except link-local ones, which reach no other subnet."""
    import psutil

    kinds = (socket.AF_INET, socket.AF_INET6)
    states = psutil.net_if_stats()
    listed = psutil.net_if_addrs()
    addresses = {
        name: tuple(each.address for each in found if each.family in kinds)
        for name, found in listed.items()
    }
    return tuple(
        Interface(
            name,
            up=state.isup,
            addresses=tuple(
                text for text in addresses.get(name, ()) if not text.startswith("fe80:")
            ),
            speed_mbit_per_s=state.speed,
            mtu_bytes=state.mtu,
            subnets=tuple(
                str(ip_interface(f"{each.address}/{each.netmask}").network)
                for each in listed.get(name, ())
                if each.family == socket.AF_INET and each.netmask
            ),
        )
        for name, state in sorted(states.items())
    )


def find_ports(folder: Path) -> tuple[Port, ...]:
    """The InfiniBand ports that the kernel lists in /sys/class/infiniband.

    Source: the kernel's Documentation/ABI/stable/sysfs-class-infiniband; `state`
    reads "4: ACTIVE", `rate` "400 Gb/sec (4X NDR)".
    """
    return tuple(
        Port(
            name=f"{port.parent.parent.name}/{port.name}",
            state=_read(port / "state").partition(": ")[2],
            rate=_read(port / "rate"),
            link_layer=_read(port / "link_layer"),
        )
        for port in sorted(folder.glob("*/ports/*"))
    )


def _read(file: Path) -> str:
    try:
        return file.read_text().strip()
    except OSError:
        return ""
