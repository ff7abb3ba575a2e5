"""The plots of a training: throughput, efficiency, and where the time of a step goes."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.analysis.split import Split
from hvdtools.bench.analysis.stats import Row
from hvdtools.bench.report.drawing import INK, PANEL, PHASE_COLOURS, line_style, svg
from hvdtools.bench.report.grids import size_words
from hvdtools.bench.report.palette import HATCHES, mark_of
from hvdtools.bench.report.words import rate_in_words

_MOST = 1.7  # times the largest value: so high may an axis reach for the sake of an interval
_DODGE = 0.05  # of an x-step, so that intervals stand side by side
_BAR_IN, _GAP_IN, _AROUND_IN = 0.26, 0.36, 0.62  # heights of a bar, of a group's name, of the rest


def throughput(name: str, rows: Sequence[Row]) -> str:
    """Samples/s against ranks; dashed, each engine's own one rank times ranks."""

    def draw(axes: Axes) -> None:
        _lines(axes, rows, lambda row: row.samples_per_s)
        most = 0.0
        for engine in engines(rows):
            ideal = _ideal(rows, engine)
            style = line_style(mark_of(engine)) | {"marker": "", "lw": 1.1}
            axes.plot(range(len(ideal)), ideal, ls=(0, (5, 3)), alpha=0.75, **style)
            most = max([most, *ideal])
        _rank_axis(axes, rows)
        axes.set_ylabel("samples/s, all ranks together")
        from_nothing(axes, [row.samples_per_s for row in rows], ideal=most)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))

    return svg(name, "Samples per second against ranks, for each engine", draw)


def _ideal(rows: Sequence[Row], engine: str) -> list[float]:
    """One rank's rate times the ranks of each size; nothing where one rank was not measured."""
    alone = [row.samples_per_s for row in rows if (row.engine, row.ranks) == (engine, 1)]
    if not alone or alone[0] is None:
        return []
    return [alone[0].middle * ranks for _, ranks in _sizes(rows)]


def efficiency(
    name: str, rows: Sequence[Row], value: Callable[[Row], Span | None], against: str
) -> str:
    """An efficiency against ranks; dashed, the ideal."""

    def draw(axes: Axes) -> None:
        _lines(axes, rows, value)
        axes.axhline(1, ls=(0, (5, 3)), color=INK, lw=1.1, alpha=0.75)
        _rank_axis(axes, rows)
        axes.set_ylabel(f"efficiency against {against}")
        from_nothing(axes, [value(row) for row in rows], ideal=1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))

    return svg(name, f"Efficiency against {against}, for each engine and number of ranks", draw)


def time_split(name: str, rows: Sequence[Row]) -> str:
    """A bar an engine and size, from the left in the order of a step; a group a size."""
    told = [row for row in rows if row.split is not None]
    groups = _sizes(told)
    height_in = _BAR_IN * len(told) + _GAP_IN * len(groups) + _AROUND_IN

    def draw(axes: Axes) -> None:
        places, labels, place = [], [], 0.0
        for nodes, ranks in groups:
            place += _GAP_IN / _BAR_IN
            axes.annotate(
                size_words(ranks, nodes), (0, place - 0.62), xycoords=("axes fraction", "data"),
                va="bottom", fontweight="bold", fontsize=9.5,
            )  # fmt: skip
            for row in (row for row in told if (row.nodes, row.ranks) == (nodes, ranks)):
                if row.split is not None:
                    _bar(axes, place, row.split)
                places.append(place)
                labels.append(row.engine)
                place += 1
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(place - 0.3, 0)
        axes.set_xlim(left=0)
        axes.margins(x=0.16)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("milliseconds of a step")

    label = "Where the time of a step goes, for each engine and number of ranks"
    return svg(name, label, draw, height_in)


