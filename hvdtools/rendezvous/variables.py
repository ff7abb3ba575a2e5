"""What Horovod reads: the variables of a rank's place, and the network interface."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping

from hvdtools.core.topology import MET
from hvdtools.rendezvous import network
from hvdtools.rendezvous.membership import Place

_IFACE = "HOROVOD_GLOO_IFACE"


def named_interface(environ: Mapping[str, str]) -> str | None:
    """The interface that the user named for Gloo, or None."""
    return environ.get(_IFACE) or environ.get("HVDTOOLS_INTERFACE") or None


def apply_named_interface(environ: MutableMapping[str, str]) -> None:
    """Let the one knob HVDTOOLS_INTERFACE turn Gloo's and NCCL's; what is set already stays.

    Raises:
        HvdtoolsError: This host has no such interface.
    """
    name = environ.get("HVDTOOLS_INTERFACE")
    if name:
        network.require_interface("HVDTOOLS_INTERFACE", name)
        environ.setdefault(_IFACE, name)
        environ.setdefault("GLOO_SOCKET_IFNAME", name)
        # Without "=" NCCL takes every interface whose name begins so: eth1 and eth10.
        environ.setdefault("NCCL_SOCKET_IFNAME", f"={name}")
    if environ.get(_IFACE):
        network.require_interface(_IFACE, environ[_IFACE])


def set_for_horovod(
    environ: MutableMapping[str, str], place: Place, address: str, port: int, interface: str
) -> None:
    """Tell Horovod this rank's place and where rank 0's store is.

    They stay after the start, as they do under horovodrun: Horovod reads some again for
    each process set. `read_launch_environment` knows them for ours by HVDTOOLS_MET, in this
    process and its children.
    """
    own = {
        "HOROVOD_HOSTNAME": place.hostname,
        "HOROVOD_RANK": str(place.rank),
        "HOROVOD_SIZE": str(place.size),
        "HOROVOD_LOCAL_RANK": str(place.local_rank),
        "HOROVOD_LOCAL_SIZE": str(place.local_size),
        "HOROVOD_CROSS_RANK": str(place.cross_rank),
        "HOROVOD_CROSS_SIZE": str(place.cross_size),
        "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
        "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
        "HOROVOD_CONTROLLER": "gloo",
        "HOROVOD_CPU_OPERATIONS": "gloo",
        MET: f"{address}:{port}",
    }
    environ.update(own)
    # Left to itself, Gloo takes the address of this host's own name, which may be 127.0.1.1.
    environ.setdefault(_IFACE, interface)
