"""Where rank 0 listens, as it travels from rank 0 to the others."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Endpoint:
    """A door to rank 0's store that may be the right one.

    Attributes:
        addresses: IPv4 addresses or host names of one host, the likeliest first.
        port: Where the store listens.
        token: What tells this job from every other.
    """

    addresses: tuple[str, ...]
    port: int
    token: str

    def text(self) -> str:
        """One word without spaces or "=": PMI's wire protocol knows no quoting."""
        return f"{','.join(self.addresses)}:{self.port}:{self.token}"

    @staticmethod
    def of(text: str) -> Endpoint:
        """The offer that was written as `text`.

        Raises:
            ValueError: It is none.
        """
        addresses, port, token = text.split(":", 2)
        return Endpoint(tuple(addresses.split(",")), int(port), token)
