"""The network that `--network` describes: "100Gbit", "100Gbit,5us", "12.5GB,5us"."""

from __future__ import annotations

import re
from dataclasses import dataclass

from hvdtools.core.errors import HvdtoolsError

# Bytes a second; powers of 1000, as vendors count. A capital B is a byte.
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
        latency_s: Of one message from a node to the next; None if it was not given.
        text: As the user wrote it.
    """

    bytes_per_s: float
    latency_s: float | None
    text: str


def parse_network(text: str) -> Network:
    """Parse a bandwidth, with or without "/s", and after a comma an optional latency.

    Raises:
        HvdtoolsError: `text` has another form, or a bandwidth of 0.
    """
    bandwidth, comma, latency = (part.strip() for part in text.partition(","))
    bytes_per_s = _parse(bandwidth.removesuffix("/s"), _BANDWIDTHS)
    latency_s = _parse(latency, _LATENCIES) if comma else None
    if not bytes_per_s or (comma and latency_s is None):
        raise HvdtoolsError(
            f"--network {text!r} is not valid: give the bandwidth of a node's link per second "
            f"({', '.join(_BANDWIDTHS)}) and, after a comma, its latency if you know it: "
            "100Gbit or 12.5GB,5us."
        )
    return Network(bytes_per_s, latency_s, text)


def _parse(text: str, units: dict[str, float]) -> float | None:
    """A number with a unit; None for anything else."""
    match = re.fullmatch(rf"{_NUMBER}\s*({'|'.join(units)})", text)
    return None if match is None else float(match[1]) * units[match[2]]
