"""Engines take turns until their medians are known: the interval, the order, the end."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence

import pytest
import scipy.stats

from hvdtools.bench.analysis.interval import Estimate, median_interval
from hvdtools.bench.run.interleave import StoppingRule, run_interleaved


def test_intervals_of_tables() -> None:
    # Which ordered values bound the 95 % interval of a median, as printed tables have it.
    for count, low, high in ((6, 1, 6), (9, 2, 8), (15, 4, 12), (20, 6, 15), (100, 40, 61)):
        found = median_interval(range(1, count + 1))
        assert found == Estimate((count + 1) / 2, low, high)
    assert median_interval(range(5)) is None


@pytest.mark.parametrize("count", [6, 7, 10, 37, 2000])
def test_the_interval_holds_the_median_as_often_as_it_says(count: int) -> None:
    found = median_interval(range(count))
    assert found is not None
    outside = int(found.low)
    assert 2 * scipy.stats.binom.cdf(outside, count, 0.5) <= 0.05
    assert 2 * scipy.stats.binom.cdf(outside + 1, count, 0.5) > 0.05


def test_its_coverage_on_a_skewed_distribution() -> None:
    draw = random.Random(1)
    true = scipy.stats.expon.median()
    found = [median_interval([draw.expovariate(1) for _ in range(15)]) for _ in range(2000)]
    holding = sum(span is not None and span.low <= true <= span.high for span in found)
    assert 0.95 <= holding / 2000 <= 0.98  # 96.5 % at 15 values


def alone(values: Sequence[float]) -> list[list[float]]:
    return [list(values)]


def blocks(times: dict[str, float], order: list[str]) -> dict[str, Callable[[], float]]:
    def block(name: str) -> Callable[[], float]:
        def run() -> float:
            order.append(name)
            return times[name]

        return run

    return {name: block(name) for name in times}


def test_engines_go_forwards_and_backwards() -> None:
    order: list[str] = []
    rule = StoppingRule(interval=0, limit_s=60, min_blocks=2, max_blocks=3, warmup_blocks=1)
    interleaved = run_interleaved(blocks({"a": 1.0, "b": 2.0, "c": 3.0}, order), rule, alone)
    assert "".join(order) == "cba" + "abc" + "cba" + "abc"
    assert interleaved.rank_block_s == {"a": [[1.0]] * 3, "b": [[2.0]] * 3, "c": [[3.0]] * 3}
    assert interleaved.stopped_by == "blocks"


def test_it_stops_when_every_interval_is_narrow() -> None:
    draw = random.Random(2)
    noisy = {"a": lambda: draw.uniform(0.98, 1.02), "b": lambda: draw.uniform(0.5, 1.5)}
    rule = StoppingRule(interval=0.05, limit_s=600)
    interleaved = run_interleaved(noisy, rule, alone)
    assert interleaved.stopped_by == "interval"
    span = median_interval(interleaved.slowest_s("b"))
    assert span is not None and span.half_width <= 0.05
    before = median_interval(interleaved.slowest_s("b")[:-1])
    assert before is None or before.half_width > 0.05  # not a block too many
    assert len(interleaved.slowest_s("a")) == len(interleaved.slowest_s("b"))


def test_the_time_limit_ends_what_stays_noisy() -> None:
    draw = random.Random(3)

    def block() -> float:
        time.sleep(0.01)
        return draw.uniform(0.1, 2)

    interleaved = run_interleaved({"a": block}, StoppingRule(interval=0.001, limit_s=0.2), alone)
    assert interleaved.stopped_by == "limit"
    assert 6 <= len(interleaved.slowest_s("a")) < 30


def test_ranks_decide_on_the_slowest_and_alike() -> None:
    def gather(values: Sequence[float]) -> list[list[float]]:
        return [list(values), [2 * value for value in values]]

    interleaved = run_interleaved(
        {"a": lambda: 1.0}, StoppingRule(interval=0.01, limit_s=60), gather
    )
    assert interleaved.rank_block_s["a"] == [[1.0, 2.0]] * 6
    assert interleaved.slowest_s("a") == [2.0] * 6
