"""Whether two rates differ, or only their jobs' luck."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from hvdtools.bench.analysis.bootstrap import (
    Repeat,
    generator,
    resample,
    span_of_lone_ratio,
    span_of_ratio,
)
from hvdtools.bench.analysis.interval import Span

Tested = Literal["slower", "faster", "same", "unclear"]

# With one job on either side nothing is known of how jobs differ. METHOD.md has one case on a
# shared machine that differed by 1.8 between runs minutes apart: only more than that tells.
_LONE_FACTOR = 2.0


def tested(
    before: Sequence[Repeat], after: Sequence[Repeat], tolerance: float
) -> tuple[Span, Tested, str | None]:
    """The ratio after over before with its interval, the verdict, and what to know about it.

    Args:
        before, after: Logarithms of rates, by repeat and block.
        tolerance: A ratio within 1 - tolerance and 1 + tolerance does not matter.
    """
    random = generator()
    below, above = resample(before, random), resample(after, random)
    repeats = len(after), len(before)
    if repeats == (1, 1):
        ratio = span_of_ratio(above, below)
        return ratio, *_lone_verdict(ratio)
    if 1 in repeats:
        ratio = span_of_lone_ratio(above, below, repeats, random)
    else:
        ratio = span_of_ratio(above, below)
    verdict = _verdict(ratio, tolerance)
    return ratio, verdict, _wide(ratio) if verdict == "unclear" else None


def _verdict(ratio: Span, tolerance: float) -> Tested:
    slowest, fastest = 1 - tolerance, 1 + tolerance
    if ratio.high < slowest:
        return "slower"
    if ratio.low > fastest:
        return "faster"
    return "same" if slowest <= ratio.low and ratio.high <= fastest else "unclear"


def _lone_verdict(ratio: Span) -> tuple[Tested, str]:
    """Of one job against one job, whose interval is that within the jobs."""
    if ratio.high < 1 / _LONE_FACTOR:
        return "slower", "one repeat on either side, but more than jobs differ by luck"
    if ratio.low > _LONE_FACTOR:
        return "faster", "one repeat on either side, but more than jobs differ by luck"
    return "unclear", (
        "one repeat on either side says nothing of how jobs differ by luck: "
        "run both with --repeats 3 or more"
    )


def _wide(ratio: Span) -> str:
    return (
        f"noise is wider than the tolerance, the ratio may be {ratio.low:.3f} or {ratio.high:.3f}: "
        "more repeats narrow it"
    )
