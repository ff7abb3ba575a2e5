"""Two runs of the same cases: which changes are significant, and which are noise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from hvdtools.bench.analysis.allreduce import points_of
from hvdtools.bench.analysis.bootstrap import (
    LogBlocks,
    estimate,
    estimate_ratio,
    estimate_ratio_to_single,
    generator,
    resample,
)
from hvdtools.bench.analysis.interval import LEVEL, Estimate
from hvdtools.bench.analysis.rates import log_rates
from hvdtools.bench.analysis.summary import RunSummary
from hvdtools.bench.analysis.workloads import Case, Repeats, Workload
from hvdtools.bench.results.measured import Point
from hvdtools.bench.results.result_file import Result
from hvdtools.core.text import count_noun

Significance = Literal["slower", "faster", "same", "unclear"]
Verdict = (
    Significance | Literal["failed", "failed in both", "only in baseline", "only in candidate"]
)

# One job against one does not show how equal jobs differ. METHOD.md has a case on a shared machine
# that differed by a factor of 1.8 between runs minutes apart: only more than that is significant.
_SINGLE_JOB_FACTOR = 2.0


@dataclass(frozen=True)
class Message:
    """Which all-reduce of a case."""

    message_bytes: int
    dtype: str
    tensors: int


@dataclass(frozen=True)
class Change:
    """One case in both runs.

    Attributes:
        workload, ranks, nodes: Which case.
        engine: As it ran in the candidate, or in the baseline if it failed in the candidate.
        message: Which all-reduce; None for a training or a loader, and for an all-reduce job
            that failed as a whole.
        baseline, candidate: Samples/s; for an all-reduce operations/s.
        ratio: Candidate over baseline: under 1 is slower.
        baseline_repeats, candidate_repeats: How many repeats worked.
        verdict: "slower", "faster": the whole interval of the ratio is beyond the tolerance.
            "same": it is within. "unclear": neither. "failed": it fails in the candidate and
            not in the baseline (diverged replicas and wrong sums are failures too). "only in
            baseline", "only in candidate": the other run has nothing to compare with.
        note: What to know about the verdict; None if there is nothing.
    """

    workload: Workload
    engine: str
    ranks: int
    nodes: int
    message: Message | None
    baseline: Estimate | None
    candidate: Estimate | None
    ratio: Estimate | None
    baseline_repeats: int
    candidate_repeats: int
    verdict: Verdict
    note: str | None

    @property
    def is_regression(self) -> bool:
        """Whether a script should stop here."""
        return self.verdict in ("slower", "failed")


@dataclass(frozen=True)
class Comparison:
    """A baseline and a candidate.

    Attributes:
        changes: Those of the baseline's cases in their order, then the candidate's other cases.
        common_cases: How many cases both runs have, failed ones included.
        differing: Hardware, versions and environment that differ: name -> (baseline, candidate).
    """

    changes: tuple[Change, ...]
    common_cases: int
    differing: dict[str, tuple[str, str]]

    @property
    def regressions(self) -> int:
        """How many cases became slower or failed."""
        return sum(change.is_regression for change in self.changes)

    @property
    def verdicts(self) -> Counter[Verdict]:
        """How many changes have each verdict."""
        return Counter(change.verdict for change in self.changes)

    @property
    def expected_by_chance(self) -> float:
        """How many verdicts of slower or faster noise alone gives at most."""
        return (1 - LEVEL) * sum(change.ratio is not None for change in self.changes)


@dataclass(frozen=True)
class _Rates:
    """Rates of one message, or of a whole training or loader, in one of the two runs.

    Attributes:
        log_rates: Logarithms, by repeat and block.
        wrong: What is wrong with the results; None if nothing.
        unsupported: Why the engine does not support the message; there are no rates then.
    """

    log_rates: list[LogBlocks]
    wrong: str | None = None
    unsupported: str | None = None

    @property
    def estimate(self) -> Estimate | None:
        """The rate with its interval."""
        return estimate(self.log_rates) if self.log_rates else None


class _Input:
    """A case in one of the two runs; `case` is None if that run does not have it."""

    def __init__(self, case: Case | None) -> None:
        self.case = case
        self.by_message = {} if case is None else _rates_by_message(case.repeats)
        self.failures = () if case is None else case.failures

    def rates(self, message: Message | None) -> _Rates:
        """Those of a message; without any if there are none."""
        return self.by_message.get(message, _Rates([]))

    @property
    def failed(self) -> bool:
        """Whether all of its jobs failed."""
        return self.case is not None and not self.by_message


def compare(baseline: RunSummary, candidate: RunSummary, tolerance: float = 0.03) -> Comparison:
    """Compare every case of two runs.

    A job that fails in all repeats may have its model from the other run only: analyze each
    run with `names_from` the other.

    Args:
        tolerance: A ratio between 1 - tolerance and 1 + tolerance is no change.
    """
    old, new = _cases(baseline), _cases(candidate)
    return Comparison(
        changes=tuple(
            change
            for key in dict.fromkeys((*old, *new))
            for change in _changes(_Input(old.get(key)), _Input(new.get(key)), tolerance)
        ),
        common_cases=len(old.keys() & new.keys()),
        differing=_differing(baseline.results, candidate.results),
    )


def _cases(run: RunSummary) -> dict[tuple[object, ...], Case]:
    return {
        (each.workload, *key): case for each in run.workloads for key, case in each.cases.items()
    }


def _differing(
    baseline: Sequence[Result], candidate: Sequence[Result]
) -> dict[str, tuple[str, str]]:
    old, new = _properties(baseline), _properties(candidate)
    names = dict.fromkeys((*old, *new))
    both = {name: (old.get(name, "none"), new.get(name, "none")) for name in names}
    return {name: pair for name, pair in both.items() if pair[0] != pair[1]}


def _properties(results: Sequence[Result]) -> dict[str, str]:
    found: dict[str, set[str]] = {}
    for result in results:
        for properties in (result.hardware, result.versions, result.environment):
            for name, value in properties.items():
                text = ", ".join(value) if isinstance(value, list) else str(value)
                found.setdefault(name, set()).add(text or "none")
    return {name: " and ".join(sorted(texts)) for name, texts in found.items()}


def _rates_by_message(repeats: Repeats) -> dict[Message | None, _Rates]:
    if not repeats:
        return {}
    if any(each.allreduce is None for each in repeats.values()):
        return {None: _Rates(log_rates(repeats), _diverged(repeats))}
    found: dict[Message, list[Point]] = {}
    for _, point in points_of(repeats):
        message = Message(point.message_bytes, point.dtype, point.tensors)
        found.setdefault(message, []).append(point)
    return {message: _rates_of_points(points) for message, points in found.items()}


def _diverged(repeats: Repeats) -> str | None:
    count = sum(
        each.training is not None and each.training.in_sync is False for each in repeats.values()
    )
    return f"the replicas differ in {count} of {len(repeats)} repeats" if count else None


def _rates_of_points(points: Sequence[Point]) -> _Rates:
    unsupported = (point.unsupported for point in points if point.unsupported is not None)
    elements = sum(point.wrong_elements for point in points)
    wrong = f"{elements} elements have a wrong sum" if elements else None
    # Operations/s, so that more is better as everywhere.
    rates: list[LogBlocks] = [(-np.log(point.op_s),) for point in points if point.op_s]
    return _Rates(rates, wrong, None if rates else next(unsupported, None))


def _changes(old: _Input, new: _Input, tolerance: float) -> Iterator[Change]:
    """The change of one case, or of each of its messages."""
    if new.failed:
        verdict: Verdict = "failed in both" if old.failed else "failed"
        yield _change(None, old, new, verdict, new.failures[0])
    elif old.failed:
        verdict = "only in baseline" if new.case is None else "only in candidate"
        yield _change(None, old, new, verdict, f"it failed in the baseline: {old.failures[0]}")
    else:
        for message in dict.fromkeys((*old.by_message, *new.by_message)):
            if old.rates(message).log_rates or new.rates(message).log_rates:
                yield _compare_rates(message, old, new, tolerance)


def _compare_rates(message: Message | None, old: _Input, new: _Input, tolerance: float) -> Change:
    """The change of a rate that at least one run has."""
    before, after = old.rates(message), new.rates(message)
    if not after.log_rates:
        note = after.unsupported or next(iter(new.failures), None)
        return _change(message, old, new, "failed" if note else "only in baseline", note)
    if not before.log_rates:
        verdict: Verdict = "failed" if after.wrong else "only in candidate"
        return _change(message, old, new, verdict, after.wrong)
    ratio, verdict, note = _significance(before.log_rates, after.log_rates, tolerance)
    if after.wrong and not before.wrong:
        return _change(message, old, new, "failed", after.wrong, ratio)
    notes = [each for each in (note, after.wrong, _some_failed(new.failures)) if each]
    return _change(message, old, new, verdict, "; ".join(notes) or None, ratio)


def _some_failed(failures: Sequence[str]) -> str | None:
    if not failures:
        return None
    return f"{count_noun(len(failures), 'job')} failed in the candidate: {failures[0]}"


def _change(
    message: Message | None,
    old: _Input,
    new: _Input,
    verdict: Verdict,
    note: str | None,
    ratio: Estimate | None = None,
) -> Change:
    case = new.case if new.by_message else old.case or new.case
    assert case is not None  # one run at least has it
    return Change(
        workload=case.workload,
        engine=case.engine_as_run,
        ranks=case.ranks,
        nodes=case.nodes,
        message=message,
        baseline=old.rates(message).estimate,
        candidate=new.rates(message).estimate,
        ratio=ratio,
        baseline_repeats=len(old.rates(message).log_rates),
        candidate_repeats=len(new.rates(message).log_rates),
        verdict=verdict,
        note=note,
    )


def _significance(
    baseline: Sequence[LogBlocks], candidate: Sequence[LogBlocks], tolerance: float
) -> tuple[Estimate, Significance, str | None]:
    """The ratio candidate over baseline, its verdict, and what to know about it."""
    random = generator()
    below, above = resample(baseline, random), resample(candidate, random)
    repeats = len(candidate), len(baseline)
    if repeats == (1, 1):
        ratio = estimate_ratio(above, below)
        return ratio, *_significance_of_single_jobs(ratio)
    if 1 in repeats:
        ratio = estimate_ratio_to_single(above, below, repeats, random)
    else:
        ratio = estimate_ratio(above, below)
    if ratio.high < 1 - tolerance:
        return ratio, "slower", None
    if ratio.low > 1 + tolerance:
        return ratio, "faster", None
    if 1 - tolerance <= ratio.low and ratio.high <= 1 + tolerance:
        return ratio, "same", None
    return (
        ratio,
        "unclear",
        (
            f"the noise exceeds the tolerance, the ratio is between {ratio.low:.3f} and "
            f"{ratio.high:.3f}: more repeats narrow it"
        ),
    )


def _significance_of_single_jobs(ratio: Estimate) -> tuple[Significance, str]:
    """With one job in each run, the interval covers only how blocks differ within a job."""
    beyond = "one repeat in each run, but the ratio is larger than between equal jobs"
    if ratio.high < 1 / _SINGLE_JOB_FACTOR:
        return "slower", beyond
    if ratio.low > _SINGLE_JOB_FACTOR:
        return "faster", beyond
    return "unclear", (
        "one repeat in each run does not show how equal jobs differ: run both with --repeats 3 "
        "or more"
    )
