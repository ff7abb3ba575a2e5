"""How ranks name what they write into the store: a folder for each start of each job."""

from __future__ import annotations

import hashlib
import time

DOOR, BOOK, ENTRY = "door", "book", "entry."
OPEN, SHUT = b"open", b"shut"


def scope_of(token: str, number: int) -> str:
    """The name of the folder. Who does not know the token cannot name it.

    Args:
        number: How many starts this process has seen, this one included: a script may
            shut Horovod down and start it again, or start it for two frameworks.
    """
    return f"hvdtools-{hashlib.sha256(token.encode()).hexdigest()[:32]}-{number}"


def wait_a_little(pause_s: float, longest_s: float) -> float:
    """Sleep, and return the next pause: short ones at first, `longest_s` at most."""
    time.sleep(pause_s)
    return min(1.4 * pause_s, longest_s)


def longest_pause_s(size: int) -> float:
    """Between two requests of a rank: all ranks together ask a thousand times a second."""
    return max(0.1, size / 1000)
