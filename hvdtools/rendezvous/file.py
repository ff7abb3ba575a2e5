"""A file in the working folder, for ranks that have no other way to hear of rank 0."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

from hvdtools.core.errors import HvdtoolsError
from hvdtools.rendezvous.discovery import Discovery
from hvdtools.rendezvous.endpoint import Endpoint
from hvdtools.rendezvous.network import interface_of
from hvdtools.rendezvous.static import StaticDiscovery


class SharedFile(Discovery):
    """Rank 0 writes where it listens; the folder must be the same on all hosts."""

    def __init__(self, folder: Path, token: str) -> None:
        self.token = token
        digest = hashlib.sha256(token.encode()).hexdigest()[:16]
        self._path = folder / f".hvdtools-rendezvous-{digest}"

    def publish(self, offer: Endpoint) -> None:
        """Write the file.

        Raises:
            HvdtoolsError: The folder cannot be written.
        """
        draft = self._path.with_suffix(f".{os.getpid()}")
        try:
            draft.write_text(offer.text())
            draft.replace(self._path)
        except OSError as error:
            raise HvdtoolsError(
                f"Rank 0 cannot write {self._path} to tell the others where it listens "
                f"({error.strerror}): start in a folder that all hosts share, or set "
                "HVDTOOLS_RENDEZVOUS=host:port, with the host of rank 0."
            ) from None

    def look(self) -> tuple[Endpoint, ...]:
        try:
            return (Endpoint.of(self._path.read_text()),)
        except (OSError, ValueError):
            return ()

    def forget(self) -> None:
        self._path.unlink(missing_ok=True)


class NamesOrFile(Discovery):
    """A known place where the host names of the launcher lead to it, or else a shared file.

    Slurm's node names need not be known to DNS; then rank 0 notices, and writes the file.
    """

    def __init__(self, place: StaticDiscovery, file: SharedFile, own_name: str) -> None:
        self.ports, self.token = place.ports, place.token
        self._place, self._file = place, file
        self._own_name = own_name

    def publish(self, offer: Endpoint) -> None:
        if not self._is_found():
            self._file.publish(offer)

    def _is_found(self) -> bool:
        if self._own_name not in self._place.hosts:
            return "127.0.0.1" in self._place.hosts
        try:
            address = socket.gethostbyname(self._own_name)
        except OSError:
            return False
        # A host often knows itself by a loopback address, and others by a real one.
        return address.startswith("127.") or interface_of(address) is not None

    def look(self) -> tuple[Endpoint, ...]:
        return (*self._file.look(), *self._place.look())

    def forget(self) -> None:
        self._file.forget()
