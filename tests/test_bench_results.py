"""Results: what is written is read again, nothing is overwritten, and the numbers are right."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from hvdtools.bench import engines, facts, plots
from hvdtools.bench.report import page_of
from hvdtools.bench.results import FILE_NAME, Result, append, from_json, new_run_id, read
from hvdtools.bench.stats import Span, by_framework, quartiles, summarise
from hvdtools.bench.table import cells, headings
from hvdtools.errors import HvdtoolsError

WHOLE = Result(
    run_id="run-1",
    time_utc="2026-01-31T12:00:00+00:00",
    suite="demo",
    scaling="weak",
    framework="torch",
    program="train_torch.py",
    model="cnn",
    data="digits",
    engine="ddp-gloo",
    ranks=1,
    round=1,
    batch_per_rank=10,
    threads_per_rank=1,
    moved_by="gloo",
    device="cpu",
    lr=0.1,
    steps_per_block=10,
    block_s=(1.0, 0.5, 0.25),
    samples_per_s=200.0,
    accuracy=0.975,
    in_sync=None,
    wall_s=5.0,
    exit_code=0,
    error=None,
    command="hvdtools launch -n 1 -- python benchmarks/train_torch.py",
    versions={"hvdtools": "0.1.0", "mpi": "Open MPI 5.0.11"},
    hardware={"cpu": "A CPU", "cores_usable": 2, "memory_gib": 8.0, "gpus": []},
    environment={"OMP_NUM_THREADS": "1"},
)


def result(engine: str, ranks: int, turn: int, seconds: float, **changes: object) -> Result:
    """A result whose only block of 10 steps took that long."""
    return dataclasses.replace(
        WHOLE,
        engine=engine,
        framework=engines.ENGINES[engine].framework,
        moved_by=engines.ENGINES[engine].moved_by,
        ranks=ranks,
        round=turn,
        block_s=(seconds,),
        samples_per_s=ranks * 100 / seconds,
        in_sync=None if ranks == 1 else True,
        **changes,  # type: ignore[arg-type]
    )


FAILURE = {
    "block_s": (),
    "samples_per_s": None,
    "steps_per_block": None,
    "accuracy": None,
    "in_sync": None,
    "moved_by": None,
    "exit_code": 3,
}


def failed(engine: str, ranks: int, turn: int, why: str) -> Result:
    made = result(engine, ranks, turn, 1.0)
    return dataclasses.replace(made, **FAILURE, error=why)  # type: ignore[arg-type]


def test_a_result_survives_its_line() -> None:
    line = WHOLE.to_json()
    assert "\n" not in line
    assert from_json(line) == WHOLE
    assert json.loads(line)["block_s"] == [1.0, 0.5, 0.25]


def test_a_file_cut_in_mid_line_keeps_what_is_whole(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    for turn in (1, 2):
        append(file, dataclasses.replace(WHOLE, round=turn))
    file.write_bytes(file.read_bytes()[:-40])
    reading = read(file)
    assert (len(reading.results), reading.cut_lines) == (1, 1)
    append(file, dataclasses.replace(WHOLE, round=3))
    reading = read(file)
    assert [each.round for each in reading.results] == [1, 3]
    assert reading.cut_lines == 1


def test_a_second_run_is_added_and_the_newest_is_shown(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    append(file, WHOLE)
    before = file.read_bytes()
    append(file, dataclasses.replace(WHOLE, run_id="run-2"))
    assert file.read_bytes().startswith(before)
    reading = read(file)
    assert [each.run_id for each in reading.of_run(None)] == ["run-2"]
    assert reading.of_run("run-1") == (WHOLE,)
    with pytest.raises(HvdtoolsError, match=r"Unknown run 'run-3': choose one of run-1, run-2"):
        reading.of_run("run-3")


def test_results_of_another_kind_are_refused(tmp_path: Path) -> None:
    file = tmp_path / FILE_NAME
    with pytest.raises(HvdtoolsError, match="There are no results"):
        read(file)
    file.write_text("{\n")
    with pytest.raises(HvdtoolsError, match="no whole result"):
        read(file)
    file.write_text(WHOLE.to_json().replace('"schema_version": 2', '"schema_version": 99'))
    with pytest.raises(HvdtoolsError, match="schema version 99"):
        read(file)
    file.write_text(WHOLE.to_json().replace('"lr"', '"rl"'))
    with pytest.raises(HvdtoolsError, match=r"\(lr, rl\)"):
        read(file)
    file.write_text(WHOLE.to_json().replace('"engine": "ddp-gloo"', '"engine": "ddp-glue"'))
    with pytest.raises(HvdtoolsError, match="engine 'ddp-glue', which this hvdtools"):
        read(file)


def test_run_ids_sort_by_time_and_differ() -> None:
    time_utc = "2026-01-31T12:00:00+00:00"
    assert new_run_id(time_utc).startswith("20260131T120000Z-")
    assert new_run_id(time_utc) < new_run_id("2026-01-31T12:00:01+00:00")
    assert len({new_run_id(time_utc) for _ in range(20)}) > 1


def test_a_rate_is_made_of_ranks_batch_steps_and_time() -> None:
    two = dataclasses.replace(WHOLE, ranks=2)
    assert two.block_rates == [200.0, 400.0, 800.0]  # 2 ranks x 10 samples x 10 steps


def test_quartiles_by_hand() -> None:
    assert quartiles([4, 1, 3, 2, 5]) == Span(3, 2, 4)
    assert quartiles([1, 2]) == Span(1.5, 1.25, 1.75)


def test_ratios_pair_cases_of_one_round() -> None:
    # Round 2 is twice as slow for everyone: a ratio over rounds must not see it.
    results = [
        result("ddp-gloo", 1, 1, 1.0),  # 100 samples/s
        result("horovod-mpi", 1, 1, 0.5),  # 200
        result("ddp-gloo", 2, 1, 1.0),  # 200
        result("horovod-mpi", 2, 1, 0.625),  # 320
        result("ddp-gloo", 1, 2, 2.0),  # 50
        result("horovod-mpi", 1, 2, 1.0),  # 100
        result("ddp-gloo", 2, 2, 2.0),  # 100
        result("horovod-mpi", 2, 2, 1.25),  # 160
    ]
    rows = {(row.engine, row.ranks): row for row in summarise(results)}
    assert list(rows) == [
        ("ddp-gloo", 1),
        ("ddp-gloo", 2),
        ("horovod-mpi", 1),
        ("horovod-mpi", 2),
    ]
    both = rows["horovod-mpi", 2]
    assert both.samples_per_s == Span(240, 200, 280)
    assert both.efficiency == Span(0.8, 0.8, 0.8)
    assert both.against_yardstick == Span(1.6, 1.6, 1.6)
    assert rows["ddp-gloo", 2].efficiency == Span(1, 1, 1)
    assert rows["ddp-gloo", 2].against_yardstick is None
    assert both.in_sync is True and rows["ddp-gloo", 1].in_sync is None


def test_a_round_without_its_pair_gives_no_ratio() -> None:
    results = [
        result("ddp-gloo", 1, 1, 1.0),
        failed("ddp-gloo", 2, 1, "rank 1 ended with exit code 3: out of luck"),
        result("ddp-gloo", 1, 2, 1.0),
        result("ddp-gloo", 2, 2, 1.25),
        failed("horovod-mpi", 2, 2, "no mpirun"),
    ]
    ddp, pair, horovod = summarise(results)
    assert pair.efficiency == Span(0.8, 0.8, 0.8) and pair.rounds == 1
    assert pair.failures == ("rank 1 ended with exit code 3: out of luck",)
    assert horovod.samples_per_s is None and horovod.failures == ("no mpirun",)
    assert cells(horovod)[2] == "failed"
    assert ddp.failures == ()


def test_one_round_out_of_sync_is_enough_to_say_no() -> None:
    results = [
        result("ddp-gloo", 2, 1, 1.0),
        dataclasses.replace(result("ddp-gloo", 2, 2, 1.0), in_sync=False),
        result("ddp-gloo", 2, 3, 1.0),
    ]
    (row,) = summarise(results)
    assert row.in_sync is False and cells(row)[-1] == "NO"


def test_only_chosen_variables_are_recorded() -> None:
    seen = facts.recorded_environment({"OMP_NUM_THREADS": "1", "NCCL_TOKEN": "x", "HOME": "/h"})
    assert seen == {"OMP_NUM_THREADS": "1"}


def test_last_words_do_not_name_the_user_or_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/jo")
    monkeypatch.setattr("platform.node", lambda: "box-7")
    said = facts.without_names("box-7: /home/jo/train.py failed, /home/joanna did not, box-77")
    assert said == "<host>: ~/train.py failed, /home/joanna did not, box-77"


def test_hardware_names_this_cpu() -> None:
    found = facts.hardware()
    assert found["cores_usable"] and found["cpu"] and float(str(found["memory_gib"])) > 0


ENGINES = ("horovod-mpi", "horovod-gloo", "ddp-gloo")
KERAS_ENGINES = ("keras-horovod-mpi", "keras-horovod-gloo", "keras-mwms")


def run_of(names: tuple[str, ...]) -> list[Result]:
    """Three rounds on 1 and 2 ranks, no two cases alike."""
    return [
        result(engine, ranks, turn, 1 + 0.1 * number + 0.07 * turn * ranks)
        for turn in (1, 2, 3)
        for ranks in (1, 2)
        for number, engine in enumerate(names)
    ]


RUN = run_of(ENGINES)
BOTH = RUN + run_of(KERAS_ENGINES)


class Page:
    """What a reader without a browser finds in a page."""

    def __init__(self, text: str) -> None:
        from html.parser import HTMLParser

        page = self
        page.cells, page.links, page.tags = [], [], []

        class Reader(HTMLParser):
            def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
                page.tags.append(tag)
                page.links += [
                    value or ""
                    for name, value in attrs
                    if name in ("src", "href", "xlink:href", "srcset", "action", "data")
                ]
                if tag in ("td", "th"):
                    page.cells.append("")

            def handle_data(self, data: str) -> None:
                if self.get_starttag_text() in ("<td>", '<td class="alarm">', '<th scope="col">'):
                    page.cells[-1] += data.strip()

        Reader().feed(text)

    cells: list[str]
    links: list[str]
    tags: list[str]


def test_the_page_shows_the_numbers_of_the_results() -> None:
    page = Page(page_of(RUN))
    expected = [cell for row in summarise(RUN) for cell in cells(row)]
    assert page.cells == [*headings("torch"), *expected]
    assert "yes" in page.cells and "horovod-mpi" in page.cells


def test_a_page_of_two_frameworks_keeps_them_apart() -> None:
    text = page_of(BOTH)
    page = Page(text)
    expected = []
    for framework, results in by_framework(BOTH).items():
        expected += [
            *headings(framework),
            *(cell for row in summarise(results) for cell in cells(row)),
        ]
    assert page.cells == expected
    assert "against DDP [rounds]" in page.cells and "against MWMS [rounds]" in page.cells
    assert page.tags.count("section") == 2 and page.tags.count("svg") == 4
    ids = [part.partition('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_an_engine_is_held_against_its_own_frameworks_yardstick() -> None:
    results = [
        result("ddp-gloo", 2, 1, 1.0),
        result("horovod-mpi", 2, 1, 0.5),
        result("keras-mwms", 2, 1, 4.0),
        result("keras-horovod-mpi", 2, 1, 3.2),
    ]
    assert list(by_framework(results)) == ["torch", "keras"]
    against = {row.engine: row.against_yardstick for row in summarise(results)}
    assert against == {
        "ddp-gloo": None,
        "horovod-mpi": Span(2, 2, 2),
        "keras-mwms": None,
        "keras-horovod-mpi": Span(1.25, 1.25, 1.25),
    }


def test_the_page_fetches_nothing() -> None:
    text = page_of(RUN)
    page = Page(text)
    assert page.tags.count("svg") == 2
    assert "script" not in page.tags and "link" not in page.tags and "img" not in page.tags
    assert page.links and all(link.startswith("#") for link in page.links)
    assert "@import" not in text
    assert all(part.startswith("#") for part in text.split("url(")[1:])


def test_the_plots_take_the_pages_colours_and_share_no_id() -> None:
    text = page_of(RUN)
    assert "prefers-color-scheme: dark" in text
    for number in range(len(ENGINES)):
        assert f"var(--engine-{number})" in plots.throughput(summarise(RUN), "torch")
    assert "#0303" not in text and "#010101" not in text and "DejaVu" not in text
    ids = [part.partition('"')[0] for part in text.split(' id="')[1:]]
    assert len(ids) == len(set(ids))


def test_a_failed_case_and_hostile_words_are_shown_as_text() -> None:
    bad = failed("horovod-mpi", 2, 4, "<script>alert(1)</script> & more")
    text = page_of([*RUN, bad])
    assert "&lt;script&gt;alert(1)&lt;/script&gt; &amp; more" in text
    assert "script" not in Page(text).tags


def test_a_run_on_one_rank_count_or_with_nothing_but_failures_has_a_page() -> None:
    assert page_of([result("ddp-gloo", 2, 1, 1.0)]).count("<svg") == 1
    assert "no mpirun" in page_of([failed("horovod-mpi", 2, 1, "no mpirun")])
