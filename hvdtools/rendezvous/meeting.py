"""One meeting of all ranks, from hearing of rank 0 to Horovod's variables."""

from __future__ import annotations

import math
import os
import secrets
from collections.abc import Mapping, MutableMapping
from dataclasses import asdict, dataclass

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment
from hvdtools.rendezvous import client
from hvdtools.rendezvous.choose import choose
from hvdtools.rendezvous.endpoint import Endpoint
from hvdtools.rendezvous.membership import (
    Place,
    address_of_rank_0,
    on_one_machine,
    places_of,
    this_member,
)
from hvdtools.rendezvous.network import interface_of, own_addresses
from hvdtools.rendezvous.scope import longest_pause_s, scope_of
from hvdtools.rendezvous.server import gather, open_store, refusal
from hvdtools.rendezvous.static import HERE, StaticDiscovery
from hvdtools.rendezvous.store import Store
from hvdtools.rendezvous.variables import named_interface, set_for_horovod

_TIMEOUT = "HVDTOOLS_RENDEZVOUS_TIMEOUT_S"


@dataclass(frozen=True)
class _Past:
    """A meeting of this process that went well; the next one needs no way to hear of rank 0.

    Attributes:
        pid: The process, since a forked child keeps this list but not the store's thread.
        offer: Where rank 0 was found.
        store: Rank 0's own, or None on other ranks.
    """

    pid: int
    offer: Endpoint
    store: Store | None


_past: list[_Past] = []


def meet(launch_env: LaunchEnvironment, environ: MutableMapping[str, str]) -> None:
    """Meet the other ranks and set Horovod's variables in `environ`.

    Every rank of the job calls it. What the user may set: HVDTOOLS_RENDEZVOUS (host:port
    of rank 0, instead of the launcher's own way), HVDTOOLS_RENDEZVOUS_TIMEOUT_S (60 by
    default), HVDTOOLS_INTERFACE.

    Raises:
        HvdtoolsError: Ranks are missing, or this is no job of `launch_env.size` ranks.
    """
    mine = [each for each in _past if each.pid == os.getpid()]
    part = _host if launch_env.rank == 0 else _join
    _past.append(part(launch_env, environ, mine[-1] if mine else None, len(mine) + 1))


def _host(
    launch_env: LaunchEnvironment,
    environ: MutableMapping[str, str],
    past: _Past | None,
    number: int,
) -> _Past:
    """Rank 0's part."""
    timeout_s = _timeout_s(environ)
    way = choose(launch_env, environ, timeout_s) if past is None else _again(past)
    token = way.token or secrets.token_hex(16)
    scope = scope_of(token, number)
    store = past.store if past is not None else None
    store = store or open_store(way.ports, scope)
    offer = Endpoint(own_addresses(named_interface(environ))[:8], store.port, token)
    store.open(scope)
    way.publish(offer)
    members = gather(store, scope, this_member(launch_env, environ, _nonce(), ""), timeout_s)
    way.forget()
    try:
        places = places_of(members)
    except ValueError as error:
        raise refusal(store, scope, str(error), launch_env.size) from None
    address = HERE if on_one_machine(members) else address_of_rank_0(members)
    book = {
        "address": address,
        "nonces": [member.nonce for member in members],
        "places": [asdict(place) for place in places],
    }
    store.publish(scope, book, places)
    set_for_horovod(environ, places[0], HERE, store.port, _interface_at(address, environ))
    return _Past(os.getpid(), offer, store)


def _join(
    launch_env: LaunchEnvironment,
    environ: MutableMapping[str, str],
    past: _Past | None,
    number: int,
) -> _Past:
    """The part of every other rank."""
    timeout_s, pause_s = _timeout_s(environ), longest_pause_s(launch_env.size)
    way = choose(launch_env, environ, timeout_s) if past is None else _again(past)
    contact, offer = client.find(way.look, number, timeout_s, pause_s)
    me = this_member(launch_env, environ, _nonce(), contact.via)
    client.introduce(contact, me)
    # Rank 0 began to wait before it let this rank in, and says so itself when it gives up.
    book = client.read_membership(contact, timeout_s + 10, pause_s)
    if "wrong" in book:
        raise HvdtoolsError(book["wrong"])
    if book["nonces"][me.rank] != me.nonce:
        raise HvdtoolsError(
            f"Another process is rank {me.rank} of this job, too: two jobs are mixed up, or the "
            "script was started twice in one rank."
        )
    # Where the connection to rank 0 left from, others reach this host as well.
    on_host_of_rank_0 = contact.own == contact.via or contact.via.startswith("127.")
    address = book["address"] if on_host_of_rank_0 else contact.own
    place = Place(**book["places"][me.rank])
    set_for_horovod(environ, place, contact.via, contact.port, _interface_at(address, environ))
    return _Past(os.getpid(), offer, None)


def _again(past: _Past) -> StaticDiscovery:
    return StaticDiscovery(past.offer.addresses, (past.offer.port,), past.offer.token)


def _interface_at(address: str | None, environ: Mapping[str, str]) -> str:
    """The interface for Gloo: the named one, or that of this host's address in the job.

    Raises:
        HvdtoolsError: `address` belongs to another host (ports of a container that are
            passed on), so nobody knows.
    """
    name = named_interface(environ) or (interface_of(address) if address else None)
    if name is None:
        raise HvdtoolsError(
            f"Other hosts reach this one at {address}, which is no address of its own: name the "
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
