"""The report's plots, as SVG that takes its colours and its font from the page around it."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from hvdtools.bench.stats import Row, Span

MARKERS = ("o", "s", "^", "D", "v", "P")
# Stand-ins that matplotlib writes and the page's variables replace, for light and dark.
_INK, _GRID = "#010101", "#020202"
_VARIABLES = {_INK: "var(--ink)", _GRID: "var(--line)"} | {
    f"#03030{number}": f"var(--engine-{number})" for number in range(len(MARKERS))
}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # words stay words: they can be found, read aloud and restyled
    "text.color": _INK,
    "axes.labelcolor": _INK,
    "axes.edgecolor": _GRID,
    "xtick.color": _GRID,
    "ytick.color": _GRID,
    "xtick.labelcolor": _INK,
    "ytick.labelcolor": _INK,
    "grid.color": _GRID,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "font.size": 10.5,
}
_WIDTH_IN, _HEIGHT_IN = 5.0, 3.7
_DODGE = 0.055  # of an x-step, so that intervals stand side by side


def throughput(rows: Sequence[Row], framework: str) -> str:
    """Samples/s against ranks with quartiles; dashed, each engine's own one rank times ranks."""

    def draw(axes: Axes) -> None:
        _lines(axes, rows, lambda row: row.samples_per_s)
        ranks = _ranks(rows)
        for number, engine in enumerate(engines(rows)):
            alone = [row.samples_per_s for row in rows if (row.engine, row.ranks) == (engine, 1)]
            if alone and alone[0] is not None:
                ideal = [alone[0].middle * count for count in ranks]
                axes.plot(range(len(ranks)), ideal, "--", color=f"#03030{number}", lw=1, alpha=0.7)
        axes.set_ylabel("samples/s, all ranks together")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))

    return _svg(f"throughput-{framework}", "Samples per second against ranks", rows, draw)


def efficiency(rows: Sequence[Row], framework: str) -> str:
    """Scaling efficiency against ranks with the range over rounds; dashed, the ideal."""

    def draw(axes: Axes) -> None:
        _lines(axes, rows, lambda row: row.efficiency)
        axes.axhline(1, ls="--", color=_INK, lw=1, alpha=0.7)
        axes.set_ylabel("scaling efficiency")
        axes.set_ylim(bottom=0)
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))

    return _svg(f"efficiency-{framework}", "Scaling efficiency against ranks", rows, draw)


def engines(rows: Sequence[Row]) -> list[str]:
    """The engines in their order; the number of each is that of its colour and marker."""
    return list(dict.fromkeys(row.engine for row in rows))


def _ranks(rows: Sequence[Row]) -> list[int]:
    return sorted({row.ranks for row in rows})


def _lines(axes: Axes, rows: Sequence[Row], value: Callable[[Row], Span | None]) -> None:
    """One line an engine; rank counts stand at equal distances, 1 2 4 8 as on a log axis."""
    ranks, names = _ranks(rows), engines(rows)
    for number, engine in enumerate(names):
        found = [(row.ranks, value(row)) for row in rows if row.engine == engine]
        points = [(ranks.index(count), span) for count, span in found if span is not None]
        shift = _DODGE * (number - (len(names) - 1) / 2)
        axes.errorbar(
            [place + shift for place, _ in points],
            [span.middle for _, span in points],
            yerr=[
                [span.middle - span.low for _, span in points],
                [span.high - span.middle for _, span in points],
            ],
            color=f"#03030{number}",
            marker=MARKERS[number],
            markersize=6,
            lw=1.8,
            capsize=3,
        )


def _svg(name: str, title: str, rows: Sequence[Row], draw: Callable[[Axes], None]) -> str:
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH_IN, _HEIGHT_IN), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        ranks = _ranks(rows)
        axes.set_xticks(range(len(ranks)), [str(count) for count in ranks])
        axes.set_xlim(-0.25, len(ranks) - 0.75)
        axes.set_xlabel("ranks")
        axes.grid(visible=False, axis="x")
        text = io.StringIO()
        nothing = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(text, format="svg", transparent=True, metadata=nothing)
    return _for_the_page(text.getvalue(), name, title)


def _for_the_page(svg: str, name: str, title: str) -> str:
    """The bare <svg> with the page's colours and font, and ids that no other plot has."""
    svg = svg[svg.index("<svg") :]
    for stand_in, variable in _VARIABLES.items():
        svg = svg.replace(stand_in, variable)
    svg = re.sub(r"font-family: [^;\"]*", "font-family: inherit", svg)
    svg = re.sub(r'id="', f'id="{name}-', svg)
    svg = re.sub(r'href="#', f'href="#{name}-', svg)
    svg = re.sub(r"url\(#", f"url(#{name}-", svg)
    return svg.replace("<svg ", f'<svg role="img" aria-label="{title}" ', 1)
