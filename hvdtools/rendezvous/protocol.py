"""The endpoint of rank 0's store, how ranks discover it, and the names of their keys in it."""

from __future__ import annotations

import hashlib
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment

LOCALHOST = "127.0.0.1"

# Keys in a scope of the store, and the values of the first.
STATE, MEMBERSHIP, MEMBER = "state", "membership", "member."
OPEN, CLOSED = b"open", b"closed"


@dataclass(frozen=True)
class Endpoint:
    """A possible address of rank 0's store.

    Attributes:
        addresses: IPv4 addresses or host names of one host, the likeliest first.
        port: The store's port.
        token: Identifies the job.
    """

    addresses: tuple[str, ...]
    port: int
    token: str

    def to_text(self) -> str:
        """One word without spaces or "=": PMI's wire protocol has no quoting."""
        return f"{','.join(self.addresses)}:{self.port}:{self.token}"

    @staticmethod
    def from_text(text: str) -> Endpoint:
        """The endpoint that `to_text` wrote.

        Raises:
            ValueError: Another text.
        """
        addresses, port, token = text.split(":", 2)
        return Endpoint(tuple(addresses.split(",")), int(port), token)


class Discovery(ABC):
    """A way for ranks to learn the address of rank 0's store.

    Attributes:
        ports: Those that rank 0 tries to listen on, in order; (0,) for any.
        token: Identifies the job; None if it is part of the published endpoint.
    """

    ports: tuple[int, ...] = (0,)
    token: str | None = None

    def publish(self, endpoint: Endpoint) -> None:  # noqa: B027  (some have nothing to publish)
        """Called by rank 0 once it listens."""

    @abstractmethod
    def candidates(self) -> tuple[Endpoint, ...]:
        """Called by every other rank, repeatedly: where rank 0 may listen."""

    def clean_up(self) -> None:  # noqa: B027  (most leave nothing behind)
        """Called by rank 0 once all ranks are registered."""


def barrier_timeout(launch_env: LaunchEnvironment, timeout_s: float) -> HvdtoolsError:
    """The error for a launcher's barrier, which does not report the missing ranks."""
    return HvdtoolsError(
        f"Not all of the {launch_env.size} ranks that {launch_env.launcher} started reached init() "
        f"within {timeout_s:g} s: check what the others do, or raise "
        "HVDTOOLS_RENDEZVOUS_TIMEOUT_S."
    )


def scope_name(token: str, start: int) -> str:
    """The scope of one start of one job; it cannot be guessed without the token.

    Args:
        start: The number of rendezvous of this process, this one included: a script may
            shut Horovod down and start it again, or start it for two frameworks.
    """
    return f"hvdtools-{hashlib.sha256(token.encode()).hexdigest()[:32]}-{start}"


def back_off(pause_s: float, longest_s: float) -> float:
    """Sleep, and return the next pause: short ones at first, `longest_s` at most."""
    time.sleep(pause_s)
    return min(1.4 * pause_s, longest_s)


def longest_pause_s(size: int) -> float:
    """Between two requests of a rank: all ranks together make a thousand a second."""
    return max(0.1, size / 1000)
