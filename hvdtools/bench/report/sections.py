"""The sections of a report: a heading, sentences and a table for each workload."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis.allreduce import AllreduceCurve
from hvdtools.bench.analysis.summary import RunSummary, WorkloadSummary
from hvdtools.bench.analysis.training import TrainingRow
from hvdtools.bench.analysis.workloads import Workload
from hvdtools.bench.report.result_tables import allreduce_table, loader_table, training_table
from hvdtools.bench.report.table import Table
from hvdtools.bench.report.text import (
    describe_allreduces,
    describe_loaders,
    describe_training,
    failure_lines,
    input_bound_notes,
    precision_notes,
    unsupported_notes,
)
from hvdtools.bench.suite.engines import FAMILIES


@dataclass(frozen=True)
class Section:
    """One workload, or all loaders.

    Attributes:
        name: An id for the page.
        title: What was run.
        scaling: "weak scaling", "strong scaling"; "" where nothing is scaled.
        description: How it was run.
        notes: What to know before trusting the numbers.
        table: The numbers.
        failures: A line for each reason.
        rows, curves: What to plot.
    """

    name: str
    title: str
    scaling: str
    description: str
    notes: tuple[str, ...]
    table: Table
    failures: tuple[str, ...]
    rows: tuple[TrainingRow, ...] = ()
    curves: tuple[AllreduceCurve, ...] = ()


def sections_of(run: RunSummary) -> list[Section]:
    """Trainings, then all-reduces, then loaders; each in the order of their first run."""
    trainings, allreduces = run.of_kind("training"), run.of_kind("allreduce")
    names = titles([each.workload for each in (*trainings, *allreduces)])
    return [
        *(_training(f"training-{n}", names, run, each) for n, each in enumerate(trainings, 1)),
        *(_allreduce(f"allreduce-{n}", names, each) for n, each in enumerate(allreduces, 1)),
        *_loaders(names, run),
    ]


def _training(
    name: str, names: dict[Workload, str], run: RunSummary, summary: WorkloadSummary
) -> Section:
    bound = [each for each in run.input_bound if each.row.workload == summary.workload]
    rows = summary.training_rows
    failures = failure_lines([(row.engine, row.ranks, row.nodes, row.failures) for row in rows])
    return Section(
        name=name,
        title=names[summary.workload],
        scaling=_scaling(summary.workload),
        description=describe_training(summary.results),
        notes=(*input_bound_notes(bound), *precision_notes(summary.results)),
        table=training_table(rows),
        failures=tuple(failures),
        rows=rows,
    )


def _allreduce(name: str, names: dict[Workload, str], summary: WorkloadSummary) -> Section:
    curves = summary.allreduce_curves
    # A job fails once, with all its types and numbers of tensors.
    failed = dict.fromkeys((each.engine, each.ranks, each.nodes, each.failures) for each in curves)
    return Section(
        name=name,
        title=names[summary.workload],
        scaling=_scaling(summary.workload),
        description=describe_allreduces(summary.results),
        notes=(*unsupported_notes(curves), *precision_notes(summary.results)),
        table=allreduce_table(curves),
        failures=tuple(failure_lines(list(failed))),
        curves=curves,
    )


def _loaders(names: dict[Workload, str], run: RunSummary) -> list[Section]:
    """One section for all loaders; which trainings wait for them, as links to their notes."""
    rows = run.loader_rows
    if not rows:
        return []
    bound = dict.fromkeys(each.row.workload for each in run.input_bound)
    failed = [(row.workload.program, row.ranks, row.nodes, row.failures) for row in rows]
    return [
        Section(
            name="input",
            title="Input pipeline alone",
            scaling="",
            description=describe_loaders(
                [result for each in run.of_kind("input") for result in each.results]
            ),
            notes=tuple(f"input-bound: {names[each]}, {_scaling(each)}." for each in bound),
            table=loader_table(rows),
            failures=tuple(failure_lines(failed)),
        )
    ]


def _scaling(workload: Workload) -> str:
    return f"{workload.scaling} scaling" if workload.scaling else ""


def titles(workloads: Sequence[Workload]) -> dict[Workload, str]:
    """A heading for each workload, with those options in which others of that heading differ."""
    made = {}
    for workload in workloads:
        title = _title(workload)
        same_title = [
            dict(other.options)
            for other in workloads
            if (_title(other), other.scaling) == (title, workload.scaling)
        ]
        differing = _differing_options(dict(workload.options), same_title)
        made[workload] = f"{title} ({', '.join(differing)})" if differing else title
    return made


def _title(workload: Workload) -> str:
    family = FAMILIES[workload.family]
    model = " on ".join(filter(None, (workload.model, workload.data)))
    details = ", ".join(filter(None, (model, workload.precision)))
    program = "" if workload.program == family.program else f" ({workload.program})"
    return f"{family.name}{program}{f': {details}' if details else ''}"


def _differing_options(mine: dict[str, str], same_title: Sequence[dict[str, str]]) -> list[str]:
    names = sorted({name for options in same_title for name in options})
    return [
        f"{name} {mine.get(name, 'not set')}"
        for name in names
        if len({options.get(name) for options in same_title}) > 1
    ]
