"""Message sizes as people write them: "4KiB", "1KiB:1GiB"."""

from __future__ import annotations

import re

from hvdtools.core.errors import HvdtoolsError

UNITS = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}


def parse_size(text: str) -> int:
    """Bytes in "512", "512B", "4KiB", "1 GiB".

    Raises:
        HvdtoolsError: It is no whole, positive number, or the unit is unknown. KB
            is unknown too: half of its readers take it for 1000 bytes.
    """
    found = re.fullmatch(r"\s*(\d+)\s*([A-Za-z]*)\s*", text)
    unit = UNITS.get(found[2] or "B") if found else None
    if not found or unit is None or int(found[1]) == 0:
        raise HvdtoolsError(
            f"Unknown size {text!r}: write a whole number from 1 and one of {', '.join(UNITS)}, "
            "as in 4KiB."
        )
    return int(found[1]) * unit


def sizes_in(text: str, factor: int = 2) -> tuple[int, ...]:
    """Bytes in "1KiB:1GiB" (each `factor` times the one before), "4KiB,1MiB", or both kinds.

    Returns:
        In the order given; a size that comes twice is taken once.

    Raises:
        HvdtoolsError: A size is unknown, a range ends before it begins, or the
            factor is under 2.
    """
    if factor < 2:
        raise HvdtoolsError(f"The factor between sizes is {factor}: give at least 2.")
    sizes: list[int] = []
    for part in text.split(","):
        first, _, last = part.partition(":")
        size, end = parse_size(first), parse_size(last if ":" in part else first)
        if size > end:
            raise HvdtoolsError(f"The sizes {part!r} end before they begin: write small:large.")
        while size <= end:
            sizes.append(size)
            size *= factor
    return tuple(dict.fromkeys(sizes))
