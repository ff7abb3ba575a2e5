"""The rendezvous of all ranks, and the variables that Horovod's Gloo reads after it."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import RENDEZVOUS_MARK, LaunchEnvironment
from hvdtools.rendezvous import client, pmi, pmix, static
from hvdtools.rendezvous.membership import (
    Placement,
    address_of_rank_0,
    on_one_machine,
    own_member,
    place_ranks,
)
from hvdtools.rendezvous.network import (
    GLOO_INTERFACE,
    interface_of,
    loopback,
    named_interface,
    own_addresses,
)
from hvdtools.rendezvous.protocol import (
    LOCALHOST,
    Discovery,
    Endpoint,
    longest_pause_s,
    scope_name,
)
from hvdtools.rendezvous.server import Store, gather, publish_error, start_store

_TIMEOUT = "HVDTOOLS_RENDEZVOUS_TIMEOUT_S"


@dataclass(frozen=True)
class _Completed:
    """An earlier rendezvous of this process; the next one uses its endpoint again.

    Attributes:
        pid: The process, since a forked child keeps this list but not the store's thread.
        store: Rank 0's own, or None on other ranks.
    """

    pid: int
    endpoint: Endpoint
    store: Store | None


_completed: list[_Completed] = []


def prepare_gloo(launch_env: LaunchEnvironment, environ: MutableMapping[str, str]) -> None:
    """Set all that Gloo reads from `environ`, after a rendezvous if the launcher provides none.

    Every rank of the job calls it. The user may set HVDTOOLS_RENDEZVOUS (host:port of rank 0,
    instead of the launcher's own way), HVDTOOLS_RENDEZVOUS_TIMEOUT_S (60 by default), and
    HVDTOOLS_INTERFACE.

    Raises:
        HvdtoolsError: Ranks are missing, or this is not a job of `launch_env.size` ranks.
    """
    environ.setdefault("HOROVOD_CONTROLLER", "gloo")
    if environ.get("HOROVOD_CPU_OPERATIONS", "mpi").lower() == "mpi":
        # Horovod would call an MPI that was never started, and abort.
        environ["HOROVOD_CPU_OPERATIONS"] = "gloo"
    if launch_env.size > 1 and not launch_env.provides_rendezvous:
        earlier = [each for each in _completed if each.pid == os.getpid()]
        run = _serve if launch_env.rank == 0 else _join
        last = earlier[-1] if earlier else None
        _completed.append(run(launch_env, environ, last, len(earlier) + 1))
    interface = loopback() if launch_env.size == 1 else None
    if interface is not None:
        # Otherwise Gloo resolves this host's name, which fails on some hosts.
        environ.setdefault(GLOO_INTERFACE, interface)


def _serve(
    launch_env: LaunchEnvironment,
    environ: MutableMapping[str, str],
    last: _Completed | None,
    start: int,
) -> _Completed:
    """Rank 0's part."""
    timeout_s = _timeout_s(environ)
    discovery = _discovery(launch_env, environ, last, timeout_s)
    token = discovery.token or secrets.token_hex(16)
    scope = scope_name(token, start)
    store = last.store if last is not None else None
    store = store or start_store(discovery.ports, scope)
    endpoint = Endpoint(own_addresses(named_interface(environ))[:8], store.port, token)
    store.open(scope)
    discovery.publish(endpoint)
    members = gather(store, scope, own_member(launch_env, environ, _nonce(), ""), timeout_s)
    discovery.clean_up()
    try:
        placements = place_ranks(members)
    except ValueError as error:
        raise publish_error(store, scope, str(error), launch_env.size) from None
    address = LOCALHOST if on_one_machine(members) else address_of_rank_0(members)
    membership = {
        "address": address,
        "nonces": [member.nonce for member in members],
        "placements": [asdict(placement) for placement in placements],
    }
    store.publish(scope, membership, placements)
    interface = _interface_at(address, environ)
    _set_variables(environ, placements[0], LOCALHOST, store.port, interface)
    return _Completed(os.getpid(), endpoint, store)


def _join(
    launch_env: LaunchEnvironment,
    environ: MutableMapping[str, str],
    last: _Completed | None,
    start: int,
) -> _Completed:
    """The part of every other rank."""
    timeout_s, pause_s = _timeout_s(environ), longest_pause_s(launch_env.size)
    discovery = _discovery(launch_env, environ, last, timeout_s)
    connection, endpoint = client.connect(discovery.candidates, start, timeout_s, pause_s)
    own = own_member(launch_env, environ, _nonce(), connection.via)
    client.register(connection, own)
    # Rank 0 began to wait before it accepted this rank, and reports its own timeout.
    membership = client.wait_for_membership(connection, timeout_s + 10, pause_s)
    if "error" in membership:
        raise HvdtoolsError(membership["error"])
    if membership["nonces"][own.rank] != own.nonce:
        raise HvdtoolsError(
            f"Another process is also rank {own.rank} of this job: two jobs are mixed up, or the "
            "script was started twice in one rank."
        )
    # Other hosts reach this one at the source address of its connection to rank 0.
    on_host_of_rank_0 = connection.source == connection.via or connection.via.startswith("127.")
    address = membership["address"] if on_host_of_rank_0 else connection.source
    placement = Placement(**membership["placements"][own.rank])
    interface = _interface_at(address, environ)
    _set_variables(environ, placement, connection.via, connection.port, interface)
    return _Completed(os.getpid(), endpoint, None)


def _discovery(
    launch_env: LaunchEnvironment,
    environ: Mapping[str, str],
    last: _Completed | None,
    timeout_s: float,
) -> Discovery:
    if last is None:
        return choose_discovery(launch_env, environ, timeout_s)
    return static.StaticDiscovery(
        last.endpoint.addresses, (last.endpoint.port,), last.endpoint.token
    )


def choose_discovery(
    launch_env: LaunchEnvironment, environ: Mapping[str, str], timeout_s: float
) -> Discovery:
    """The first discovery that works in this job; every rank chooses the same.

    The user's address comes first, then a channel of the launcher (it needs no host
    names), then an address that every rank can compute.

    Raises:
        HvdtoolsError: None works.
    """
    token = static.job_token(launch_env, environ)
    if "HVDTOOLS_RENDEZVOUS" in environ:
        return static.from_user(environ["HVDTOOLS_RENDEZVOUS"], token)
    if launch_env.launcher == "torchrun":
        return static.from_torchrun(environ, token)
    if pmi.is_available(environ):
        return pmi.Pmi(launch_env, environ, timeout_s)
    if "PMIX_NAMESPACE" in environ:
        library = pmix.find_library(environ)
        if library is not None:
            return pmix.Pmix(library, launch_env, timeout_s)
    if launch_env.launcher == "srun":
        file = static.SharedFile(Path.cwd(), token)
        own_name = environ.get("SLURMD_NODENAME", "")
        return static.HostNamesOrFile(static.from_slurm(environ, token), file, own_name)
    if not token:
        raise HvdtoolsError(
            f"{launch_env.launcher} started {launch_env.size} ranks, and a program between it and "
            "Python has closed the connection through which they find each other: set "
            "HVDTOOLS_RENDEZVOUS=host:port, with the host of rank 0."
        )
    if launch_env.local_size == launch_env.size:
        return static.on_this_host(token)
    return static.SharedFile(Path.cwd(), token)


def _set_variables(
    environ: MutableMapping[str, str],
    placement: Placement,
    address: str,
    port: int,
    interface: str,
) -> None:
    """Tell Horovod this rank's placement and the address of rank 0's store.

    The variables stay after the start, as under horovodrun: Horovod reads some again for
    each process set. RENDEZVOUS_MARK tells `read_launch_environment`, in this process and
    its children, that they are not horovodrun's.
    """
    environ.update(
        {
            "HOROVOD_HOSTNAME": placement.hostname,
            "HOROVOD_RANK": str(placement.rank),
            "HOROVOD_SIZE": str(placement.size),
            "HOROVOD_LOCAL_RANK": str(placement.local_rank),
            "HOROVOD_LOCAL_SIZE": str(placement.local_size),
            "HOROVOD_CROSS_RANK": str(placement.cross_rank),
            "HOROVOD_CROSS_SIZE": str(placement.cross_size),
            "HOROVOD_GLOO_RENDEZVOUS_ADDR": address,
            "HOROVOD_GLOO_RENDEZVOUS_PORT": str(port),
            "HOROVOD_CONTROLLER": "gloo",
            "HOROVOD_CPU_OPERATIONS": "gloo",
            RENDEZVOUS_MARK: f"{address}:{port}",
        }
    )
    # Otherwise Gloo takes the address of this host's name, which may be 127.0.1.1.
    environ.setdefault(GLOO_INTERFACE, interface)


def _interface_at(address: str | None, environ: Mapping[str, str]) -> str:
    """The interface for Gloo: the named one, or that of this host's address in the job.

    Raises:
        HvdtoolsError: `address` belongs to another host, as with forwarded ports of a
            container, so the interface is unknown.
    """
    name = named_interface(environ) or (interface_of(address) if address else None)
    if name is None:
        raise HvdtoolsError(
            f"Other hosts reach this one at {address}, which none of its interfaces has: name the "
            "network interface between the hosts with HVDTOOLS_INTERFACE."
        )
    return name


def _nonce() -> str:
    return secrets.token_hex(8)


def _timeout_s(environ: Mapping[str, str]) -> float:
    text = environ.get(_TIMEOUT, "60")
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value > 0 and math.isfinite(value)):
        raise HvdtoolsError(f"{_TIMEOUT} is {text!r}: it must be a number of seconds above 0.")
    return value
