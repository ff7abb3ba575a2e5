"""The page's figures: each a plot with its heading and a sentence that says how to read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hvdtools.bench.analysis.curves import Curve
from hvdtools.bench.analysis.stats import Row
from hvdtools.bench.report import curve_plots, plots
from hvdtools.bench.report.drawing import mark_svg
from hvdtools.bench.report.grids import size_words
from hvdtools.bench.report.palette import HATCHES, mark_of

_MIXED = " Where that engine was not run, the backward pass holds all waiting for communication."


@dataclass(frozen=True)
class Figure:
    """One figure.

    Attributes:
        title, caption: What it shows, and how to read it.
        plot: An <svg>.
        phases: The legend of a time split: (phase, its name in words, hatch).
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
    """(<svg> of the mark, engine)."""
    return [(mark_svg(mark_of(engine)), engine) for engine in engines]


def training_panel(name: str, rows: Sequence[Row]) -> Panel:
    """Throughput, efficiency, and where the time goes; what there is of them."""
    if not plots.engines(rows):
        return Panel(f"{name}-plots", "", ())
    made = [
        Figure(
            "Throughput",
            plots.throughput(f"{name}-throughput", rows),
            "Higher is better. Dashed is the ideal: an engine’s own single rank times the number "
            "of ranks. Bars are 95\u00a0% intervals.",
        )
    ]
    if any(row.efficiency is not None and row.ranks > 1 for row in rows):
        made.append(
            Figure(
                "Scaling efficiency",
                plots.efficiency(
                    f"{name}-efficiency", rows, lambda row: row.efficiency, "1 measured rank"
                ),
                "Samples a second over the number of ranks times the engine’s own on one rank, in "
                "the same repeats. Dashed is the ideal, 100\u00a0%. Bars are 95\u00a0% intervals.",
            )
        )
    across = [row for row in rows if row.node_efficiency is not None]
    if across:
        made.append(
            Figure(
                "Efficiency across nodes",
                plots.efficiency(
                    f"{name}-nodes", across, lambda row: row.node_efficiency, "1 measured node"
                ),
                "Samples a second over the number of nodes times the engine’s own on one full "
                "node: what the network between nodes costs, apart from what a node costs itself.",
            )
        )
    if any(row.split is not None for row in rows):
        made.append(_time_split(name, rows))
    return Panel(f"{name}-plots", "", tuple(made))


def _time_split(name: str, rows: Sequence[Row]) -> Figure:
    splits = [row.split for row in rows if row.split is not None]
    took = [plots.phases_of(each) for each in splits]
    shown = [phase for phase in took[0] if any(each[phase] > 0 for each in took)]
    mixed = any(each.backward_holds_communication for each in splits)
    words = {"communication": "exposed communication", "input": "input wait"}
    phases = [
        (phase, words.get(phase, phase), "dots" if phase == "input" else HATCHES.get(phase, ""))
        for phase in shown
    ]
    if mixed:
        phases.append(("backward", "backward with communication in it", "xxx"))
    return Figure(
        "Where the time goes",
        plots.time_split(f"{name}-split", rows),
        "The slowest rank’s step, in its order. Exposed communication is what the step takes more "
        "than under the engine that communicates nothing; what hides behind the backward pass "
        "is not in it. Where a step took less, all its phases are shortened."
        f"{_MIXED if mixed else ''}",
        phases=tuple(phases),
    )


def allreduce_panels(name: str, curves: Sequence[Curve]) -> tuple[Panel, ...]:
    """One for each size of job and kind of message: most ranks first."""
    drawn = [curve for curve in curves if curve.points]
    kinds = dict.fromkeys((each.dtype, each.tensors) for each in drawn)
    sizes = sorted({(each.nodes, each.ranks) for each in drawn}, reverse=True)
    panels: list[Panel] = []
    for nodes, ranks in sizes:
        for dtype, tensors in kinds:
            key = (nodes, ranks, dtype, tensors)
            mine = [c for c in drawn if (c.nodes, c.ranks, c.dtype, c.tensors) == key]
            if mine:
                of_tensors = f", {tensors} tensors a message" if tensors > 1 else ""
                title = f"{size_words(ranks, nodes)}, {dtype}{of_tensors}"
                panels.append(_allreduce_panel(f"{name}-{len(panels) + 1}", title, mine))
    return tuple(panels)


def _allreduce_panel(name: str, title: str, curves: Sequence[Curve]) -> Panel:
    bandwidth = Figure(
        "Bus bandwidth",
        curve_plots.bandwidth(f"{name}-bandwidth", curves),
        "Higher is better. What the wires saw: bytes ÷ time × 2 (N − 1) ÷ N for N ranks, GB as "
        "1e9 bytes. Both axes are logarithmic. Bars are 95\u00a0% intervals.",
    )
    latency = Figure(
        "Time of one all-reduce",
        curve_plots.latency(f"{name}-latency", curves),
        "Lower is better. Where the line is flat, latency is all of it. Both axes are logarithmic.",
    )
    return Panel(name, title, (bandwidth, latency))
