"""A row of numbers for each engine on each number of ranks. METHOD.md says why these.

`workloads.by_workload` sorts results into what may be compared, `curves.curves` makes
the all-reduces' numbers and `loaders.loaders` the input pipelines'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis import repeats as repeats_
from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.analysis.loaders import LoaderRow
from hvdtools.bench.analysis.repeats import Repeats, worked
from hvdtools.bench.analysis.split import Skew, Split, input_share, skew, split
from hvdtools.bench.analysis.workloads import Workload, by_workload
from hvdtools.bench.results.measured import Training
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import FAMILIES, as_it_ran

# Waiting so long for input, or a loader no faster than this, and training waits for images.
_INPUT_SHARE = 0.1
_LOADER_MARGIN = 1.1


@dataclass(frozen=True)
class Row:
    """One engine on one number of ranks and nodes, over all repeats of a run.

    Every `Span` is the median of a repeat's blocks, of several repeats the geometric mean
    of that, with its 95 % interval, see `bootstrap`; low and high are NaN where there
    is a single block.

    Attributes:
        workload: What it did.
        engine: With what carried the gradients, where the name does not say it.
        ranks, nodes: Of its jobs.
        batch_per_rank: None if all jobs failed.
        samples_per_s: Of all ranks together.
        efficiency: Samples/s over `ranks` times this engine's own on one rank of
            the same repeat. 1 is ideal, in weak and in strong scaling.
        node_efficiency: Samples/s over `nodes` times this engine's own on one node
            with as many ranks; None on one node.
        vs_baseline: Samples/s over those of its family's baseline, of the same
            repeat, ranks and nodes; None for the baseline itself.
        split: None where the program does not tell a step's phases apart.
        input_share: Waiting for input over the whole step, on the rank where it is worst.
        skew: None on one rank, or without phases.
        peak_memory_bytes: Of the rank and repeat with most.
        accuracy: Median over repeats; None without one.
        in_sync: False if the replicas of any repeat differed; None where nothing was compared.
        repeats: How many worked. The blocks of one job share its luck: with one repeat the
            intervals say how a job varies within itself and nothing about the next job.
        blocks: Of all those repeats together.
        failures: Why the others did not workload.
    """

    workload: Workload
    engine: str
    ranks: int
    nodes: int
    batch_per_rank: int | None
    samples_per_s: Span | None
    efficiency: Span | None
    node_efficiency: Span | None
    vs_baseline: Span | None
    split: Split | None
    input_share: float | None
    skew: Skew | None
    peak_memory_bytes: int | None
    accuracy: float | None
    in_sync: bool | None
    repeats: int
    blocks: int
    failures: tuple[str, ...]


def summarise(results: Sequence[Result]) -> list[Row]:
    """A row for each training engine and size: engines as first run, then nodes and ranks rising.

    Works are kept apart, whatever the results are of.
    """
    return [
        _row(workload, of_one, *case)
        for workload, of_one in by_workload(results).items()
        for case in repeats_.sizes(of_one)
    ]


def is_input_bound(row: Row, loader_rows: Sequence[LoaderRow]) -> bool:
    """Whether its loader holds this training back.

    It does if a rank waits for input in more than 10 % of its step, or if the loader alone,
    on as many ranks and nodes and the same data, delivers less than 1.1 times the training's rate.
    """
    if row.input_share is not None and row.input_share > _INPUT_SHARE:
        return True
    return row.samples_per_s is not None and any(
        loader.samples_per_s is not None
        and _feeds(loader, row)
        and loader.samples_per_s.middle < _LOADER_MARGIN * row.samples_per_s.middle
        for loader in loader_rows
    )


def _feeds(loader: LoaderRow, row: Row) -> bool:
    """Whether that loader is this training's: the same library's, with the same data."""
    package = FAMILIES[loader.workload.family].package
    return (
        package == FAMILIES[row.workload.family].package
        and (loader.ranks, loader.nodes) == (row.ranks, row.nodes)
        and loader.workload.data == row.workload.data
        and loader.workload.model in ("", row.workload.model)
    )


def _row(workload: Workload, results: Sequence[Result], engine: str, ranks: int, nodes: int) -> Row:
    family = FAMILIES[workload.family]
    mine = worked(results, engine, ranks, nodes)
    ideal = {} if family.ideal is None else worked(results, family.ideal, ranks, nodes)
    trainings = [result.training for result in mine.values() if result.training is not None]
    return Row(
        workload=workload,
        engine=as_it_ran(workload.family, engine, trainings[0].transport if trainings else None),
        ranks=ranks,
        nodes=nodes,
        batch_per_rank=trainings[0].batch_per_rank if trainings else None,
        samples_per_s=repeats_.rate(mine),
        efficiency=repeats_.ratio(mine, worked(results, engine, 1, 1), over=ranks),
        node_efficiency=_node_efficiency(results, engine, mine, ranks, nodes),
        vs_baseline=None
        if family.baseline in (None, engine)
        else repeats_.ratio(mine, worked(results, family.baseline, ranks, nodes)),
        split=split(mine, ideal),
        input_share=input_share(mine),
        skew=skew(mine, is_ideal=engine == family.ideal),
        peak_memory_bytes=max(
            (most for each in trainings for most in each.peak_memory_bytes), default=None
        ),
        accuracy=_accuracy(trainings),
        in_sync=_in_sync(trainings),
        repeats=len(trainings),
        blocks=sum(len(each.block_s) for each in trainings),
        failures=repeats_.failures(results, engine, ranks, nodes),
    )


def _node_efficiency(
    results: Sequence[Result], engine: str, mine: Repeats, ranks: int, nodes: int
) -> Span | None:
    if nodes == 1 or ranks % nodes:
        return None  # nodes that are not equally full are no multiple of one
    return repeats_.ratio(mine, worked(results, engine, ranks // nodes, 1), over=nodes)


def _accuracy(trainings: Sequence[Training]) -> float | None:
    known = [each.accuracy for each in trainings if each.accuracy is not None]
    return repeats_.median_over(known) if known else None


def _in_sync(trainings: Sequence[Training]) -> bool | None:
    compared = [each.in_sync for each in trainings if each.in_sync is not None]
    return all(compared) if compared else None
