"""The logger of the adapters, and the line that tells `hvdtools launch` of the first step."""

from __future__ import annotations

import logging

logger = logging.getLogger("hvdtools")

# Rank 0 logs this after its first optimizer step; `hvdtools launch` waits for it.
FIRST_STEP = "first step done"
_first_step_logged = False


def configure(rank: int) -> None:
    """Show rank 0's notes and every rank's warnings on stderr.

    Nothing is added where the script has configured logging itself.
    """
    if logger.hasHandlers():
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("hvdtools: %(message)s"))
    logger.addHandler(handler)
    logger.propagate = False  # otherwise a script that configures logging later prints all twice
    logger.setLevel(logging.INFO if rank == 0 else logging.WARNING)


def log_first_step(rank: int) -> None:
    """Let rank 0 log once, for `hvdtools launch` and its user, that training has begun."""
    global _first_step_logged
    if rank == 0 and not _first_step_logged:
        logger.info(FIRST_STEP)
    _first_step_logged = True
