"""What the adapter tells the person who watches the job."""

from __future__ import annotations

import logging

logger = logging.getLogger("hvdtools")

# What rank 0 logs once the first optimizer step is done; `hvdtools launch` looks for it.
FIRST_STEP = "first step done"
_stepped = False


def show(rank: int) -> None:
    """Let rank 0's notes and every rank's warnings reach stderr.

    A script that configured logging keeps its own way: nothing is added then.
    """
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("hvdtools: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False  # a script that configures logging later would say all twice
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)


def tell_first_step(rank: int) -> None:
    """Let rank 0 say once, to `hvdtools launch` and its reader, that training has begun."""
    global _stepped
    if rank == 0 and not _stepped:
        logger.info(FIRST_STEP)
    _stepped = True


def ranks_in_words(ranks: list[int]) -> str:
    """ "rank 3", "ranks 0, 2 and 3", "ranks 0, 1, 2 and 61 more"."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if len(ranks) > 8:
        return f"ranks {', '.join(map(str, ranks[:3]))} and {len(ranks) - 3} more"
    return f"ranks {', '.join(map(str, ranks[:-1]))} and {ranks[-1]}"
