"""In every rank: engines take turns, block by block, until their medians are known well enough.

Used by the programs in benchmarks/, whatever their framework: it imports none.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from hvdtools.bench.analysis.interval import median_interval

# (k values on each rank) -> row r has rank r's, the same on every rank
Gather = Callable[[Sequence[float]], list[list[float]]]


@dataclass(frozen=True)
class StoppingRule:
    """When a measurement is over.

    Attributes:
        interval: Stop when the 95 % interval of every engine's median is within
            this share of it on either side (0.02 for 2 %).
        limit_s: Stop after so long all the same.
        min_blocks: But not before so many blocks of each engine.
        max_blocks: Nor go on after so many.
        warmup_blocks: Blocks of each engine that come first and are not counted.
    """

    interval: float
    limit_s: float
    min_blocks: int = 6
    max_blocks: int = 1000
    warmup_blocks: int = 1


@dataclass
class InterleavedBlocks:
    """What was measured: for each engine its blocks in order, each with every rank's seconds.

    Attributes:
        rank_block_s: Engine -> block -> rank -> seconds of the whole block.
        stopped_by: "interval", "limit" (of time) or "blocks" (enough of them).
    """

    rank_block_s: dict[str, list[list[float]]] = field(default_factory=dict)
    stopped_by: str = "blocks"

    def slowest_s(self, engine: str) -> list[float]:
        """The slowest rank's time of each block: a job is as fast as that one."""
        return [max(ranks) for ranks in self.rank_block_s[engine]]


def run_interleaved(
    blocks: Mapping[str, Callable[[], float]], rule: StoppingRule, gather: Gather
) -> InterleavedBlocks:
    """Run each engine's block in turn, forwards and backwards (A B, B A), until `rule` says stop.

    A slow minute of the machine thus falls on all engines alike.

    Args:
        blocks: Engine -> runs one block and returns this rank's seconds for it.
            A block waits for its device and begins together with the other ranks'.
        gather: Hands every rank's values to every rank. Called between blocks,
            outside what is timed. All ranks decide on what it returns, so all stop
            after the same block.
    """
    interleaved = InterleavedBlocks({engine: [] for engine in blocks})
    begun_s = time.perf_counter()
    for number in range(-rule.warmup_blocks, rule.max_blocks):
        if number == 0:
            begun_s = time.perf_counter()  # a first block compiles and allocates
        order = list(blocks) if number % 2 == 0 else list(blocks)[::-1]
        mine = {engine: blocks[engine]() for engine in order}
        gathered = gather([*(mine[engine] for engine in blocks), time.perf_counter() - begun_s])
        if number < 0:
            continue
        for place, engine in enumerate(blocks):
            interleaved.rank_block_s[engine].append([row[place] for row in gathered])
        elapsed_s = max(row[-1] for row in gathered)
        why = why_stop(interleaved, rule, number + 1, elapsed_s)
        if why:
            interleaved.stopped_by = why
            break
    return interleaved


def why_stop(
    interleaved: InterleavedBlocks, rule: StoppingRule, blocks: int, elapsed_s: float
) -> str | None:
    """Why `rule` ends a measurement after so many blocks of each engine; None if it goes on.

    Not asked after the last block that the rule allows.
    """
    if blocks < rule.min_blocks:
        return None
    if all(
        _known(interleaved.slowest_s(engine), rule.interval) for engine in interleaved.rank_block_s
    ):
        return "interval"
    return "limit" if elapsed_s >= rule.limit_s else None


def _known(values: Sequence[float], width: float) -> bool:
    interval = median_interval(values)
    return interval is not None and interval.half_width <= width


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of `StoppingRule`, the same for every program."""
    parser.add_argument(
        "--interval",
        type=float,
        default=0.02,
        help="stop when the 95 %% interval of every median is this narrow [0.02: 2 %% either way]",
    )
    parser.add_argument("--limit-s", type=float, default=60, help="or after so many seconds [60]")
    parser.add_argument("--min-blocks", type=int, default=6, help="but not before so many [6]")
    parser.add_argument("--max-blocks", type=int, default=1000, help="nor after so many [1000]")
    parser.add_argument("--warmup-blocks", type=int, default=1, help="not counted [1]")


def stopping_rule_of(options: argparse.Namespace) -> StoppingRule:
    """The rule that `add_options` read."""
    return StoppingRule(
        interval=options.interval,
        limit_s=options.limit_s,
        min_blocks=options.min_blocks,
        max_blocks=options.max_blocks,
        warmup_blocks=options.warmup_blocks,
    )
