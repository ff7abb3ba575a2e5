"""The report: one HTML file that holds all it shows and fetches nothing."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from hvdtools.bench import plots, table
from hvdtools.bench.engines import FRAMEWORKS
from hvdtools.bench.results import Result
from hvdtools.bench.stats import Row, by_framework, summarise
from hvdtools.bench.suite import suite_names

PAGE_NAME = "report.html"
_TEMPLATES = Path(__file__).parent / "templates"
_SYMBOLS = ("●", "■", "▲", "◆", "▼", "⬟")  # as plots.MARKERS


@dataclass(frozen=True)
class Section:
    """What the page shows of one framework; plots are SVG, the rest is text."""

    title: str
    sentence: str
    legend: list[tuple[str, str]]
    throughput: str
    efficiency: str
    headings: tuple[str, ...]
    rows: list[tuple[str, ...]]
    failures: list[str]


def write_page(folder: Path, results: Sequence[Result]) -> Path:
    """Write the page of one run's results; its path. An older page gives way whole, or not at all.

    Raises:
        ValueError: There are no results.
    """
    page = folder / PAGE_NAME
    unfinished = folder / f".{PAGE_NAME}.{os.getpid()}"
    unfinished.write_text(page_of(results), encoding="utf-8")
    unfinished.replace(page)
    return page


def page_of(results: Sequence[Result]) -> str:
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
    return templates.get_template("report.html.j2").render(
        first=results[0],
        last=last,
        sections=[_section(*of_one) for of_one in by_framework(results).items()],
        facts=_facts(last),
        suite=last.suite if last.suite in suite_names() else f"{last.suite}.toml",
        commands=_commands(results),
    )


def _section(framework: str, results: Sequence[Result]) -> Section:
    rows = summarise(results)
    return Section(
        title=FRAMEWORKS[framework].name,
        sentence=_sentence(results),
        legend=list(zip(_SYMBOLS, plots.engines(rows), strict=False)),
        throughput=plots.throughput(rows, framework),
        efficiency=plots.efficiency(rows, framework) if _scales(rows) else "",
        headings=table.headings(framework),
        rows=[table.cells(row) for row in rows],
        failures=table.failures(rows),
    )


def _scales(rows: Sequence[Row]) -> bool:
    return any(row.efficiency is not None and row.ranks > 1 for row in rows)


def _sentence(results: Sequence[Result]) -> str:
    engines = list(dict.fromkeys(result.engine for result in results))
    ranks = sorted({result.ranks for result in results})
    rounds = max(result.round for result in results)
    counted = "1 round" if rounds == 1 else f"{rounds} rounds"
    first = results[0]
    return (
        f"{first.program} trains its {first.model} on {first.data} under {_listed(engines)}, on "
        f"{_listed([str(count) for count in ranks])} rank{'' if ranks == [1] else 's'} in "
        f"{counted}, with {first.batch_per_rank} samples per rank and step however many ranks "
        "there are (weak scaling)."
    )


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _facts(result: Result) -> list[tuple[str, str]]:
    """What it was measured on and with, in words."""
    gpus = result.hardware["gpus"]
    threads = f"{result.threads_per_rank} in each rank, whatever the number of ranks"
    return [
        ("CPU", f"{result.hardware['cpu']}, {result.hardware['cores_usable']} cores usable"),
        ("Memory", f"{result.hardware['memory_gib']} GiB"),
        ("GPUs", ", ".join(gpus) if isinstance(gpus, list) and gpus else "none"),
        ("Threads", threads),
        *((name, version) for name, version in result.versions.items()),
    ]


def _commands(results: Sequence[Result]) -> list[str]:
    """One case of each engine, on most ranks."""
    most = max(result.ranks for result in results)
    chosen = {result.engine: result.command for result in results if result.ranks == most}
    return list(chosen.values())
