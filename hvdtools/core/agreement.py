"""An action of every rank that fails on all of them, or on none."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from hvdtools.core.errors import HvdtoolsError

ResultT = TypeVar("ResultT")


def on_every_rank(
    action: Callable[[], ResultT],
    failed: str,
    exchange: Callable[[str | None], list[str | None]],
    past_talking: tuple[type[Exception], ...] = (),
) -> ResultT:
    """Run `action` and wait for all ranks; if it failed on one, raise the same on every rank.

    Args:
        failed: What the sentence begins with, "save() could not write model.pt".
        exchange: Gives every rank what each of them brings, in rank order.
        past_talking: Errors after which ranks cannot exchange anything.

    Raises:
        HvdtoolsError: One sentence: `failed`, then why, of the first rank that failed.
    """
    cause: Exception | None = None
    problem: str | None = None
    try:
        result = action()
    except past_talking:
        raise
    except Exception as error:  # whatever it is, the other ranks must not wait for ever
        cause, problem = error, f"{failed}: {_one_line(error)}"
    first = next((text for text in exchange(problem) if text is not None), None)
    if first is not None:
        raise HvdtoolsError(first) from cause
    return result


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__
