"""All numbers of a run, computed once: what tables, page, CSV, comparison and prediction read."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis.allreduce import AllreduceCurve, allreduce_curves
from hvdtools.bench.analysis.input_pipeline import InputBound, LoaderRow, input_bound, loader_row
from hvdtools.bench.analysis.provenance import Provenance, provenance_of
from hvdtools.bench.analysis.training import TrainingRow, training_row
from hvdtools.bench.analysis.workloads import (
    Case,
    CaseKey,
    Workload,
    group_by_case,
    group_by_workload,
)
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.engines import FAMILIES


@dataclass(frozen=True)
class WorkloadSummary:
    """One workload of a run; of the last three fields, the one of its kind is filled.

    Attributes:
        workload: What was run.
        results: Each case in each repeat once, in the order of their first run.
        cases: The same by engine, ranks and nodes: engines in the order of their first run,
            nodes and ranks rising.
        training_rows: A row for each case of a training.
        allreduce_curves: A curve for each case, type and number of tensors.
        loader_rows: A row for each case of a loader.
    """

    workload: Workload
    results: tuple[Result, ...]
    cases: dict[CaseKey, Case]
    training_rows: tuple[TrainingRow, ...] = ()
    allreduce_curves: tuple[AllreduceCurve, ...] = ()
    loader_rows: tuple[LoaderRow, ...] = ()

    @property
    def kind(self) -> str:
        """ "training", "allreduce" or "input"."""
        return FAMILIES[self.workload.family].kind


@dataclass(frozen=True)
class RunSummary:
    """A run.

    Attributes:
        results: As they were written, also those that a resumed run replaced.
        workloads: In the order of their first run.
        input_bound: The trainings that wait for their input.
        provenance: Machines, versions, variables and commands.
    """

    results: tuple[Result, ...]
    workloads: tuple[WorkloadSummary, ...]
    input_bound: tuple[InputBound, ...]
    provenance: Provenance

    def of_kind(self, kind: str) -> list[WorkloadSummary]:
        """The workloads that are "training", "allreduce" or "input"."""
        return [each for each in self.workloads if each.kind == kind]

    @property
    def training_rows(self) -> list[TrainingRow]:
        """Those of all workloads."""
        return [row for each in self.workloads for row in each.training_rows]

    @property
    def allreduce_curves(self) -> list[AllreduceCurve]:
        """Those of all workloads."""
        return [curve for each in self.workloads for curve in each.allreduce_curves]

    @property
    def loader_rows(self) -> list[LoaderRow]:
        """Those of all workloads."""
        return [row for each in self.workloads for row in each.loader_rows]


def analyze(results: Sequence[Result], names_from: Sequence[Result] = ()) -> RunSummary:
    """Compute all numbers of a run.

    Args:
        names_from: Further results that may name the model of a failed job, such as those of
            another run that this one is compared with.
    """
    workloads = tuple(
        _summarize(workload, mine)
        for workload, mine in group_by_workload(results, names_from).items()
    )
    trainings = [row for each in workloads for row in each.training_rows]
    loaders = [row for each in workloads for row in each.loader_rows]
    return RunSummary(
        results=tuple(results),
        workloads=workloads,
        input_bound=tuple(input_bound(trainings, loaders)),
        provenance=provenance_of(results),
    )


def _summarize(workload: Workload, results: Sequence[Result]) -> WorkloadSummary:
    cases = group_by_case(workload, results)
    summary = WorkloadSummary(workload, tuple(results), cases)
    if summary.kind == "training":
        rows = (training_row(case, cases) for case in cases.values())
        return dataclasses.replace(summary, training_rows=tuple(rows))
    if summary.kind == "allreduce":
        curves = (curve for case in cases.values() for curve in allreduce_curves(case))
        return dataclasses.replace(summary, allreduce_curves=tuple(curves))
    return dataclasses.replace(summary, loader_rows=tuple(map(loader_row, cases.values())))
