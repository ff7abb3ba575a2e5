"""What a user says of a network: "100Gbit", "100Gbit,5us", "12.5GB,5us"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hvdtools.core.errors import HvdtoolsError

# Bytes a second; powers of 1000, as networks are sold. A capital B is a byte.
_BANDWIDTHS = {
    "Mbit": 1e6 / 8,
    "Gbit": 1e9 / 8,
    "Tbit": 1e12 / 8,
    "MB": 1e6,
    "GB": 1e9,
    "TB": 1e12,
}
_LATENCIES = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0}
_NUMBER = r"(\d+(?:\.\d*)?|\.\d+)"


@dataclass(frozen=True)
class Network:
    """The link of one node.

    Attributes:
        bytes_per_s: In each direction.
        latency_s: Of one message from a node to the next; None if the user left it out.
        said: As the user wrote it.
    """

    bytes_per_s: float
    latency_s: float | None
    said: str


def network_of(text: str) -> Network:
    """Read bandwidth and, after a comma, latency. "/s" behind the bandwidth may be there.

    Raises:
        HvdtoolsError: It is not that.
    """
    bandwidth, comma, latency = (part.strip() for part in text.partition(","))
    bytes_per_s = _read(bandwidth.removesuffix("/s"), _BANDWIDTHS)
    latency_s = _read(latency, _LATENCIES) if comma else None
    if not bytes_per_s or (comma and latency_s is None):
        raise HvdtoolsError(
            f"{text!r} is no network: give the bandwidth of a node's link in a second "
            f"({', '.join(_BANDWIDTHS)}) and, after a comma, its latency if you know it: "
            "100Gbit or 12.5GB,5us."
        )
    return Network(bytes_per_s, latency_s, text)


def _read(text: str, units: dict[str, float]) -> float | None:
    """A number with a unit; None if it is not that."""
    match = re.fullmatch(rf"{_NUMBER}\s*({'|'.join(units)})", text)
    return None if match is None else float(match[1]) * units[match[2]]
