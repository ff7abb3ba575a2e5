"""Two runs of the same cases: what changed, and what is noise."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from hvdtools.bench.analysis.bootstrap import generator, resample, span_of
from hvdtools.bench.analysis.interval import LEVEL, Span
from hvdtools.bench.analysis.sides import Case, Message, Series, Side, sides_of
from hvdtools.bench.analysis.significance import tested
from hvdtools.bench.analysis.workloads import Workload
from hvdtools.bench.results.result_file import Result
from hvdtools.core.words import counted

Verdict = Literal[
    "slower", "faster", "same", "unclear", "failed", "failed in both", "only before", "only after"
]


@dataclass(frozen=True)
class Change:
    """One case before and after.

    Attributes:
        workload, ranks, nodes: Which case.
        engine: As it ran after, or before where it did not run after.
        message: Which all-reduce; None for a training or a loader, and for an
            all-reduce job that failed as a whole.
        before, after: Samples/s, for an all-reduce operations/s: median and 95 % interval.
        ratio: After over before: under 1 is slower.
        repeats_before, repeats_after: How many repeats worked.
        verdict: "slower" and "faster": the whole interval of the ratio lies beyond the
            tolerance. "same": it lies within. "unclear": neither. "failed": it worked
            before, or is new, and does not workload (replicas that differ and wrong sums
            are failures too). "only before" and "only after": there is nothing on the
            other side to compare with.
        why: What to know about the verdict, in a sentence; None where there is nothing.
    """

    workload: Workload
    engine: str
    ranks: int
    nodes: int
    message: Message | None
    before: Span | None
    after: Span | None
    ratio: Span | None
    repeats_before: int
    repeats_after: int
    verdict: Verdict
    why: str | None

    @property
    def is_regression(self) -> bool:
        """Whether a script should stop here."""
        return self.verdict in ("slower", "failed")


def compare(
    before: Sequence[Result], after: Sequence[Result], tolerance: float = 0.03
) -> list[Change]:
    """Every case of either side: those of before in their order, then what is new."""
    old, new = sides_of(before, known=after), sides_of(after, known=before)
    return [
        change
        for case in dict.fromkeys((*old, *new))
        for change in _changes(case, old.get(case), new.get(case), tolerance)
    ]


def by_chance(changes: Sequence[Change]) -> float:
    """How many verdicts of slower or faster noise alone may give at most, among so many cases."""
    return (1 - LEVEL) * sum(change.ratio is not None for change in changes)


def differing_facts(
    before: Sequence[Result], after: Sequence[Result]
) -> dict[str, tuple[str, str]]:
    """Hardware, versions and environment that are not the same: name -> (before, after)."""
    old, new = _facts(before), _facts(after)
    names = dict.fromkeys((*old, *new))
    both = {name: (old.get(name, "none"), new.get(name, "none")) for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _facts(results: Sequence[Result]) -> dict[str, str]:
    found: dict[str, dict[str, None]] = {}
    for result in results:
        for facts in (result.hardware, result.versions, result.environment):
            for name, value in facts.items():
                words = ", ".join(value) if isinstance(value, list) else str(value)
                found.setdefault(name, {})[words or "none"] = None
    return {name: " and ".join(sorted(values)) for name, values in found.items()}


def _changes(case: Case, old: Side | None, new: Side | None, tolerance: float) -> Iterator[Change]:
    """Of one case: one, or one for each message."""
    if new is not None and not new.series:
        both = old is not None and not old.series
        verdict: Verdict = "failed in both" if both else "failed"
        yield _change(case, None, old, new, None, verdict, new.reasons[0])
    elif old is not None and not old.series:
        why = f"it failed before: {old.reasons[0]}"
        yield _change(
            case, None, old, new, None, "only before" if new is None else "only after", why
        )
    else:
        series = [side.series for side in (old, new) if side is not None]
        for message in dict.fromkeys(name for each in series for name in each):
            pair = [side.series.get(message) if side else None for side in (old, new)]
            if any(each is not None and each.repeats for each in pair):
                yield _compared(case, message, old, new, tolerance)


def _compared(
    case: Case, message: Message | None, old: Side | None, new: Side | None, tolerance: float
) -> Change:
    """Of one rate that at least one side has."""
    before, after = (side.series.get(message) if side else None for side in (old, new))
    if after is None or not after.repeats:
        failed = new.reasons[0] if new is not None and new.reasons else None
        why = after.unsupported if after is not None else failed
        verdict: Verdict = "failed" if why else "only before"
        return _change(case, message, old, new, None, verdict, why)
    if before is None or not before.repeats:
        verdict = "failed" if after.wrong else "only after"
        return _change(case, message, old, new, None, verdict, after.wrong)
    ratio, verdict, why = tested(before.repeats, after.repeats, tolerance)
    if after.wrong and not before.wrong:
        return _change(case, message, old, new, ratio, "failed", after.wrong)
    notes = [note for note in (why, after.wrong, _some_failed(new)) if note]
    return _change(case, message, old, new, ratio, verdict, "; ".join(notes) or None)


def _some_failed(new: Side | None) -> str | None:
    if new is None or not new.reasons:
        return None
    return f"{counted(len(new.reasons), 'job')} failed after: {new.reasons[0]}"


def _change(
    case: Case,
    message: Message | None,
    old: Side | None,
    new: Side | None,
    ratio: Span | None,
    verdict: Verdict,
    why: str | None,
) -> Change:
    series = [None if side is None else side.series.get(message) for side in (old, new)]
    rates = [span_of(resample(s.repeats, generator())) if s and s.repeats else None for s in series]
    shown = new if new is not None and new.series else old or new
    assert shown is not None  # a case is on one side at least
    return Change(
        workload=case.workload,
        engine=shown.engine,
        ranks=case.ranks,
        nodes=case.nodes,
        message=message,
        before=rates[0],
        after=rates[1],
        ratio=ratio,
        repeats_before=_repeats(series[0]),
        repeats_after=_repeats(series[1]),
        verdict=verdict,
        why=why,
    )


def _repeats(series: Series | None) -> int:
    return 0 if series is None else len(series.repeats)
