"""The one knob for the network: an interface's name, for all who talk over it."""

from __future__ import annotations


def interface_variables(name: str | None) -> dict[str, str]:
    """The variables that keep ranks to a network interface; none for None."""
    if name is None:
        return {}
    return {
        "HVDTOOLS_INTERFACE": name,
        "HOROVOD_GLOO_IFACE": name,
        "GLOO_SOCKET_IFNAME": name,
        "NCCL_SOCKET_IFNAME": f"={name}",  # NCCL takes a bare name for the beginning of one
    }
