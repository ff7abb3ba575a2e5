"""The numbers of loaders that run without a training, and which trainings wait for their input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.analysis.rates import rate
from hvdtools.bench.analysis.training import TrainingRow
from hvdtools.bench.analysis.workloads import Case, Workload
from hvdtools.bench.suite.engines import FAMILIES

_INPUT_BOUND_SHARE = 0.1  # of a step
_LOADER_MARGIN = 1.1  # times the rate of the training


@dataclass(frozen=True)
class LoaderRow:
    """One loader on one number of ranks and nodes.

    Attributes:
        workload: What it loaded, in `data`.
        ranks, nodes: The size of its jobs.
        batch_per_rank, workers: As in `Loader`; None if all jobs failed.
        samples_per_s: Of all ranks together; None if all jobs failed.
        repeats, blocks, failures: As in `TrainingRow`.
    """

    workload: Workload
    ranks: int
    nodes: int
    batch_per_rank: int | None
    workers: int | None
    samples_per_s: Estimate | None
    repeats: int
    blocks: int
    failures: tuple[str, ...]


@dataclass(frozen=True)
class InputBound:
    """A training that its loader holds back.

    Attributes:
        row: The training.
        slow_loaders: Those of its loaders that by themselves are hardly faster.
    """

    row: TrainingRow
    slow_loaders: tuple[LoaderRow, ...]


def loader_row(case: Case) -> LoaderRow:
    """The row of a case."""
    measured = [result.loader for result in case.repeats.values() if result.loader is not None]
    return LoaderRow(
        workload=case.workload,
        ranks=case.ranks,
        nodes=case.nodes,
        batch_per_rank=measured[0].batch_per_rank if measured else None,
        workers=measured[0].workers if measured else None,
        samples_per_s=rate(case.repeats),
        repeats=len(measured),
        blocks=sum(len(each.block_s) for each in measured),
        failures=case.failures,
    )


def input_bound(rows: Sequence[TrainingRow], loaders: Sequence[LoaderRow]) -> list[InputBound]:
    """The trainings that their loader holds back.

    A rank waits for input in more than 10 % of its step, or the loader alone, on the same
    ranks and nodes and with the same data, delivers less than 1.1 times the training's rate.
    """
    found = []
    for row in rows:
        slow = tuple(loader for loader in loaders if _is_slow(loader, row))
        if slow or (row.input_share or 0) > _INPUT_BOUND_SHARE:
            found.append(InputBound(row, slow))
    return found


def _is_slow(loader: LoaderRow, row: TrainingRow) -> bool:
    return (
        loader.samples_per_s is not None
        and row.samples_per_s is not None
        and _feeds(loader, row)
        and loader.samples_per_s.value < _LOADER_MARGIN * row.samples_per_s.value
    )


def _feeds(loader: LoaderRow, row: TrainingRow) -> bool:
    """Whether the training uses this loader: the same library with the same data."""
    package = FAMILIES[loader.workload.family].package
    return (
        package == FAMILIES[row.workload.family].package
        and (loader.ranks, loader.nodes) == (row.ranks, row.nodes)
        and loader.workload.data == row.workload.data
        and loader.workload.model in ("", row.workload.model)
    )
