"""Rank 0's part of a meeting: it opens the store, waits for all ranks, or says why not."""

from __future__ import annotations

import time
from collections.abc import Sequence

from hvdtools.core.errors import HvdtoolsError
from hvdtools.rendezvous import membership
from hvdtools.rendezvous.client import Contact, probe
from hvdtools.rendezvous.membership import Member
from hvdtools.rendezvous.scope import longest_pause_s, wait_a_little
from hvdtools.rendezvous.static import HERE
from hvdtools.rendezvous.store import PortsTakenError, Store

_FAREWELL_S = 2.0


def open_store(ports: Sequence[int], scope: str) -> Store:
    """Listen on the first of `ports` that is free.

    Raises:
        HvdtoolsError: Other programs hold them, or another rank 0 of this job does.
    """
    try:
        store = Store(ports)
    except PortsTakenError as error:
        _require_no_twin(ports, scope)
        raise HvdtoolsError(
            f"Rank 0 cannot listen, since other programs do: {error}; name a free port with "
            "HVDTOOLS_RENDEZVOUS=host:port."
        ) from None
    _require_no_twin(ports[: ports.index(store.port)] if store.port in ports else (), scope)
    return store


def _require_no_twin(taken: Sequence[int], scope: str) -> None:
    for port in taken:
        if isinstance(probe(HERE, port, scope, timeout_s=0.5), Contact):
            raise HvdtoolsError(
                f"Another process on this host is rank 0 of this job, too (port {port}): two jobs "
                "are mixed up, or the script was started twice in rank 0."
            )


def gather(store: Store, scope: str, me: Member, timeout_s: float) -> list[Member]:
    """All ranks' members, in rank order.

    Raises:
        HvdtoolsError: Some are missing after `timeout_s`, or contradict each other. The
            others have been told.
    """
    end, pause_s = time.monotonic() + timeout_s, 0.002
    while True:
        members = [me, *store.entries(scope)]
        wrong = membership.what_is_wrong(members, me.size)
        if wrong is None and len(members) == me.size:
            return sorted(members, key=lambda member: member.rank)
        if wrong is None and time.monotonic() > end:
            wrong = membership.who_is_missing(members, me.size, timeout_s)
        if wrong is not None:
            raise refusal(store, scope, wrong, me.size)
        pause_s = wait_a_little(pause_s, 0.05)


def refusal(store: Store, scope: str, wrong: str, size: int) -> HvdtoolsError:
    """The error, once the others have had time to read of it.

    Some may be a moment behind: the door stays open, so that they hear the reason, too.
    """
    store.publish(scope, {"wrong": wrong}, [])
    store.open(scope)
    time.sleep(_FAREWELL_S + 2 * longest_pause_s(size))
    return HvdtoolsError(wrong)
