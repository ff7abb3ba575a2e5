"""Comparing two runs: changes are found, noise is not, and no failure is overlooked."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest
from bench_examples import allreduce_result, failed, loader_result, training_result
from rich.console import Console

from hvdtools.bench.analysis import comparison
from hvdtools.bench.analysis.comparison import Change, Comparison
from hvdtools.bench.analysis.summary import analyze
from hvdtools.bench.report.console import print_comparison
from hvdtools.bench.results.measured import Point
from hvdtools.bench.results.result_file import Result

BLOCKS = 8


def run(
    seconds: float,
    repeats: int,
    random: np.random.Generator,
    *,
    job_noise: float = 0.02,
    block_noise: float = 0.01,
) -> list[Result]:
    """One case of a run: each job has its own noise, and its blocks vary around it."""
    results = []
    for repeat in range(1, repeats + 1):
        job = job_noise * random.standard_normal()
        noise = job + block_noise * random.standard_normal(BLOCKS)
        results.append(training_result("ddp", 2, repeat, seconds * np.exp(noise)))
    return results


def steady(seconds: float, repeats: int = 3) -> list[Result]:
    """Repeats and blocks that differ by at most 0.2 %."""
    wave = 1 + 0.002 * np.sin(np.arange(BLOCKS))
    return [
        training_result("ddp", 2, repeat, seconds * (1 + 0.002 * (repeat % 2)) * wave)
        for repeat in range(1, repeats + 1)
    ]


def compare(
    baseline: Sequence[Result], candidate: Sequence[Result], tolerance: float = 0.03
) -> Comparison:
    return comparison.compare(
        analyze(baseline, names_from=candidate), analyze(candidate, names_from=baseline), tolerance
    )


def only(before: Sequence[Result], after: Sequence[Result], tolerance: float = 0.03) -> Change:
    (change,) = compare(before, after, tolerance).changes
    return change


def test_slower_faster_and_same() -> None:
    slower = only(steady(1.0), steady(1.1))
    assert slower.verdict == "slower" and slower.is_regression
    assert slower.ratio is not None and slower.ratio.value == pytest.approx(1 / 1.1, rel=1e-3)
    assert slower.baseline is not None and slower.candidate is not None
    assert slower.baseline.value > slower.candidate.value
    assert (slower.baseline_repeats, slower.candidate_repeats) == (3, 3)
    faster = only(steady(1.1), steady(1.0))
    assert faster.verdict == "faster" and not faster.is_regression
    same = only(steady(1.0), steady(1.01))
    assert same.verdict == "same" and same.note is None
    assert only(steady(1.0), steady(1.01), tolerance=0.005).verdict == "slower"
    assert only(steady(1.0), steady(1.1), tolerance=0.2).verdict == "same"


def test_noise_beyond_the_tolerance_is_unclear() -> None:
    random = np.random.default_rng(1)
    change = only(run(1, 3, random, job_noise=0.1), run(1, 3, random, job_noise=0.1))
    assert change.verdict == "unclear" and not change.is_regression
    assert change.note is not None and "more repeats" in change.note


@pytest.mark.parametrize("repeats", [2, 3, 5])
@pytest.mark.parametrize("job_noise", [0.02, 0.1])
def test_noise_alone_is_rarely_called_a_change(repeats: int, job_noise: float) -> None:
    random = np.random.default_rng(10 * repeats + int(100 * job_noise))
    count = 150
    found = Counter(
        only(
            run(1, repeats, random, job_noise=job_noise),
            run(1, repeats, random, job_noise=job_noise),
        ).verdict
        for _ in range(count)
    )
    assert (found["slower"] + found["faster"]) / count < 0.05


def test_blocks_taken_as_independent_would_call_noise_a_change() -> None:
    # Why the test above matters: blocks of one job are not independent.
    random = np.random.default_rng(4)
    pairs = [
        (run(1, 3, random, job_noise=0.1), run(1, 3, random, job_noise=0.1)) for _ in range(60)
    ]

    def as_one_repeat(results: Sequence[Result]) -> np.ndarray:
        return np.concatenate([np.log(each.block_rates) for each in results])

    alarms = 0
    for before, after in pairs:
        old, new = as_one_repeat(before), as_one_repeat(after)
        error = 1.96 * np.sqrt(old.var() / old.size + new.var() / new.size)
        alarms += abs(new.mean() - old.mean()) - error > 0.03
    assert alarms / len(pairs) > 0.15


@pytest.mark.parametrize(("repeats", "at_least"), [(3, 0.6), (5, 0.95)])
def test_a_tenth_slower_is_found_in_noise(repeats: int, at_least: float) -> None:
    random = np.random.default_rng(repeats)
    count = 100
    found = Counter(
        only(run(1, repeats, random), run(1 / 0.9, repeats, random)).verdict for _ in range(count)
    )
    assert found["slower"] / count >= at_least
    assert found["faster"] == found["same"] == 0


def test_a_single_repeat_takes_the_noise_of_the_other_run() -> None:
    random = np.random.default_rng(8)
    count = 150
    for lone_first in (True, False):
        found: Counter[str] = Counter()
        for _ in range(count):
            lone, many = run(1, 1, random, job_noise=0.1), run(1, 4, random, job_noise=0.1)
            found[only(*((lone, many) if lone_first else (many, lone))).verdict] += 1
        assert (found["slower"] + found["faster"]) / count < 0.05
    assert only(steady(1.0, 5), steady(1.3, 1)).verdict == "slower"


def test_one_repeat_in_each_run_is_rarely_significant() -> None:
    change = only(steady(1.0, 1), steady(1.5, 1))
    assert change.verdict == "unclear" and change.note is not None
    assert "--repeats 3" in change.note
    assert only(steady(1.0, 1), steady(1.0, 1)).verdict == "unclear"
    # Unless the ratio is larger than any between equal jobs.
    assert only(steady(1.0, 1), steady(2.5, 1)).verdict == "slower"
    assert only(steady(2.5, 1), steady(1.0, 1)).verdict == "faster"
    block = training_result("ddp", 2, block_s=(1.0,))
    assert only([block], [block]).verdict == "unclear"


def test_failures_and_cases_of_one_run() -> None:
    good, bad = steady(1.0), [failed(each, "no memory") for each in steady(1.0)]
    broke = only(good, bad)
    assert (broke.verdict, broke.note) == ("failed", "no memory") and broke.is_regression
    assert broke.baseline is not None and broke.candidate is None
    assert broke.candidate_repeats == 0
    assert only(bad, bad).verdict == "failed in both"
    assert not only(bad, bad).is_regression
    fixed = only(bad, good)
    assert fixed.verdict == "only in candidate"
    assert fixed.note == "it failed in the baseline: no memory"
    assert only(good, []).verdict == "only in baseline"
    assert only([], good).verdict == "only in candidate"
    assert only([], bad).verdict == "failed"
    gone = only(bad, [])
    assert gone.verdict == "only in baseline"
    assert gone.note == "it failed in the baseline: no memory"
    partly = only(good, [*good[:2], bad[2]])
    assert partly.verdict == "same" and partly.note == "1 job failed in the candidate: no memory"


def test_a_failed_job_is_paired_where_the_suite_left_the_model_to_the_program() -> None:
    good = [training_result("ddp", 2, repeat, options={}) for repeat in (1, 2, 3)]
    assert only(good, [failed(each) for each in good]).verdict == "failed"
    assert only([failed(each) for each in good], good).verdict == "only in candidate"


def test_replicas_that_differ_are_a_failure_however_fast() -> None:
    good = steady(1.0)
    assert good[0].training is not None
    bad = [
        dataclasses.replace(each, measured=dataclasses.replace(each.training, in_sync=False))
        for each in steady(0.5)
        if each.training is not None
    ]
    change = only(good, bad)
    assert change.verdict == "failed" and change.note == "the replicas differ in 3 of 3 repeats"
    both = only(bad, bad)
    assert both.verdict == "same" and both.note == "the replicas differ in 3 of 3 repeats"


def test_cases_pair_by_workload_engine_ranks_and_nodes() -> None:
    cases = [("ddp", 1, 1), ("ddp", 2, 1), ("ddp", 2, 2), ("no_comm", 2, 1)]
    before = [
        training_result(engine, ranks, repeat, (1.0, 1.001, 0.999), nodes=nodes)
        for repeat in (1, 2, 3)
        for engine, ranks, nodes in cases
    ]
    after = [
        training_result(engine, ranks, repeat, (1.2, 1.201, 1.199), nodes=nodes)
        if (engine, ranks, nodes) == ("ddp", 2, 2)
        else training_result(engine, ranks, repeat, (1.0, 1.001, 0.999), nodes=nodes)
        for repeat in (1, 2, 3)
        for engine, ranks, nodes in cases[::-1]
    ]
    found = compare(before, after)
    assert [(each.engine, each.ranks, each.nodes, each.verdict) for each in found.changes] == [
        ("ddp-gloo", 1, 1, "same"),
        ("ddp-gloo", 2, 1, "same"),
        ("ddp-gloo", 2, 2, "slower"),
        ("no_comm", 2, 1, "same"),
    ]
    assert found.expected_by_chance == pytest.approx(0.2)
    weak, strong = steady(1.0), [training_result("ddp", 2, scaling="strong")]
    assert [each.verdict for each in compare(weak, strong).changes] == [
        "only in baseline",
        "only in candidate",
    ]


def points(seconds: float, *, wrong: int = 0, unsupported: str | None = None) -> list[Result]:
    wave = tuple(seconds * (1 + 0.001 * each) for each in (0, 1, -1, 2, -2, 0))
    made = [
        Point(1024, "float32", 1, 10, (1e-4,) * 6, 0),
        Point(4096, "float32", 1, 10, () if unsupported else wave, wrong, unsupported),
        Point(4096, "bfloat16", 1, 0, (), 0, "no bfloat16"),
    ]
    return [allreduce_result("torch", 2, repeat, points=made) for repeat in (1, 2, 3)]


def test_all_reduces_pair_by_message_and_less_time_is_faster() -> None:
    small, large = compare(points(1e-3), points(2e-3)).changes
    assert small.verdict == "same" and large.verdict == "slower"
    assert small.message is not None and large.message is not None
    assert (large.message.message_bytes, large.message.dtype) == (4096, "float32")
    assert large.ratio is not None and large.ratio.value == pytest.approx(0.5)
    assert large.baseline is not None and large.baseline.value == pytest.approx(1000, rel=1e-3)
    _, faster = compare(points(2e-3), points(1e-3)).changes
    assert faster.verdict == "faster"


def test_wrong_sums_and_unsupported_messages_are_failures() -> None:
    _, wrong = compare(points(1e-3), points(1e-3, wrong=4)).changes
    assert (wrong.verdict, wrong.note) == ("failed", "12 elements have a wrong sum")
    _, unsupported = compare(points(1e-3), points(1e-3, unsupported="not today")).changes
    assert (unsupported.verdict, unsupported.note) == ("failed", "not today")
    _, now = compare(points(1e-3, unsupported="not today"), points(1e-3)).changes
    assert now.verdict == "only in candidate"
    dead = [failed(each, "no port") for each in points(1e-3)]
    whole = only(points(1e-3), dead)
    assert (whole.verdict, whole.message, whole.note) == ("failed", None, "no port")


def test_a_failed_job_is_a_failure_next_to_another_program_of_the_same_workload() -> None:
    half = [
        allreduce_result("torch", 2, repeat, dtype="float16", options={"dtype": "float16"})
        for repeat in (1, 2, 3)
    ]
    whole = points(1e-3)
    before, after = [*whole, *half], [*whole, *(failed(each, "died") for each in half)]
    verdicts = {each.message.dtype: each for each in compare(before, after).changes if each.message}
    assert verdicts["float16"].verdict == "failed" and verdicts["float16"].note == "died"


def test_cases_that_all_failed_are_in_common_too() -> None:
    now = steady(1.0)
    before = [failed(result, "no mpirun") for result in now]
    change = only(before, now)
    assert change.verdict == "only in candidate"
    assert print_comparison(Console(), before, now, 0.03) == 0


def test_other_sizes_of_a_sweep_leave_the_common_ones_paired() -> None:
    before = [
        dataclasses.replace(each, options={"sizes": "1KiB:4KiB", "limit_s": 1})
        for each in points(1e-3)
    ]
    after = [
        allreduce_result("torch", 2, repeat, {1024: (1e-4,) * 6}, options={"sizes": "1KiB:1KiB"})
        for repeat in (1, 2, 3)
    ]
    assert [each.verdict for each in compare(before, after).changes] == ["same", "only in baseline"]


def test_loaders_are_compared_too() -> None:
    before, after = (
        [loader_result(2, repeat, (seconds, 1.001 * seconds)) for repeat in (1, 2, 3)]
        for seconds in (1.0, 1.5)
    )
    assert only(before, after).verdict == "slower"


def test_differing_machines_and_versions_are_named() -> None:
    before = steady(1.0)
    after = [
        dataclasses.replace(
            each,
            versions={**each.versions, "torch": "2.13.0", "mpi": "Open MPI 5.0.12"},
            hardware={**each.hardware, "gpus": ["H200", "H200"]},
        )
        for each in before
    ]
    assert compare(before, before).differing == {}
    assert compare(before, after).differing == {
        "gpus": ("none", "H200, H200"),
        "mpi": ("Open MPI 5.0.11", "Open MPI 5.0.12"),
        "torch": ("none", "2.13.0"),
    }
