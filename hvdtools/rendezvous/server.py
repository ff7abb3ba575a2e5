"""Rank 0's part of the rendezvous: it serves a key-value store and waits for all ranks.

The store is Horovod's own, in a thread of rank 0. Horovod's C++ side asks it for the other
ranks' addresses while `hvd.init()` runs, and for every process set that is added later. A
thread ends with its process, whatever ends that, and needs no other interpreter; Horovod's
calls release Python's global lock.
"""

from __future__ import annotations

import errno
import json
import socketserver
import threading
import time
from collections.abc import Sequence
from typing import Any

from hvdtools.core.errors import HvdtoolsError
from hvdtools.rendezvous import membership
from hvdtools.rendezvous.client import Connection, probe
from hvdtools.rendezvous.membership import Member, Placement
from hvdtools.rendezvous.protocol import (
    CLOSED,
    LOCALHOST,
    MEMBER,
    MEMBERSHIP,
    OPEN,
    STATE,
    back_off,
    longest_pause_s,
)

_ERROR_LINGER_S = 2.0


class PortsTakenError(OSError):
    """Other programs hold all of the ports."""


class Store:
    """Horovod's rendezvous server, and the scopes of it in which ranks register."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Listen on the first free one of `ports`, 0 for any, on all addresses.

        Raises:
            PortsTakenError: None of them is free.
        """
        self._server = _listen(ports)
        self.port: int = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, name="hvdtools.rendezvous", daemon=True
        ).start()

    def open(self, scope: str) -> None:
        """Accept ranks that know `scope`."""
        self._put(scope, STATE, OPEN)

    def members(self, scope: str) -> list[Member]:
        """The ranks that have registered so far, in no order."""
        with self._server.cache_lock:
            found = dict(self._server.cache.get(scope, {}))
        texts = [value for key, value in found.items() if key.startswith(MEMBER)]
        return [Member(**json.loads(text)) for text in texts]

    def publish(self, scope: str, result: dict[str, Any], placements: Sequence[Placement]) -> None:
        """Publish the membership or an error, and accept no more ranks.

        Args:
            placements: All ranks', which Horovod's server needs; [] if the start failed.
        """
        # This clears the store: an earlier start may have left addresses there.
        self._server.init(placements)
        self._put(scope, MEMBERSHIP, json.dumps(result).encode())
        self._put(scope, STATE, CLOSED)

    def _put(self, scope: str, key: str, value: bytes) -> None:
        with self._server.cache_lock:
            self._server.cache.setdefault(scope, {})[key] = value


def _listen(ports: Sequence[int]) -> Any:
    # Imported here: it takes 40 ms, and only rank 0 needs it.
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class Server(RendezvousHTTPServer):  # type: ignore[misc]
        request_queue_size = 1024  # all ranks connect at once; Python's default is 5
        daemon_threads = True  # a request that hangs must not delay the end of rank 0

        def server_bind(self) -> None:
            # HTTPServer's own also asks DNS for this host's name, which can take seconds.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = "", self.server_address[1]

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A rank that disconnects early is not an error."""

    for port in ports:
        try:
            return Server(("", port), RendezvousHandler, 0)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise PortsTakenError(f"ports {', '.join(map(str, ports))} are taken")


def start_store(ports: Sequence[int], scope: str) -> Store:
    """Listen on the first free one of `ports`.

    Raises:
        HvdtoolsError: Other programs hold them, or another rank 0 of this job does.
    """
    try:
        store = Store(ports)
    except PortsTakenError as error:
        _require_no_other_rank_0(ports, scope)
        raise HvdtoolsError(
            f"Rank 0 cannot listen, since other programs do: {error}; name a free port with "
            "HVDTOOLS_RENDEZVOUS=host:port."
        ) from None
    _require_no_other_rank_0(ports[: ports.index(store.port)] if store.port in ports else (), scope)
    return store


def _require_no_other_rank_0(taken: Sequence[int], scope: str) -> None:
    for port in taken:
        if isinstance(probe(LOCALHOST, port, scope, timeout_s=0.5), Connection):
            raise HvdtoolsError(
                f"Another process on this host is also rank 0 of this job (port {port}): two jobs "
                "are mixed up, or the script was started twice in rank 0."
            )


def gather(store: Store, scope: str, own: Member, timeout_s: float) -> list[Member]:
    """Wait for all ranks; their members, in rank order.

    Raises:
        HvdtoolsError: Some are missing after `timeout_s`, or contradict each other. The
            others get the same message.
    """
    end, pause_s = time.monotonic() + timeout_s, 0.002
    while True:
        members = [own, *store.members(scope)]
        problem = membership.find_conflict(members, own.size)
        if problem is None and len(members) == own.size:
            return sorted(members, key=lambda member: member.rank)
        if problem is None and time.monotonic() > end:
            problem = membership.missing_ranks(members, own.size, timeout_s)
        if problem is not None:
            raise publish_error(store, scope, problem, own.size)
        pause_s = back_off(pause_s, 0.05)


def publish_error(store: Store, scope: str, problem: str, size: int) -> HvdtoolsError:
    """The error, once the others have had time to read it.

    Some may be a moment behind: the scope stays open, so that they get the reason, too.
    """
    store.publish(scope, {"error": problem}, [])
    store.open(scope)
    time.sleep(_ERROR_LINGER_S + 2 * longest_pause_s(size))
    return HvdtoolsError(problem)
