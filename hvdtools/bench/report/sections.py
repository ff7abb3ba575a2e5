"""What a report says of each work: a heading, sentences, a table. The page adds plots to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis.curves import Curve, curves
from hvdtools.bench.analysis.loaders import LoaderRow, loaders
from hvdtools.bench.analysis.stats import Row, is_input_bound, summarise
from hvdtools.bench.analysis.workloads import by_workload, workloads_of
from hvdtools.bench.report.cells import Grid
from hvdtools.bench.report.curve_grids import curve_grid
from hvdtools.bench.report.grids import failures, loader_grid, training_grid
from hvdtools.bench.report.sentences import (
    allreduce_sentence,
    how_surely,
    input_bound,
    input_sentence,
    refusals,
    training_sentence,
)
from hvdtools.bench.report.titles import titles
from hvdtools.bench.results.result_file import Result


@dataclass(frozen=True)
class Section:
    """One work, or all loaders.

    Attributes:
        name: An id for the page.
        title: What was done.
        scaling: "weak scaling", "strong scaling"; "" where nothing is scaled.
        sentence: What was run.
        notes: What to know before believing the numbers.
        grid: The table.
        failures: A line for each reason.
        rows, curves: What to plot.
    """

    name: str
    title: str
    scaling: str
    sentence: str
    notes: tuple[str, ...]
    grid: Grid
    failures: tuple[str, ...]
    rows: tuple[Row, ...] = ()
    curves: tuple[Curve, ...] = ()


def sections(results: Sequence[Result]) -> list[Section]:
    """Trainings, then all-reduces, then loaders; each as they were first run."""
    rows, loader_rows = summarise(results), loaders(results)
    return [
        *_trainings(results, rows, loader_rows),
        *_allreduces(results),
        *_inputs(results, rows, loader_rows),
    ]


def _trainings(
    results: Sequence[Result], rows: Sequence[Row], loader_rows: Sequence[LoaderRow]
) -> list[Section]:
    workloads = by_workload(results)
    named = titles(list(workloads))
    made = []
    for number, (workload, of_one) in enumerate(workloads.items(), 1):
        mine = tuple(row for row in rows if row.workload == workload)
        made.append(
            Section(
                name=f"training-{number}",
                title=named[workload],
                scaling=f"{workload.scaling} scaling" if workload.scaling else "",
                sentence=training_sentence(of_one),
                notes=(*input_bound(mine, loader_rows), *how_surely(of_one)),
                grid=training_grid(mine),
                failures=tuple(
                    failures([(row.engine, row.ranks, row.nodes, row.failures) for row in mine])
                ),
                rows=mine,
            )
        )
    return made


def _allreduces(results: Sequence[Result]) -> list[Section]:
    drawn = curves(results)
    workloads = workloads_of([result for result in results if result.kind == "allreduce"])
    named = titles(list(workloads))
    made = []
    for number, (workload, of_one) in enumerate(workloads.items(), 1):
        mine = tuple(curve for curve in drawn if curve.workload == workload)
        # A job fails once, with all its kinds of messages.
        failed = dict.fromkeys(
            (each.engine, each.ranks, each.nodes, each.failures) for each in mine
        )
        made.append(
            Section(
                name=f"allreduce-{number}",
                title=named[workload],
                scaling=f"{workload.scaling} scaling" if workload.scaling else "",
                sentence=allreduce_sentence(of_one),
                notes=(*refusals(mine), *how_surely(of_one)),
                grid=curve_grid(mine),
                failures=tuple(failures(list(failed))),
                curves=mine,
            )
        )
    return made


def _inputs(
    results: Sequence[Result], rows: Sequence[Row], loader_rows: Sequence[LoaderRow]
) -> list[Section]:
    if not loader_rows:
        return []
    named = [(each.workload.program, each.ranks, each.nodes, each.failures) for each in loader_rows]
    return [
        Section(
            name="input",
            title="Input pipeline alone",
            scaling="",
            sentence=input_sentence([result for result in results if result.kind == "input"]),
            notes=_held_back(results, rows, loader_rows),
            grid=loader_grid(loader_rows),
            failures=tuple(failures(named)),
        )
    ]


def _held_back(
    results: Sequence[Result], rows: Sequence[Row], loader_rows: Sequence[LoaderRow]
) -> tuple[str, ...]:
    """Which trainings; how much is said with each."""
    named = titles(list(by_workload(results)))
    workloads = dict.fromkeys(row.workload for row in rows if is_input_bound(row, loader_rows))
    return tuple(
        f"input-bound: {named[workload]}, {workload.scaling} scaling." for workload in workloads
    )
