"""Where replicas differ, found from what all ranks hold, and said in words."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from hvdtools.core.log import ranks_in_words

REMEDY = (
    "end the job and start it from a checkpoint, and look for code that changes weights or "
    "gradients on some ranks only"
)

# place -> the ranks that differ there from most
Differences = dict[int, list[int]]


def differences(everyone: Sequence[Sequence[int]]) -> Differences:
    """{place: the ranks that differ there from most}; {} if all agree.

    Where there is no majority the ranks that differ from rank 0.

    Args:
        everyone: One number for each place, of each rank in rank order.
    """
    return {
        place: strangers
        for place, column in enumerate(zip(*everyone, strict=True))
        if (strangers := _minority(column))
    }


def _minority(column: Sequence[int]) -> list[int]:
    (value, count), *others = Counter(column).most_common()
    tie = any(other == count for _, other in others)
    usual = column[0] if tie else value
    return [rank for rank, number in enumerate(column) if number != usual]


def in_words(found: Differences, names: Sequence[str]) -> str:
    """ "rank 1 differs from the others in the weight layer2.bias (and 3 more)"."""
    first = min(found)
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    ranks = sorted({rank for strangers in found.values() for rank in strangers})
    verb = "differs" if len(ranks) == 1 else "differ"
    return f"{ranks_in_words(ranks)} {verb} from the others in {names[first]}{more}"
