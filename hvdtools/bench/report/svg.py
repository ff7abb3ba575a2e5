"""Matplotlib plots as SVG that takes its colors and its font from the page around it."""

from __future__ import annotations

import html
import io
import re
from collections.abc import Callable
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from hvdtools.bench.report.palette import PHASES, Mark, css_variables

# Matplotlib writes placeholder colors, which become the page's variables, for light and dark.
_VARIABLES = {f"#0101{number:02x}": name for number, name in enumerate(css_variables(dark=False))}
_PLACEHOLDERS = {name: placeholder for placeholder, name in _VARIABLES.items()}
INK, LINE, PANEL = _PLACEHOLDERS["ink"], _PLACEHOLDERS["line"], _PLACEHOLDERS["panel"]
PHASE_COLORS = {name: _PLACEHOLDERS[f"phase-{name}"] for name in PHASES}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # text stays text: it can be found, read aloud and restyled
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": LINE,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "hatch.color": PANEL,
    "hatch.linewidth": 1.2,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "font.size": 10.5,
}
_WIDTH_IN, _HEIGHT_IN = 5.0, 3.6
_MARKER_PATHS = {
    "o": "M10.5 7a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0 -9 0Z",
    "s": "M11 3H19V11H11Z",
    "^": "M15 2L20 11H10Z",
    "v": "M15 12L20 3H10Z",
    "D": "M15 1.5L20.5 7L15 12.5L9.5 7Z",
    "P": "M13.2 2h3.6v3.2h3.2v3.6h-3.2v3.2h-3.6v-3.2h-3.2v-3.6h3.2Z",
    "p": "M15 2L20 5.8L18.1 11.6H11.9L10 5.8Z",
}


def line_style(mark: Mark) -> dict[str, Any]:
    """Arguments of matplotlib's plot and errorbar for the line of an engine."""
    color = _PLACEHOLDERS[f"mark-{mark.number}"]
    return {
        "color": color,
        "marker": mark.shape,
        "markersize": 6,
        "markerfacecolor": PANEL if mark.hollow else color,
        "markeredgewidth": 1.3,
        "lw": 1.8,
    }


def plot_svg(
    name: str, label: str, draw: Callable[[Axes], None], height_in: float = _HEIGHT_IN
) -> str:
    """The plot that `draw` draws, as an <svg> for the page.

    Args:
        name: A prefix of every id in it; no two plots of a page have the same.
        label: For a screen reader.
    """
    with mpl.rc_context(_STYLE | {"svg.hashsalt": name}):
        figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
        draw(figure.add_subplot())
        text = io.StringIO()
        no_metadata = {"Date": None, "Creator": None, "Format": None, "Type": None}
        figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
    return _for_the_page(text.getvalue(), name, label)


def _for_the_page(text: str, name: str, label: str) -> str:
    """The bare <svg> with the page's colors and font, and ids that no other plot has."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # the page has that rule once
    text = re.sub(r"#0101[0-9a-f]{2}", lambda found: f"var(--{_VARIABLES[found[0]]})", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: inherit", text)
    text = re.sub(r"(font: [^;\"]*px) '[^;\"]*", r"\1 var(--font)", text)
    text = re.sub(r'id="', f'id="{name}-', text)
    text = re.sub(r'href="#', f'href="#{name}-', text)
    text = re.sub(r"url\(#", f"url(#{name}-", text)
    return text.replace("<svg ", f'<svg role="img" aria-label="{html.escape(label)}" ', 1)


def mark_svg(mark: Mark) -> str:
    """A mark on a piece of its line, for a legend."""
    fill = "var(--panel)" if mark.hollow else "currentColor"
    return (
        f'<svg class="mark" viewBox="0 0 30 14" aria-hidden="true" '
        f'style="color: var(--mark-{mark.number})">'
        '<path d="M1 7H29" stroke="currentColor" stroke-width="2.2"/>'
        f'<path d="{_MARKER_PATHS[mark.shape]}" fill="{fill}" stroke="currentColor" '
        'stroke-width="1.6"/></svg>'
    )
