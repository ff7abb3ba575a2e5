"""Rank 0's key-value store: Horovod's own, in a thread of rank 0.

Horovod's C++ side asks it for the other ranks' addresses while `hvd.init()` runs, and
again for every process set that is added later. A thread dies with its process, however
that ends, and costs no start of an interpreter; Horovod's calls leave Python's lock to it.
"""

from __future__ import annotations

import errno
import json
import socketserver
import threading
from collections.abc import Sequence
from typing import Any

from hvdtools.rendezvous.membership import Member, Place
from hvdtools.rendezvous.scope import BOOK, DOOR, ENTRY, OPEN, SHUT


class PortsTakenError(OSError):
    """Other programs hold all of the ports that were to be tried."""


class Store:
    """Horovod's rendezvous server, and the scope of it in which ranks introduce themselves."""

    def __init__(self, ports: Sequence[int]) -> None:
        """Listen on the first of `ports` that is free, 0 for any, on all addresses.

        Raises:
            PortsTakenError: None of them is free.
        """
        self._server = _listen(ports)
        self.port: int = self._server.server_address[1]
        threading.Thread(
            target=self._server.serve_forever, name="hvdtools.rendezvous", daemon=True
        ).start()

    def open(self, scope: str) -> None:
        """Let ranks in that know `scope`."""
        self._put(scope, DOOR, OPEN)

    def entries(self, scope: str) -> list[Member]:
        """Who has come in so far, in no order."""
        with self._server.cache_lock:
            found = dict(self._server.cache.get(scope, {}))
        texts = [value for key, value in found.items() if key.startswith(ENTRY)]
        return [Member(**json.loads(text)) for text in texts]

    def publish(self, scope: str, book: dict[str, Any], places: Sequence[Place]) -> None:
        """Show the book and let nobody in any more.

        Args:
            places: All ranks' for the store's own bookkeeping; [] if the start failed.
        """
        # Forgets all that it holds: an earlier start may have left addresses there.
        self._server.init(places)
        self._put(scope, BOOK, json.dumps(book).encode())
        self._put(scope, DOOR, SHUT)

    def _put(self, scope: str, key: str, value: bytes) -> None:
        with self._server.cache_lock:
            self._server.cache.setdefault(scope, {})[key] = value


def _listen(ports: Sequence[int]) -> Any:
    # Imported here: it takes 40 ms, and only rank 0 needs it.
    from horovod.runner.http.http_server import RendezvousHandler, RendezvousHTTPServer

    class Server(RendezvousHTTPServer):  # type: ignore[misc]
        request_queue_size = 1024  # all ranks knock at once; Python's default is 5
        daemon_threads = True  # a request that hangs must not hold back the end of rank 0

        def server_bind(self) -> None:
            # HTTPServer's own also asks DNS for this host's name, which can take seconds.
            socketserver.TCPServer.server_bind(self)
            self.server_name, self.server_port = "", self.server_address[1]

        def handle_error(self, request: Any, client_address: Any) -> None:
            """A rank that hangs up early is no news."""

    for port in ports:
        try:
            return Server(("", port), RendezvousHandler, 0)
        except OSError as error:
            if error.errno not in (errno.EADDRINUSE, errno.EACCES):
                raise
    raise PortsTakenError(f"ports {', '.join(map(str, ports))} are taken")
