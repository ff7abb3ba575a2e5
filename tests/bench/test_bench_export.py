"""CSV: the numbers of the results, with their units in the columns' names."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from bench_examples import failed, training_result
from bench_whole_run import HOSTILE, WRONG, trainings, whole_run

from hvdtools.bench.analysis.curves import curves
from hvdtools.bench.analysis.loaders import loaders
from hvdtools.bench.analysis.stats import summarise
from hvdtools.bench.results.export import to_csv, write_csv
from hvdtools.bench.results.result_file import Result

RUN = whole_run()


def table(results: list[Result], kind: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(results, kind))))


def test_a_line_an_engine_and_size_with_all_of_its_numbers() -> None:
    lines, rows = table(RUN, "training"), summarise(RUN)
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert (line["engine"], line["ranks"], line["nodes"]) == (
            *(row.engine, str(row.ranks), str(row.nodes)),
        )
        assert (line["model"], line["scaling"]) == (row.workload.model, row.workload.scaling)
        for name in ("samples_per_s", "efficiency", "node_efficiency", "vs_baseline"):
            span = getattr(row, name)
            ends = [line[name], line[f"{name}_low"], line[f"{name}_high"]]
            assert ends == (
                ["", "", ""] if span is None else [str(span.middle), str(span.low), str(span.high)]
            )
        split = row.split
        assert line["forward_s"] == ("" if split is None else str(split.forward_s))
        assert (line["repeats"], line["blocks"]) == (str(row.repeats), str(row.blocks))
        assert line["failed_jobs"] == str(len(row.failures))


def test_a_line_a_message() -> None:
    lines = table(RUN, "allreduce")
    points = [(curve, point) for curve in curves(RUN) for point in curve.points]
    measured = [line for line in lines if line["op_s"]]
    assert len(measured) == len(points)
    for line, (curve, point) in zip(measured, points, strict=True):
        assert (line["engine"], line["dtype"], line["tensors"]) == (
            *(curve.engine, curve.dtype, str(curve.tensors)),
        )
        assert float(line["message_bytes"]) == point.message_bytes
        assert float(line["busbw_gb_per_s"]) == point.busbw_gb_per_s
        assert float(line["busbw_gb_per_s_low"]) <= point.busbw_gb_per_s
        assert float(line["busbw_gb_per_s_high"]) >= point.busbw_gb_per_s
    assert {line["wrong_elements"] for line in measured} == {"0", str(WRONG)}
    refused = [line for line in lines if line["unsupported"]]
    assert [line["engine"] for line in refused] == ["mpi4py", "mpi4py"]  # on 2 and on 4 ranks
    assert [line["ranks"] for line in lines if line["failed_jobs"] == "1"] == ["8"]


def test_a_file_for_each_kind_that_was_measured(tmp_path: Path) -> None:
    names = [file.name for file in write_csv(tmp_path, RUN)]
    assert names == ["training.csv", "allreduce.csv", "input.csv"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)
    assert (tmp_path / "training.csv").read_text() == to_csv(RUN, "training")
    inputs = table(RUN, "input")
    assert len(inputs) == len(loaders(RUN)) == 2 and inputs[0]["data"] == "digits"
    alone = tmp_path / "alone"
    alone.mkdir()
    assert [file.name for file in write_csv(alone, trainings())] == ["training.csv"]


def test_words_with_commas_quotes_and_newlines_come_back_whole() -> None:
    said = f'{HOSTILE}, "quoted"\nand a second line'
    (line,) = table([failed(training_result("ddp", 2), said)], "training")
    assert line["failures"] == said and line["samples_per_s"] == ""


@pytest.mark.parametrize("blocks", [1, 6])
def test_a_single_block_has_no_interval(blocks: int) -> None:
    (line,) = table([training_result("ddp", 2, block_s=(1.0,) * blocks)], "training")
    assert float(line["samples_per_s"]) == pytest.approx(200)
    assert (line["samples_per_s_low"] == "") == (blocks == 1)
