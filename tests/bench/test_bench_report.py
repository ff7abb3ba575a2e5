"""The page and the tables show the numbers of the results, and the page loads nothing."""

from __future__ import annotations

import dataclasses
import io
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from bench_examples import allreduce_result, failed, loader_result, training_result
from bench_whole_run import HOSTILE, WRONG, prediction, trainings, whole_run
from rich.console import Console

import hvdtools.bench.report
from hvdtools.bench.analysis.summary import analyze
from hvdtools.bench.formatting import format_bytes, format_number, format_percent, format_seconds
from hvdtools.bench.report.console import print_run
from hvdtools.bench.report.page import PAGE_NAME, page_of, write_page
from hvdtools.bench.report.sections import Section, sections_of
from hvdtools.bench.results.result_file import Result


class Page(HTMLParser):
    """The tables, headings, links and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tables: list[list[list[str]]] = []  # rows of the values that cells sort by
        self.shown: list[list[list[str]]] = []  # the same as text
        self.headings: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        fetching = ("src", "href", "xlink:href", "srcset", "action", "data")
        self.links += [value for name, value in values.items() if name in fetching]
        if tag not in ("meta", "br", "link", "path", "use", "rect", "stop", "img", "input"):
            self._open.append(tag)
        if tag == "table":
            self.tables.append([])
            self.shown.append([])
        elif tag == "tr":
            self.tables[-1].append([])
            self.shown[-1].append([])
        elif tag == "td":
            self.tables[-1][-1].append(values["data-value"])
        if tag in ("td", "th"):
            self.shown[-1][-1].append("")
        if tag in ("h2", "h3"):
            self.headings.append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in self._open:
            while self._open.pop() != tag:
                pass

    def handle_data(self, data: str) -> None:
        if "style" in self._open or "script" in self._open:
            return
        self.texts.append(data)
        if {"td", "th"} & set(self._open):
            self.shown[-1][-1][-1] += data
        if {"h2", "h3"} & set(self._open):
            self.headings[-1] += data

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.texts))


RESULTS = whole_run()
RUN = analyze(RESULTS)
PREDICTION = prediction(RESULTS)


@pytest.fixture(scope="module")
def text() -> str:
    return page_of(RUN, PREDICTION)


@pytest.fixture(scope="module")
def page(text: str) -> Page:
    return Page(text)


def test_the_tables_hold_the_numbers_of_the_results(page: Page) -> None:
    expected = RUN.training_rows
    found = [row for table in page.tables[:4] for row in table if row]
    assert len(found) == len(expected)
    for cells, row in zip(found, expected, strict=True):
        assert cells[0] == row.engine
        assert [int(cells[1]), int(cells[2])] == [row.ranks, row.nodes]
        rate = row.samples_per_s
        assert cells[3] == ("" if rate is None else str(rate.value))
        efficiency = row.efficiency
        assert cells[4] == ("" if efficiency is None or row.ranks == 1 else str(efficiency.value))
        communication = row.step_time and row.step_time.communication_share
        for number in (row.input_share, communication, row.peak_memory_bytes):
            assert number is None or str(number) in cells


def test_an_interval_is_next_to_its_median(page: Page) -> None:
    rate = RUN.training_rows[1].samples_per_s
    assert rate is not None
    low, middle, high = (format_number(each) for each in (rate.low, rate.value, rate.high))
    assert page.shown[0][2][3] == f"{middle}[{low}–{high}]"


def test_scaling_is_named_in_every_heading_of_a_training(page: Page) -> None:
    assert page.headings.count("PyTorch: resnet50 on synthetic, bfloat16 weak scaling") >= 1
    assert page.headings.count("PyTorch: resnet50 on synthetic, bfloat16 strong scaling") >= 1
    trained = [each for each in page.headings if each.startswith(("PyTorch", "Keras"))]
    assert trained and all(each.endswith(("weak scaling", "strong scaling")) for each in trained)


def test_empty_columns_are_left_out(page: Page) -> None:
    heads = [" ".join(table[0]) for table in page.shown[:4]]
    assert ["node efficiency" in head for head in heads] == [False, False, True, False]
    assert ["accuracy" in head for head in heads] == [False, False, False, True]
    assert ["against DDP" in head for head in heads] == [True, True, True, False]
    assert "against MWMS" in heads[3]


def test_every_all_reduce_is_in_a_table_and_wrong_sums_are_highlighted(
    text: str, page: Page
) -> None:
    points = sum(len(curve.points) for curve in RUN.allreduce_curves)
    assert points == 2 * (3 * 5 + 3 * 5 + 2 * 5)
    assert points in [len(table) - 1 for table in page.tables]
    assert f'<strong class="alarm">{WRONG}</strong>' in text
    assert "mpi4py does not support float16: it has no such type" in page.text
    assert "4 ranks, float32, 16 tensors a message" in page.text


def test_an_input_bound_training_has_a_note(page: Page) -> None:
    assert "input-bound: on 1 rank training waits for its loader under hvdtools-mpi" in page.text
    assert "input-bound: Keras: cnn on digits, float32, weak scaling." in page.text
    assert page.text.count("input-bound: on") == 2  # a sentence a size, of Keras alone


def test_predictions_are_shown_with_their_error_and_their_network(page: Page) -> None:
    assert PREDICTION.engines and PREDICTION.engines[0].hold_outs
    error = PREDICTION.engines[0].hold_outs[0].error
    assert f"{100 * error:+.1f}\u00a0%".replace("-", "−") in " ".join(page.texts)
    assert "given: 100Gbit,5us" in page.text and "measured" in page.text
    assert "The network is 100Gbit,5us, as given by the user." in page.text
    assert "Predicted" in page.headings


def test_the_page_loads_nothing_and_forbids_it(text: str, page: Page) -> None:
    assert {"link", "img", "iframe", "object", "video"}.isdisjoint(page.tags)
    assert page.links and all(link.startswith("#") for link in page.links)
    assert "@import" not in text
    assert all(part.startswith("#") for part in text.split("url(")[1:])
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy.startswith("default-src 'none'; ")
    assert page.tags.count("script") == policy.count("'sha256-") == 2


def test_a_link_to_a_section_finds_it(text: str, page: Page) -> None:
    ids = re.findall(r' id="([^"]*)"', text)
    assert len(ids) == len(set(ids))
    assert {link[1:] for link in page.links} <= set(ids)


def test_plots_use_the_colors_and_fonts_of_the_page(text: str) -> None:
    assert "#0101" not in text and "DejaVu" not in text
    known = set(re.findall(r"--([a-z0-9-]+):", text))
    assert set(re.findall(r"var\(--([a-z0-9-]+)\)", text)) <= known
    plots = re.findall(r'<svg role="img" aria-label="([^"]+)"', text)
    # Throughput, efficiency and time of four workloads, one across nodes; 3 kinds of messages on
    # 2 sizes, bandwidth and time each; two predictions, of weak and strong scaling.
    assert len(plots) == 4 * 3 + 1 + 2 * 3 * 2 + 2


def test_an_engine_has_one_color_in_every_section() -> None:
    legends = [
        re.findall(r"color: var\(--(mark-\d)\)\">.*?</svg>([a-z0-9+-]+)", page_of(analyze(results)))
        for results in (trainings(), trainings(("no_comm", "ddp", "hvdtools-mpi")))
    ]
    colors = [{engine: mark for mark, engine in legend} for legend in legends]
    assert len(colors[0]) == 6 and len(set(colors[0].values())) == 6
    assert colors[1].items() <= colors[0].items()


def test_markup_in_an_error_is_shown_as_text(text: str, page: Page) -> None:
    assert HOSTILE not in text
    assert f"Failed: horovod-mpi, 8 ranks: {HOSTILE}" in page.text


def test_every_command_is_shown_once(page: Page) -> None:
    commands = RUN.provenance.commands
    bare = {re.sub(r" --env MASTER_PORT=\d+", "", result.command) for result in RESULTS}
    assert len(commands) == len(bare) < len(RESULTS)
    for command in commands:
        assert command in page.texts


def test_differing_machines_in_one_run_have_a_warning() -> None:
    run = trainings()
    assert analyze(run).provenance.differing == []
    other = [
        dataclasses.replace(
            result,
            versions={**result.versions, "torch": "9.9"},
            hardware={**result.hardware, "gpus": ["A GPU", "A GPU"]},
        )
        if result.repeat == 2
        else result
        for result in run
    ]
    shown = Page(page_of(analyze(other))).text
    assert "The results of this run differ in GPUs and torch" in shown
    assert "9.9 (repeat 2)" in shown and "not set (repeat 1)" in shown
    assert "2 × A GPU (repeat 2)" in shown and "none (repeat 1)" in shown


def test_a_single_repeat_and_a_time_limit_have_notes() -> None:
    (section,) = sections(trainings(("ddp",), ((1, 1), (2, 1)), repeats=1))
    assert len(section.notes) == 1 and section.notes[0].startswith("One repeat:")
    late = [
        dataclasses.replace(r, measured=dataclasses.replace(r.training, stopped_by="limit"))
        for r in trainings(("ddp",), ((1, 1), (2, 1)))
        if r.training is not None
    ]
    (section,) = sections(late)
    assert section.notes[0].startswith("4 of 4 measurements ended at the time limit")


def test_titles_of_equal_workloads_have_the_options_that_differ() -> None:
    options = {"model": "cnn", "data": "digits"}
    run = [
        training_result("ddp", 1, options={**options, "batch_size": batch, "seed": 1})
        for batch in (8, 16)
    ]
    titles = [section.title for section in sections(run)]
    assert titles == [
        "PyTorch: cnn on digits, float32 (batch_size 8)",
        "PyTorch: cnn on digits, float32 (batch_size 16)",
    ]


def test_the_page_says_what_cannot_be_predicted_and_why() -> None:
    run = trainings(("hvdtools-mpi", "ddp"), ((1, 1),))
    shown = Page(page_of(analyze(run), prediction(run))).text
    assert "No prediction of resnet50, hvdtools-mpi: hvdtools-mpi trained on one rank only" in shown
    assert shown.count("No prediction of resnet50") == 2


def test_without_predictions_the_page_has_no_section_for_them() -> None:
    assert "Predicted" not in Page(page_of(analyze(trainings(("ddp",))))).text


@pytest.mark.parametrize(
    "run",
    [
        [training_result("ddp", 2)],
        [training_result("ddp", 1, block_s=(1.0,))],
        [failed(training_result("horovod-mpi", 2), "no mpirun")],
        [failed(allreduce_result("torch", 2), "no mpirun")],
        [failed(loader_result(2), "no mpirun")],
        [loader_result(1)],
        [allreduce_result("torch", 2)],
    ],
)
def test_a_run_of_almost_nothing_has_a_page_and_a_table(run: list[Result]) -> None:
    text = page_of(analyze(run))
    shown = terminal(run)
    assert "nan" not in Page(text).text.lower().split() and "nan" not in shown
    assert ("no mpirun" in text) == ("no mpirun" in shown) == (run[0].error is not None)


def test_a_page_needs_results() -> None:
    with pytest.raises(ValueError, match="at least one result"):
        page_of(analyze([]))


def test_a_failed_write_keeps_the_old_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = write_page(tmp_path, analyze(trainings()))
    before = page.read_bytes()
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_page(tmp_path, analyze(trainings(("ddp",))))
    assert page.name == PAGE_NAME and page.read_bytes() == before


def sections(results: list[Result]) -> list[Section]:
    return sections_of(analyze(results))


def terminal(results: list[Result], width: int = 80) -> str:
    out = io.StringIO()
    print_run(Console(file=out, width=width), analyze(results))
    return out.getvalue()


def test_a_terminal_of_80_columns_shows_every_table_uncut() -> None:
    shown = terminal(RESULTS)
    tables = [line for line in shown.splitlines() if not line.startswith(("failed", "input-bound"))]
    assert "…" not in shown
    assert max(len(line) for line in tables if not line.endswith(".")) <= 80
    assert "PyTorch: gpt-124m on synthetic, float32, weak scaling" in shown
    for row in RUN.training_rows:
        rate = row.samples_per_s
        assert rate is None or format_number(rate.value) in shown
    assert f"failed: horovod-mpi, 8 ranks: {HOSTILE}" in shown
    assert "\x1b[" not in shown


def test_a_very_wide_interval_is_cut_in_plots_and_tables() -> None:
    # Two repeats a hundred times apart: Student's t on one degree of freedom.
    run = [training_result("ddp", n, t, (0.01**t,) * 6) for n in (1, 2) for t in (1, 2)]
    (row, _) = analyze(run).training_rows
    rate = row.samples_per_s
    assert rate is not None and rate.high > 1e6 * rate.value
    text = page_of(analyze(run))
    assert f"–&gt;{format_number(10 * rate.value)}]" in text
    ticks = [float(each.replace(",", "")) for each in re.findall(r">([\d,]{5,})</text>", text)]
    assert ticks and max(ticks) <= 2 * 2 * rate.value
    assert "±>100\u00a0%" in terminal(run)


def test_renderers_compute_no_statistics() -> None:
    values = {"allreduce", "comparison", "input_pipeline", "interval", "step_time", "summary"}
    for file in Path(hvdtools.bench.report.__file__).parent.glob("*.py"):
        modules = re.findall(r"hvdtools\.bench\.analysis\.(\w+) import", file.read_text())
        assert set(modules) <= values | {"training", "workloads"}, file.name


def test_numbers_have_three_digits() -> None:
    assert [format_number(each) for each in (12345.6, 99.96, 9.876, 0.1234, 0)] == [
        *("12,346", "100", "9.88", "0.123", "0"),
    ]
    assert [format_seconds(each) for each in (1.5, 0.0123, 45e-6)] == [
        *("1.50\u00a0s", "12.3\u00a0ms", "45.0\u00a0µs"),
    ]
    assert [format_bytes(each) for each in (1, 1023, 1024, 1536, 2.5 * 2**30)] == [
        *("1\u00a0B", "0.999\u00a0KiB", "1\u00a0KiB", "1.5\u00a0KiB", "2.5\u00a0GiB"),
    ]
    assert [format_percent(each) for each in (0.971, -0.004)] == ["97.1\u00a0%", "−0.4\u00a0%"]
