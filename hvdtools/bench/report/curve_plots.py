"""The plots of all-reduces: bandwidth and time against message size."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator

from hvdtools.bench.analysis.curves import Curve, CurvePoint
from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.report.curve_grids import bus_span
from hvdtools.bench.report.drawing import line_style, svg
from hvdtools.bench.report.palette import mark_of
from hvdtools.bench.report.plots import error_bars
from hvdtools.bench.report.words import bytes_in_words, seconds_in_words


def bandwidth(name: str, curves: Sequence[Curve]) -> str:
    """Bus GB/s against message size, an engine a line."""

    def draw(axes: Axes) -> None:
        _lines(axes, curves, bus_span)
        axes.set_ylabel("bus GB/s")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    return svg(name, "Bus bandwidth against message size, for each engine", draw)


def latency(name: str, curves: Sequence[Curve]) -> str:
    """Time of one all-reduce against message size, an engine a line."""

    def draw(axes: Axes) -> None:
        _lines(axes, curves, lambda point, _: point.op_s)
        axes.set_ylabel("one all-reduce")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _short(value)))

    return svg(name, "Time of one all-reduce against message size, for each engine", draw)


def _short(seconds: float) -> str:
    """ "100 µs", not "100.0 µs": every tick is a power of ten."""
    number, unit = seconds_in_words(seconds).split("\u00a0")
    return f"{float(number.replace(',', '')):g} {unit}"


def _lines(axes: Axes, curves: Sequence[Curve], value: Callable[[CurvePoint, int], Span]) -> None:
    for curve in curves:
        spans = [value(point, curve.ranks) for point in curve.points]
        axes.errorbar(
            [point.message_bytes for point in curve.points],
            [span.middle for span in spans],
            yerr=error_bars(spans),
            capsize=2,
            elinewidth=1.1,
            **line_style(mark_of(curve.engine)) | {"markersize": 4.5, "lw": 1.5},
        )
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    middles = [value(p, curve.ranks).middle for curve in curves for p in curve.points]
    # A wide interval leaves the plot sooner than flatten the rest; on one rank nothing is sent.
    if min(middles) > 0:
        axes.set_ylim(min(middles) / 2.5, max(middles) * 2.5)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: bytes_in_words(size)))
    axes.minorticks_off()
    axes.tick_params(axis="x", labelrotation=35)
    axes.set_xlabel("message on each rank")
