"""What a way for ranks to hear of rank 0 offers."""

from __future__ import annotations

from abc import ABC, abstractmethod

from hvdtools.rendezvous.endpoint import Endpoint


class Discovery(ABC):
    """A way for ranks to hear where rank 0 listens.

    Attributes:
        ports: Those that rank 0 tries to listen on, in order; (0,) for any.
        token: What tells this job from others, or None if it travels with the offer.
    """

    ports: tuple[int, ...] = (0,)
    token: str | None = None

    def publish(self, offer: Endpoint) -> None:  # noqa: B027  (some have nothing to tell)
        """Called by rank 0 once it listens."""

    @abstractmethod
    def look(self) -> tuple[Endpoint, ...]:
        """Called by every other rank, again and again: where rank 0 may be."""

    def forget(self) -> None:  # noqa: B027  (most leave nothing behind)
        """Called by rank 0 once all ranks have met."""
