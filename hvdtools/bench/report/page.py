"""The report as one self-contained HTML file: it loads nothing from a network."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from hvdtools.bench.analysis.summary import RunSummary
from hvdtools.bench.formatting import format_list
from hvdtools.bench.predict.run_prediction import RunPrediction
from hvdtools.bench.report.palette import css_variables
from hvdtools.bench.report.panels import Panel, allreduce_panels, legend, training_panel
from hvdtools.bench.report.plots import engines_of
from hvdtools.bench.report.prediction_section import PredictionSection, prediction_section
from hvdtools.bench.report.result_tables import point_table
from hvdtools.bench.report.sections import Section, sections_of
from hvdtools.bench.report.table import Table
from hvdtools.bench.results.result_file import replace_file
from hvdtools.bench.suite.suite_file import word_for

PAGE_NAME = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"
_SCRIPTS = ("theme.js", "script.js")


@dataclass(frozen=True)
class PageSection:
    """A section with its plots.

    Attributes:
        section: Heading, sentences and table.
        legend: (<svg> of the mark, engine) of each.
        has_ideal: True if the legend explains a dashed line.
        panels: Of figures.
        all_messages: A longer table, folded.
    """

    section: Section
    legend: list[tuple[str, str]]
    has_ideal: bool
    panels: tuple[Panel, ...]
    all_messages: Table | None = None


def write_page(folder: Path, run: RunSummary, prediction: RunPrediction | None = None) -> Path:
    """Write the page and return its path; if this fails, an older page stays unchanged.

    Raises:
        ValueError: The run has no results.
    """
    page = folder / PAGE_NAME
    replace_file(page, page_of(run, prediction))
    return page


def page_of(run: RunSummary, prediction: RunPrediction | None = None) -> str:
    """The page as text.

    Raises:
        ValueError: The run has no results.
    """
    if not run.results:
        raise ValueError("a page needs at least one result")
    # Autoescape keeps the output of a failed program from being markup; the SVGs are our own.
    templates = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    sections = [_with_plots(section) for section in sections_of(run)]
    files = {name: (_TEMPLATES / name).read_text() for name in ("style.css", *_SCRIPTS)}
    return templates.get_template("report.html.j2").render(
        first=run.results[0],
        last=run.results[-1],
        sections=sections,
        predictions=_predictions(sections, prediction) if prediction else [],
        not_predicted=prediction.missing if prediction else (),
        differing=format_list(run.provenance.differing) if run.provenance.differing else "",
        provenance=run.provenance,
        suite=word_for(run.results[-1].suite),
        light=css_variables(dark=False),
        dark=css_variables(dark=True),
        files=files,
        script_hashes=[_hash(files[name]) for name in _SCRIPTS],
        families={row.workload.family for row in run.training_rows},
    )


def _with_plots(section: Section) -> PageSection:
    if section.curves:
        measured = dict.fromkeys(curve.engine for curve in section.curves if curve.points)
        panels = allreduce_panels(section.name, section.curves)
        all_messages = point_table(section.curves) if measured else None
        return PageSection(section, legend(list(measured)), False, panels, all_messages)
    panel = training_panel(section.name, section.rows)
    panels = (panel,) if panel.figures else ()
    return PageSection(section, legend(engines_of(section.rows)), bool(panels), panels)


def _predictions(
    sections: Sequence[PageSection], prediction: RunPrediction
) -> list[PredictionSection]:
    made = []
    for each in sections:
        workloads = {row.workload for row in each.section.rows}
        if mine := [engine for engine in prediction.engines if engine.workload in workloads]:
            made.append(prediction_section(each.section, mine))
    return made


def _hash(script: str) -> str:
    """The hash by which a Content-Security-Policy allows an inline script."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return f"'sha256-{digest}'"
