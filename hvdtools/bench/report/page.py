"""The report: one HTML file that holds all it shows and fetches nothing."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from hvdtools.bench.predict.forecast import Forecast
from hvdtools.bench.predict.forecasts import Forecasts
from hvdtools.bench.report import plots
from hvdtools.bench.report.cells import Grid
from hvdtools.bench.report.curve_grids import point_grid
from hvdtools.bench.report.figures import Panel, allreduce_panels, legend, training_panel
from hvdtools.bench.report.forecast_section import ForecastSection, forecast_section
from hvdtools.bench.report.palette import variables
from hvdtools.bench.report.sections import Section, sections
from hvdtools.bench.results import provenance
from hvdtools.bench.results.result_file import Result
from hvdtools.bench.suite.suite_file import word_for

PAGE_NAME = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Shown:
    """A section with its plots.

    Attributes:
        section: What is said.
        legend: (<svg> of the mark, engine).
        has_ideal: True if the legend explains a dashed line.
        panels: Of figures.
        more: A longer table, folded.
    """

    section: Section
    legend: list[tuple[str, str]]
    has_ideal: bool
    panels: tuple[Panel, ...]
    more: Grid | None = None


def write_page(
    folder: Path, results: Sequence[Result], predictions: Forecasts | None = None
) -> Path:
    """Write the page of one run's results; its path. An older page gives way whole, or not at all.

    Raises:
        ValueError: There are no results.
    """
    page = folder / PAGE_NAME
    unfinished = folder / f".{PAGE_NAME}.{os.getpid()}"
    unfinished.write_text(page_of(results, predictions), encoding="utf-8")
    unfinished.replace(page)
    return page


def page_of(results: Sequence[Result], predictions: Forecasts | None = None) -> str:
    """The page as text."""
    if not results:
        raise ValueError("a page needs at least one result")
    # Autoescape is what keeps a program's last words from being markup; the SVGs are our own.
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    last = results[-1]
    shown = [_shown(section) for section in sections(results)]
    files = {
        name: (_TEMPLATES / name).read_text() for name in ("style.css", "theme.js", "script.js")
    }
    return templates.get_template("report.html.j2").render(
        first=results[0],
        last=last,
        shown=shown,
        forecasts=_forecasts(shown, predictions.found) if predictions else [],
        not_predicted=predictions.missing if predictions else (),
        differences=provenance.differences(results),
        hardware=provenance.hardware(results),
        versions=provenance.versions(results),
        environment=provenance.environment(results),
        suite=word_for(last.suite),
        commands=provenance.commands(results),
        light=variables(dark=False),
        dark=variables(dark=True),
        files=files,
        script_hashes=[_hash(files[name]) for name in ("theme.js", "script.js")],
        baselines=_baselines(shown),
    )


def _shown(section: Section) -> Shown:
    if section.curves:
        drawn = dict.fromkeys(curve.engine for curve in section.curves if curve.points)
        panels = allreduce_panels(section.name, section.curves)
        more = point_grid(section.curves) if drawn else None
        return Shown(section, legend(list(drawn)), False, panels, more)
    panel = training_panel(section.name, section.rows)
    panels = (panel,) if panel.figures else ()
    return Shown(section, legend(plots.engines(section.rows)), bool(panels), panels)


def _forecasts(shown: Sequence[Shown], predictions: Sequence[Forecast]) -> list[ForecastSection]:
    made = []
    for each in shown:
        workloads = {row.workload for row in each.section.rows}
        if mine := [forecast for forecast in predictions if forecast.workload in workloads]:
            made.append(forecast_section(each.section, mine))
    return made


def _baselines(shown: Sequence[Shown]) -> set[str]:
    return {row.workload.family for each in shown for row in each.section.rows}


def _hash(script: str) -> str:
    """What a Content-Security-Policy calls an inline script that it lets run."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
