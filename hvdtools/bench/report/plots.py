"""The plots of the page: trainings, all-reduces and predictions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from hvdtools.bench.analysis.allreduce import AllreduceCurve, AllreducePoint
from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.analysis.step_time import StepTime
from hvdtools.bench.analysis.training import TrainingRow
from hvdtools.bench.formatting import format_bytes, format_number, format_seconds, format_size
from hvdtools.bench.predict.engine_prediction import EnginePrediction
from hvdtools.bench.report.palette import HATCHES, mark_of
from hvdtools.bench.report.svg import INK, PANEL, PHASE_COLORS, line_style, plot_svg

_HIGHEST_END = 1.7  # times the largest value: how far an axis extends to show an interval
_DODGE = 0.05  # of the distance between sizes, so that intervals do not overlap
_BAR_IN, _GAP_IN, _MARGIN_IN = 0.26, 0.36, 0.62  # heights of a bar, a group's name, the rest
_MOST_TICKS = 8


def throughput(name: str, rows: Sequence[TrainingRow]) -> str:
    """Samples/s against ranks; dashed, the rate of one rank times ranks for each engine."""

    def draw(axes: Axes) -> None:
        _engine_lines(axes, rows, lambda row: row.samples_per_s)
        most = 0.0
        for engine in engines_of(rows):
            ideal = _ideal_rates(rows, engine)
            style = line_style(mark_of(engine)) | {"marker": "", "lw": 1.1}
            axes.plot(range(len(ideal)), ideal, ls=(0, (5, 3)), alpha=0.75, **style)
            most = max([most, *ideal])
        _rank_axis(axes, rows)
        axes.set_ylabel("samples/s, all ranks together")
        _axis_from_zero(axes, [row.samples_per_s for row in rows], ideal=most)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))

    return plot_svg(name, "Samples per second against ranks, for each engine", draw)


def _ideal_rates(rows: Sequence[TrainingRow], engine: str) -> list[float]:
    """The rate of one rank times the ranks of each size; empty where one rank was not measured."""
    alone = [row.samples_per_s for row in rows if (row.engine, row.ranks) == (engine, 1)]
    if not alone or alone[0] is None:
        return []
    return [alone[0].value * ranks for _, ranks in _sizes(rows)]


def efficiency(
    name: str,
    rows: Sequence[TrainingRow],
    value: Callable[[TrainingRow], Estimate | None],
    against: str,
) -> str:
    """An efficiency against ranks; dashed, the ideal."""

    def draw(axes: Axes) -> None:
        _engine_lines(axes, rows, value)
        _rank_axis(axes, rows)
        _efficiency_axis(axes, [value(row) for row in rows], against)

    return plot_svg(
        name, f"Efficiency against {against}, for each engine and number of ranks", draw
    )


def step_times(name: str, rows: Sequence[TrainingRow]) -> str:
    """A bar for each engine and size, from the left in the order of a step, grouped by size."""
    timed = [row for row in rows if row.step_time is not None]
    groups = _sizes(timed)
    height_in = _BAR_IN * len(timed) + _GAP_IN * len(groups) + _MARGIN_IN

    def draw(axes: Axes) -> None:
        positions, labels, y = [], [], 0.0
        for nodes, ranks in groups:
            y += _GAP_IN / _BAR_IN
            axes.annotate(
                format_size(ranks, nodes), (0, y - 0.62), xycoords=("axes fraction", "data"),
                va="bottom", fontweight="bold", fontsize=9.5,
            )  # fmt: skip
            for row in (row for row in timed if (row.nodes, row.ranks) == (nodes, ranks)):
                if row.step_time is not None:
                    _bar(axes, y, row.step_time)
                positions.append(y)
                labels.append(row.engine)
                y += 1
        axes.set_yticks(positions, labels)
        axes.tick_params(axis="y", length=0)
        axes.set_ylim(y - 0.3, 0)
        axes.set_xlim(left=0)
        axes.margins(x=0.16)
        axes.grid(visible=False, axis="y")
        axes.spines["left"].set_visible(False)
        axes.set_xlabel("milliseconds of a step")

    label = "Where the time of a step goes, for each engine and number of ranks"
    return plot_svg(name, label, draw, height_in)


def _bar(axes: Axes, y: float, step_time: StepTime) -> None:
    left_ms = 0.0
    for phase, seconds in step_time.by_phase.items():
        mixed = phase == "backward" and step_time.communication_s is None
        style: dict[str, Any] = {"color": PHASE_COLORS[phase], "edgecolor": PANEL, "linewidth": 1}
        hatch = "xxx" if mixed else HATCHES.get(phase)
        axes.barh(y, 1e3 * seconds, height=0.74, left=left_ms, hatch=hatch, **style)
        left_ms += 1e3 * seconds
    axes.annotate(
        format_number(left_ms), (left_ms, y), xytext=(4, 0), textcoords="offset points",
        va="center", fontsize=9,
    )  # fmt: skip


def engines_of(rows: Sequence[TrainingRow]) -> list[str]:
    """The engines that worked, in their order."""
    return list(dict.fromkeys(row.engine for row in rows if row.samples_per_s is not None))


def bus_bandwidth(name: str, curves: Sequence[AllreduceCurve]) -> str:
    """Bus bandwidth against message size, a line for each engine."""

    def draw(axes: Axes) -> None:
        _message_lines(axes, curves, lambda point: point.busbw_gb_per_s)
        axes.set_ylabel("bus GB/s")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))

    return plot_svg(name, "Bus bandwidth against message size, for each engine", draw)


def allreduce_time(name: str, curves: Sequence[AllreduceCurve]) -> str:
    """Time of one all-reduce against message size, a line for each engine."""

    def draw(axes: Axes) -> None:
        _message_lines(axes, curves, lambda point: point.op_s)
        axes.set_ylabel("one all-reduce")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: _time_tick(value)))

    return plot_svg(name, "Time of one all-reduce against message size, for each engine", draw)


def _time_tick(seconds: float) -> str:
    """ "100 µs", not "100.0 µs": every tick is a power of ten."""
    number, unit = format_seconds(seconds).split("\u00a0")
    return f"{float(number.replace(',', '')):g} {unit}"


def _message_lines(
    axes: Axes, curves: Sequence[AllreduceCurve], value: Callable[[AllreducePoint], Estimate]
) -> None:
    for curve in curves:
        points = [(point.message_bytes, value(point)) for point in curve.points]
        smaller = {"capsize": 2, "elinewidth": 1.1, "markersize": 4.5, "lw": 1.5}
        _draw_estimates(axes, curve.engine, points, **smaller)
    axes.set_xscale("log", base=2)
    axes.set_yscale("log")
    values = [value(point).value for curve in curves for point in curve.points]
    # A wide interval is cut rather than flattening the rest; on one rank the bandwidth is 0.
    if min(values) > 0:
        axes.set_ylim(min(values) / 2.5, max(values) * 2.5)
    axes.xaxis.set_major_locator(LogLocator(base=2, numticks=8))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda size, _: format_bytes(size)))
    axes.minorticks_off()
    axes.tick_params(axis="x", labelrotation=35)
    axes.set_xlabel("message on each rank")


def predicted_efficiency(
    name: str, rows: Sequence[TrainingRow], predictions: Sequence[EnginePrediction]
) -> str:
    """Efficiency against ranks: measured as marks, predicted as lines, held out as crosses."""

    def draw(axes: Axes) -> None:
        for prediction in predictions:
            mine = [row for row in rows if row.engine == prediction.engine]
            measured = [(row.ranks, row.efficiency) for row in mine if row.efficiency is not None]
            _predicted(axes, prediction)
            if measured:
                _draw_estimates(axes, prediction.engine, measured, lw=0)
            _held_out(axes, prediction, mine)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(_rank_ticks(rows, predictions)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda ranks, _: f"{ranks:,.0f}"))
        axes.set_xlabel("ranks")
        predicted = [size.efficiency for each in predictions for size in each.sizes]
        _efficiency_axis(axes, [*predicted, *(row.efficiency for row in rows)], "1 measured rank")

    label = "Efficiency against ranks, measured and predicted, for each engine"
    return plot_svg(name, label, draw)


def _rank_ticks(rows: Sequence[TrainingRow], predictions: Sequence[EnginePrediction]) -> list[int]:
    predicted = {size.ranks for each in predictions for size in each.sizes}
    ranks = sorted(predicted | {row.ranks for row in rows})
    return ranks[:: len(ranks) // _MOST_TICKS + 1]


def _predicted(axes: Axes, prediction: EnginePrediction) -> None:
    sizes = sorted(prediction.sizes, key=lambda size: size.ranks)
    ranks = [size.ranks for size in sizes]
    style = line_style(mark_of(prediction.engine)) | {"marker": ""}
    axes.plot(ranks, [size.efficiency.value for size in sizes], **style)
    axes.fill_between(
        ranks,
        [size.efficiency.low for size in sizes],
        [size.efficiency.high for size in sizes],
        color=style["color"],
        alpha=0.14,
        lw=0,
    )


def _held_out(axes: Axes, prediction: EnginePrediction, rows: Sequence[TrainingRow]) -> None:
    """The efficiency at the predicted step time."""
    measured = {(row.ranks, row.nodes): row.efficiency for row in rows}
    points = [
        (each.ranks, known.value * each.measured_s / each.predicted_s)
        for each in prediction.hold_outs
        if (known := measured.get((each.ranks, each.nodes))) is not None
    ]
    style = line_style(mark_of(prediction.engine)) | {"marker": "x", "markersize": 8, "lw": 0}
    axes.plot([ranks for ranks, _ in points], [share for _, share in points], **style)


def _sizes(rows: Sequence[TrainingRow]) -> list[tuple[int, int]]:
    """Every (nodes, ranks) that worked, rising."""
    return sorted({(row.nodes, row.ranks) for row in rows if row.samples_per_s is not None})


def _rank_axis(axes: Axes, rows: Sequence[TrainingRow]) -> None:
    """Sizes at equal distances: 1 2 4 8 as on a log axis."""
    sizes = _sizes(rows)
    several = any(nodes > 1 for nodes, _ in sizes)
    names = [f"{ranks}\n{nodes} n." if several else str(ranks) for nodes, ranks in sizes]
    axes.set_xticks(range(len(sizes)), names)
    axes.set_xlim(-0.3, len(sizes) - 0.7)
    axes.set_xlabel("ranks, and number of nodes (n.)" if several else "ranks")
    axes.grid(visible=False, axis="x")


def _engine_lines(
    axes: Axes, rows: Sequence[TrainingRow], value: Callable[[TrainingRow], Estimate | None]
) -> None:
    """A line for each engine, with its intervals."""
    sizes, engines = _sizes(rows), engines_of(rows)
    for number, engine in enumerate(engines):
        found = [((row.nodes, row.ranks), value(row)) for row in rows if row.engine == engine]
        shift = _DODGE * (number - (len(engines) - 1) / 2)
        points = [(sizes.index(size) + shift, each) for size, each in found if each is not None]
        _draw_estimates(axes, engine, points)


def _efficiency_axis(axes: Axes, estimates: Sequence[Estimate | None], against: str) -> None:
    axes.axhline(1, ls=(0, (5, 3)), color=INK, lw=1.1, alpha=0.75)
    axes.set_ylabel(f"efficiency against {against}")
    _axis_from_zero(axes, estimates, ideal=1)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))


def _axis_from_zero(axes: Axes, estimates: Sequence[Estimate | None], ideal: float) -> None:
    """Start the axis at 0, and cut a wide interval rather than flatten the rest."""
    known = [estimate for estimate in estimates if estimate is not None]
    most = max((estimate.value for estimate in known), default=ideal)
    wanted = [ideal, most, *(estimate.high for estimate in known if estimate.has_interval)]
    axes.set_ylim(0, 1.06 * max(most, min(max(wanted), _HIGHEST_END * most)))


def _draw_estimates(
    axes: Axes, engine: str, points: Sequence[tuple[float, Estimate]], **style: Any
) -> None:
    """The (x, estimate) of an engine as marks on a line, with their intervals if there are any."""
    default: dict[str, Any] = {"capsize": 3, "elinewidth": 1.3, **line_style(mark_of(engine))}
    known = [each if each.has_interval else Estimate(*(each.value,) * 3) for _, each in points]
    axes.errorbar(
        [x for x, _ in points],
        [each.value for each in known],
        yerr=[
            [each.value - each.low for each in known],
            [each.high - each.value for each in known],
        ],
        **default | style,
    )
