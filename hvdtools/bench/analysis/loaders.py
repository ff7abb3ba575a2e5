"""Numbers of loaders that feed nobody."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis import repeats as repeats_
from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.analysis.workloads import Workload, workloads_of
from hvdtools.bench.results.result_file import Result


@dataclass(frozen=True)
class LoaderRow:
    """One loader on one number of ranks and nodes.

    Attributes:
        workload: What it did; its `data` names what it loads.
        ranks, nodes: Of its jobs.
        batch_per_rank, workers: As in `Loader`; None if all jobs failed.
        samples_per_s: Of all ranks together; None if all jobs failed.
        repeats, blocks, failures: As in `stats.Row`.
    """

    workload: Workload
    ranks: int
    nodes: int
    batch_per_rank: int | None
    workers: int | None
    samples_per_s: Span | None
    repeats: int
    blocks: int
    failures: tuple[str, ...]


def loaders(results: Sequence[Result]) -> list[LoaderRow]:
    """A row for each loader, ranks and nodes."""
    rows = []
    kept = [result for result in results if result.kind == "input"]
    for workload, of_one in workloads_of(kept).items():
        for engine, ranks, nodes in repeats_.sizes(of_one):
            mine = repeats_.worked(of_one, engine, ranks, nodes)
            measured = [result.loader for result in mine.values() if result.loader is not None]
            rows.append(
                LoaderRow(
                    workload=workload,
                    ranks=ranks,
                    nodes=nodes,
                    batch_per_rank=measured[0].batch_per_rank if measured else None,
                    workers=measured[0].workers if measured else None,
                    samples_per_s=repeats_.rate(mine),
                    repeats=len(measured),
                    blocks=sum(len(each.block_s) for each in measured),
                    failures=repeats_.failures(of_one, engine, ranks, nodes),
                )
            )
    return rows