def phases_of(split: Split) -> dict[str, float]:
    """Seconds of a step by phase, in their order; together they are the step.

    An engine that took less than none at all has no communication to draw, and the
    other phases shortened alike.
    """
    communication_s = split.communication_s or 0.0
    computing_s = split.step_s - communication_s
    short = min(split.step_s / computing_s, 1.0) if computing_s > 0 else 1.0
    return {
        "input": short * split.input_s,
        "forward": short * split.forward_s,
        "backward": short * split.backward_s,
        "communication": max(communication_s, 0.0),
        "optimizer": short * split.optimizer_s,
    }


def _bar(axes: Axes, place: float, split: Split) -> None:
    left_ms = 0.0
    for phase, seconds in phases_of(split).items():
        hidden = phase == "backward" and split.backward_holds_communication
        style: dict[str, Any] = {"color": PHASE_COLOURS[phase], "edgecolor": PANEL, "linewidth": 1}
        hatch = "xxx" if hidden else HATCHES.get(phase)
        axes.barh(place, 1e3 * seconds, height=0.74, left=left_ms, hatch=hatch, **style)
        left_ms += 1e3 * seconds
    axes.annotate(
        rate_in_words(left_ms), (left_ms, place), xytext=(4, 0), textcoords="offset points",
        va="center", fontsize=9,
    )  # fmt: skip


def engines(rows: Sequence[Row]) -> list[str]:
    """The engines that worked, in their order."""
    return list(dict.fromkeys(row.engine for row in rows if row.samples_per_s is not None))


def _sizes(rows: Sequence[Row]) -> list[tuple[int, int]]:
    """Every (nodes, ranks) that worked, rising."""
    return sorted({(row.nodes, row.ranks) for row in rows if row.samples_per_s is not None})


def _rank_axis(axes: Axes, rows: Sequence[Row]) -> None:
    """Sizes stand at equal distances: 1 2 4 8 as on a log axis."""
    sizes = _sizes(rows)
    several = any(nodes > 1 for nodes, _ in sizes)
    names = [f"{ranks}\n{nodes} n." if several else str(ranks) for nodes, ranks in sizes]
    axes.set_xticks(range(len(sizes)), names)
    axes.set_xlim(-0.3, len(sizes) - 0.7)
    axes.set_xlabel("ranks, on so many nodes (n.)" if several else "ranks")
    axes.grid(visible=False, axis="x")


def _lines(axes: Axes, rows: Sequence[Row], value: Callable[[Row], Span | None]) -> None:
    """One line an engine, with its intervals."""
    sizes, names = _sizes(rows), engines(rows)
    for number, engine in enumerate(names):
        found = [((row.nodes, row.ranks), value(row)) for row in rows if row.engine == engine]
        points = [(sizes.index(size), span) for size, span in found if span is not None]
        shift = _DODGE * (number - (len(names) - 1) / 2)
        axes.errorbar(
            [place + shift for place, _ in points],
            [span.middle for _, span in points],
            yerr=error_bars([span for _, span in points]),
            capsize=3,
            elinewidth=1.3,
            **line_style(mark_of(engine)),
        )


def from_nothing(axes: Axes, spans: Sequence[Span | None], ideal: float) -> None:
    """Let the axis begin at 0, and a wide interval leave the plot sooner than flatten the rest."""
    known = [span for span in spans if span is not None]
    middle = max((span.middle for span in known), default=ideal)
    wanted = [ideal, middle, *(span.high for span in known if math.isfinite(span.high))]
    axes.set_ylim(0, 1.06 * max(middle, min(max(wanted), _MOST * middle)))


def error_bars(spans: Sequence[Span]) -> list[list[float]]:
    """How far each interval reaches below and above its middle; nowhere where there is none."""
    known = [
        span if math.isfinite(span.low) and math.isfinite(span.high) else Span(*(span.middle,) * 3)
        for span in spans
    ]
    return [
        [span.middle - span.low for span in known],
        [span.high - span.middle for span in known],
    ]
