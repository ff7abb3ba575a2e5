"""Agreement between ranks: an action succeeds on all of them or on none; replicas stay equal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.text import ranks_text

ResultT = TypeVar("ResultT")

# index of a compared number -> the ranks where it differs from the majority
Differences = dict[int, list[int]]


def on_every_rank(
    action: Callable[[], ResultT],
    failed: str,
    exchange: Callable[[str | None], list[str | None]],
    fatal: tuple[type[Exception], ...] = (),
) -> ResultT:
    """Run `action` and wait for all ranks; if it failed on one, raise the same on every rank.

    Args:
        failed: What the message begins with, "save() could not write model.pt".
        exchange: An all-gather: returns every rank's argument, in rank order.
        fatal: Errors after which ranks can no longer communicate; raised at once.

    Raises:
        HvdtoolsError: `failed` and the reason, from the first rank that failed.
    """
    cause: Exception | None = None
    problem: str | None = None
    try:
        result = action()
    except fatal:
        raise
    except Exception as error:  # any error: the other ranks must not wait forever
        cause, problem = error, f"{failed}: {_one_line(error)}"
    first = next((text for text in exchange(problem) if text is not None), None)
    if first is not None:
        raise HvdtoolsError(first) from cause
    return result


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return " ".join(str(error).split()) or type(error).__name__


def find_differences(all_ranks: Sequence[Sequence[int]]) -> Differences:
    """{index: the ranks that differ there from the majority}; {} if all ranks agree.

    Without a majority, the ranks that differ from rank 0.

    Args:
        all_ranks: Each rank's numbers, in rank order; equally many on every rank.
    """
    return {
        index: ranks
        for index, column in enumerate(zip(*all_ranks, strict=True))
        if (ranks := _minority(column))
    }


def _minority(column: Sequence[int]) -> list[int]:
    (value, count), *others = Counter(column).most_common()
    is_tied = any(other == count for _, other in others)
    expected = column[0] if is_tied else value
    return [rank for rank, number in enumerate(column) if number != expected]


def describe_differences(differences: Differences, names: Sequence[str]) -> str:
    """ "rank 1 differs from the others in the weight layer2.bias (and 3 more)".

    Args:
        names: What each index stands for.
    """
    first = min(differences)
    more = f" (and {len(differences) - 1} more)" if len(differences) > 1 else ""
    ranks = sorted({rank for found in differences.values() for rank in found})
    verb = "differs" if len(ranks) == 1 else "differ"
    return f"{ranks_text(ranks)} {verb} from the others in {names[first]}{more}"


def divergence_error(description: str, when: str = "") -> HvdtoolsError:
    """The error for replicas that differ; `when` is "at step 300", or "" to leave it out."""
    at = f" {when}" if when else ""
    return HvdtoolsError(
        f"Replicas diverged{at}: {description}; restart the job from a checkpoint, and look for "
        "code that changes weights or gradients on some ranks only."
    )
