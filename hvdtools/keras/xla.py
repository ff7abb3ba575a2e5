"""XLA has no Horovod operations: steps that use them are not compiled by it."""

from __future__ import annotations

from typing import Any

from hvdtools.core.log import logger

_told: list[bool] = []


def turn_off_xla(model: Any) -> None:
    """Let a model that was compiled with `jit_compile` train without it; said once."""
    if not model.jit_compile:
        return
    model.jit_compile = False
    if not _told:
        _told.append(True)
        logger.info("XLA is off (jit_compile=False): it has no Horovod operations")
