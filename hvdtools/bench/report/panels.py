"""The panels of the page: plots with a heading and a caption that explains how to read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis.allreduce import AllreduceCurve
from hvdtools.bench.analysis.training import TrainingRow
from hvdtools.bench.formatting import format_size
from hvdtools.bench.report import plots
from hvdtools.bench.report.palette import HATCHES, mark_of
from hvdtools.bench.report.svg import mark_svg

_PHASE_NAMES = {"communication": "exposed communication", "input": "input wait"}


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title, caption: What it shows, and how to read it.
        plot: An <svg>.
        phases: The legend of step times: (phase, its name for the reader, hatch).
    """

    title: str
    plot: str
    caption: str
    phases: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True)
class Panel:
    """Figures that are shown together; of several panels the reader chooses one."""

    name: str
    title: str
    figures: tuple[Figure, ...]


def legend(engines: Sequence[str]) -> list[tuple[str, str]]:
    """(<svg> of the mark, engine) of each."""
    return [(mark_svg(mark_of(engine)), engine) for engine in engines]


def training_panel(name: str, rows: Sequence[TrainingRow]) -> Panel:
    """Throughput, efficiency and step times, as far as they are known."""
    if not plots.engines_of(rows):
        return Panel(f"{name}-plots", "", ())
    figures = [
        Figure(
            "Throughput",
            plots.throughput(f"{name}-throughput", rows),
            "Higher is better. Dashed is the ideal: the rate of a single rank under the same "
            "engine times the number of ranks. Bars are 95\u00a0% intervals.",
        )
    ]
    if any(row.efficiency is not None and row.ranks > 1 for row in rows):
        figures.append(
            Figure(
                "Scaling efficiency",
                plots.efficiency(
                    f"{name}-efficiency", rows, lambda row: row.efficiency, "1 measured rank"
                ),
                "Samples/s over the number of ranks times the engine’s own on one rank, in the "
                "same repeats. Dashed is the ideal, 100\u00a0%. Bars are 95\u00a0% intervals.",
            )
        )
    across_nodes = [row for row in rows if row.node_efficiency is not None]
    if across_nodes:
        figures.append(
            Figure(
                "Efficiency across nodes",
                plots.efficiency(
                    f"{name}-nodes",
                    across_nodes,
                    lambda row: row.node_efficiency,
                    "1 measured node",
                ),
                "Samples/s over the number of nodes times the engine’s own on one full node: the "
                "cost of the network between nodes, without the costs within a node.",
            )
        )
    if any(row.step_time is not None for row in rows):
        figures.append(_step_times(name, rows))
    return Panel(f"{name}-plots", "", tuple(figures))


def _step_times(name: str, rows: Sequence[TrainingRow]) -> Figure:
    step_times = [row.step_time for row in rows if row.step_time is not None]
    by_phase = [each.by_phase for each in step_times]
    phases = [
        (
            phase,
            _PHASE_NAMES.get(phase, phase),
            "dots" if phase == "input" else HATCHES.get(phase, ""),
        )
        for phase in by_phase[0]
        if any(each[phase] > 0 for each in by_phase)
    ]
    caption = (
        "The slowest rank’s step, in its order. Exposed communication is how much longer the step "
        "takes than under the engine without communication; what overlaps with the backward pass "
        "is not included. Where a step takes less, all its phases are shortened."
    )
    if any(each.communication_s is None for each in step_times):
        phases.append(("backward", "backward including communication", "xxx"))
        caption += (
            " Where that engine was not run, the backward pass includes all waiting for "
            "communication."
        )
    plot = plots.step_times(f"{name}-split", rows)
    return Figure("Where the time goes", plot, caption, tuple(phases))


def allreduce_panels(name: str, curves: Sequence[AllreduceCurve]) -> tuple[Panel, ...]:
    """One for each size of job, type and number of tensors: most ranks first."""
    measured = [curve for curve in curves if curve.points]
    kinds = dict.fromkeys((each.dtype, each.tensors) for each in measured)
    sizes = sorted({(each.nodes, each.ranks) for each in measured}, reverse=True)
    panels: list[Panel] = []
    for nodes, ranks in sizes:
        for dtype, tensors in kinds:
            key = (nodes, ranks, dtype, tensors)
            mine = [c for c in measured if (c.nodes, c.ranks, c.dtype, c.tensors) == key]
            if mine:
                of_tensors = f", {tensors} tensors a message" if tensors > 1 else ""
                title = f"{format_size(ranks, nodes)}, {dtype}{of_tensors}"
                panels.append(_allreduce_panel(f"{name}-{len(panels) + 1}", title, mine))
    return tuple(panels)


def _allreduce_panel(name: str, title: str, curves: Sequence[AllreduceCurve]) -> Panel:
    bandwidth = Figure(
        "Bus bandwidth",
        plots.bus_bandwidth(f"{name}-bandwidth", curves),
        "Higher is better. What the links carry: bytes ÷ time × 2 (N − 1) ÷ N for N ranks; a GB is "
        "1e9 bytes. Both axes are logarithmic. Bars are 95\u00a0% intervals.",
    )
    latency = Figure(
        "Time of one all-reduce",
        plots.allreduce_time(f"{name}-latency", curves),
        "Lower is better. Where the line is flat, latency dominates. Both axes are logarithmic.",
    )
    return Panel(name, title, (bandwidth, latency))
