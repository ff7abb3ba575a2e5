"""Efficiency as measured and as predicted, against ranks."""

from __future__ import annotations

from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from hvdtools.bench.analysis.stats import Row
from hvdtools.bench.predict.forecast import Forecast
from hvdtools.bench.report.drawing import INK, line_style, svg
from hvdtools.bench.report.palette import mark_of
from hvdtools.bench.report.plots import error_bars, from_nothing

_MOST_TICKS = 8


def measured_against_predicted(
    name: str, rows: Sequence[Row], forecasts: Sequence[Forecast]
) -> str:
    """Marks are measured, lines predicted, crosses predicted without having seen the mark there."""

    def draw(axes: Axes) -> None:
        for forecast in forecasts:
            mine = [row for row in rows if row.engine == forecast.engine]
            _predicted(axes, forecast)
            _measured(axes, mine)
            _held_out(axes, forecast, mine)
        axes.axhline(1, ls=(0, (5, 3)), color=INK, lw=1.1, alpha=0.75)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_locator(FixedLocator(_ticks(rows, forecasts)))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda ranks, _: f"{ranks:,.0f}"))
        predicted = [each.efficiency for forecast in forecasts for each in forecast.predictions]
        from_nothing(axes, [*predicted, *(row.efficiency for row in rows)], ideal=1)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:.0f} %"))
        axes.set_xlabel("ranks")
        axes.set_ylabel("efficiency against 1 measured rank")

    return svg(name, "Efficiency against ranks, measured and predicted, for each engine", draw)


def _ticks(rows: Sequence[Row], forecasts: Sequence[Forecast]) -> list[int]:
    predicted = {each.ranks for forecast in forecasts for each in forecast.predictions}
    ranks = sorted(predicted | {row.ranks for row in rows})
    return ranks[:: len(ranks) // _MOST_TICKS + 1]


def _predicted(axes: Axes, forecast: Forecast) -> None:
    shown = sorted(forecast.predictions, key=lambda each: each.ranks)
    ranks = [each.ranks for each in shown]
    style = line_style(mark_of(forecast.engine)) | {"marker": ""}
    axes.plot(ranks, [each.efficiency.middle for each in shown], **style)
    axes.fill_between(
        ranks,
        [each.efficiency.low for each in shown],
        [each.efficiency.high for each in shown],
        color=style["color"],
        alpha=0.14,
        lw=0,
    )


def _measured(axes: Axes, rows: Sequence[Row]) -> None:
    found = [(row.ranks, row.efficiency) for row in rows if row.efficiency is not None]
    if found:
        axes.errorbar(
            [ranks for ranks, _ in found],
            [span.middle for _, span in found],
            yerr=error_bars([span for _, span in found]),
            capsize=3,
            elinewidth=1.3,
            **line_style(mark_of(rows[0].engine)) | {"lw": 0},
        )


def _held_out(axes: Axes, forecast: Forecast, rows: Sequence[Row]) -> None:
    """The efficiency that the predicted step would have been."""
    known = {(row.ranks, row.nodes): row.efficiency for row in rows}
    points = []
    for each in forecast.held_out:
        span = known.get((each.ranks, each.nodes))
        if span is not None:
            points.append((each.ranks, span.middle * each.measured_s / each.predicted_s))
    style = line_style(mark_of(forecast.engine)) | {"marker": "x", "markersize": 8, "lw": 0}
    axes.plot([ranks for ranks, _ in points], [share for _, share in points], **style)
