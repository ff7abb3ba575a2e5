"""Make the README's figure: a plot of a report, with its legend and in fixed colors.

    python docs/figure.py

A report's plots take their colors from the page around them; an <img> has no such page.
"""

from __future__ import annotations

import html
import re
from pathlib import Path

PROJECT = Path(__file__).parents[1]
REPORT = PROJECT / "benchmarks" / "results" / "2xH200" / "gpu" / "report.html"
FIGURE = PROJECT / "docs" / "pages" / "images" / "resnet50-2xH200.svg"
TITLE = "ResNet-50, bfloat16, NVIDIA H200 (NVLink)"
PLOT = "Samples per second against ranks, for each engine"
FONT = "font-family: system-ui, sans-serif"
HEAD_PT = 58


def figure(report: str) -> str:
    """The first training's plot of throughput in the report, as a file of its own."""
    section = report[report.index('<section aria-labelledby="training-1">') :]
    (width, height, plot) = re.search(
        rf'<svg role="img" aria-label="{PLOT}"[^>]*viewBox="0 0 (\S+) (\S+)"[^>]*>(.*?)</svg>',
        section,
        re.DOTALL,
    ).groups()  # type: ignore[union-attr]
    head = f'<text x="10" y="18" style="font-size: 12px; font-weight: 600">{TITLE}</text>'
    for number, (style, mark, name) in enumerate(_legend(section)):
        x, y = 10 + 170 * (number % 2), 36 + 16 * (number // 2)
        head += (
            f'<g transform="translate({x} {y - 10})" style="{style}">{mark}</g>'
            f'<text x="{x + 34}" y="{y}" style="font-size: 10.5px">{html.escape(name)}</text>'
        )
    box = f"0 0 {width} {float(height) + HEAD_PT:g}"
    text = (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{box}" role="img" aria-label="{TITLE}: {PLOT.lower()}" '
        f'style="{FONT}; fill: var(--ink)">'
        f'<rect width="100%" height="100%" style="fill: var(--panel)"/>{head}'
        f'<g transform="translate(0 {HEAD_PT})">{plot}</g></svg>\n'
    )
    return _with_colors(re.sub(r"\n\s*", " ", text).strip() + "\n", report)


def _legend(section: str) -> list[tuple[str, str, str]]:
    """(style, <svg> content, name) of each engine."""
    legend = section[: section.index("</ul>")]
    items = re.findall(
        r'<svg class="mark"[^>]*style="([^"]*)"[^>]*>(.*?)</svg>([^<]*)', legend, re.S
    )
    return [(style, mark, html.unescape(name).strip()) for style, mark, name in items]


def _with_colors(text: str, report: str) -> str:
    """Replace the page's variables with their values in the light theme."""
    light = report[report.index(":root {") :]
    values = dict(re.findall(r"--([\w-]+): (#\w+);", light[: light.index("}")]))
    return re.sub(r"var\(--([\w-]+)\)", lambda found: values[found[1]], text)


if __name__ == "__main__":
    FIGURE.parent.mkdir(exist_ok=True)
    FIGURE.write_text(figure(REPORT.read_text(encoding="utf-8")), encoding="utf-8")
