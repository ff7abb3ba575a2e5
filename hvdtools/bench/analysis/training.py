"""The numbers of a training engine on each number of ranks; METHOD.md gives the reasons."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.analysis.rates import rate, ratio
from hvdtools.bench.analysis.step_time import Skew, StepTime, input_share, skew, step_time
from hvdtools.bench.analysis.workloads import Case, CaseKey, Repeats, Workload, repeats_of
from hvdtools.bench.suite.engines import FAMILIES


@dataclass(frozen=True)
class TrainingRow:
    """One engine on one number of ranks and nodes, over all repeats of a run.

    An `Estimate` is the median of a repeat's blocks (of several repeats, the geometric mean
    of their medians) with its 95 % interval, see `bootstrap`; a single block has no interval.

    Attributes:
        workload: What it trained.
        engine: As it ran, with its transport where the name leaves it open.
        ranks, nodes: The size of its jobs.
        batch_per_rank: None if all jobs failed.
        samples_per_s: Of all ranks together.
        efficiency: Samples/s over `ranks` times this engine's own on one rank of the same
            repeat. 1 is ideal, in weak and in strong scaling.
        node_efficiency: Samples/s over `nodes` times this engine's own on one node with the
            same ranks per node; None on one node.
        vs_baseline: Samples/s over those of the family's baseline engine, in the same repeat
            and on the same ranks and nodes; None for the baseline itself.
        step_time: None where the program does not measure phases.
        input_share: The wait for input over the step, on the rank where it is largest.
        skew: None on one rank, or without phases.
        peak_memory_bytes: Of the rank and repeat with most.
        accuracy: Median over repeats; None without one.
        in_sync: False if the replicas of any repeat differ; None where none was compared.
        repeats: How many worked. With a single one the intervals cover how the blocks of one
            job differ, not how jobs differ.
        blocks: Of all those repeats together.
        failures: Why the other jobs failed.
    """

    workload: Workload
    engine: str
    ranks: int
    nodes: int
    batch_per_rank: int | None
    samples_per_s: Estimate | None
    efficiency: Estimate | None
    node_efficiency: Estimate | None
    vs_baseline: Estimate | None
    step_time: StepTime | None
    input_share: float | None
    skew: Skew | None
    peak_memory_bytes: int | None
    accuracy: float | None
    in_sync: bool | None
    repeats: int
    blocks: int
    failures: tuple[str, ...]


def training_row(case: Case, cases: Mapping[CaseKey, Case]) -> TrainingRow:
    """The row of a case; `cases` are all of its workload."""
    family = FAMILIES[case.workload.family]
    mine, size = case.repeats, (case.ranks, case.nodes)
    trainings = [result.training for result in mine.values() if result.training is not None]
    accuracies = [each.accuracy for each in trainings if each.accuracy is not None]
    compared = [each.in_sync for each in trainings if each.in_sync is not None]
    return TrainingRow(
        workload=case.workload,
        engine=case.engine_as_run,
        ranks=case.ranks,
        nodes=case.nodes,
        batch_per_rank=trainings[0].batch_per_rank if trainings else None,
        samples_per_s=rate(mine),
        efficiency=ratio(mine, repeats_of(cases, case.engine, (1, 1)), over=case.ranks),
        node_efficiency=_node_efficiency(case, cases),
        vs_baseline=_vs_baseline(case, repeats_of(cases, family.baseline, size)),
        step_time=step_time(mine, repeats_of(cases, family.ideal, size)),
        input_share=input_share(mine),
        skew=skew(mine, communicates=case.engine != family.ideal),
        peak_memory_bytes=max(
            (most for each in trainings for most in each.peak_memory_bytes), default=None
        ),
        accuracy=float(np.median(accuracies)) if accuracies else None,
        in_sync=all(compared) if compared else None,
        repeats=len(trainings),
        blocks=sum(len(each.block_s) for each in trainings),
        failures=case.failures,
    )


def _node_efficiency(case: Case, cases: Mapping[CaseKey, Case]) -> Estimate | None:
    if case.nodes == 1 or case.ranks % case.nodes:
        return None  # there is no full node to compare with
    on_one_node = repeats_of(cases, case.engine, (case.ranks // case.nodes, 1))
    return ratio(case.repeats, on_one_node, over=case.nodes)


def _vs_baseline(case: Case, baseline: Repeats) -> Estimate | None:
    if case.engine == FAMILIES[case.workload.family].baseline:
        return None
    return ratio(case.repeats, baseline)
