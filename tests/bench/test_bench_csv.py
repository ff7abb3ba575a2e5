"""CSV files: the numbers of the results, with their units in the column names."""

from __future__ import annotations

import csv
import io
from pathlib import Path

import pytest
from bench_examples import failed, training_result
from bench_whole_run import HOSTILE, WRONG, trainings, whole_run

from hvdtools.bench.analysis.summary import RunSummary, analyze
from hvdtools.bench.report.csv_files import to_csv, write_csv

RUN = analyze(whole_run())


def table(run: RunSummary, kind: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(to_csv(run, kind))))


def test_a_line_for_each_engine_and_size_with_all_numbers() -> None:
    lines, rows = table(RUN, "training"), RUN.training_rows
    assert len(lines) == len(rows)
    for line, row in zip(lines, rows, strict=True):
        assert (line["engine"], line["ranks"], line["nodes"]) == (
            *(row.engine, str(row.ranks), str(row.nodes)),
        )
        assert (line["model"], line["scaling"]) == (row.workload.model, row.workload.scaling)
        for name in ("samples_per_s", "efficiency", "node_efficiency", "vs_baseline"):
            estimate = getattr(row, name)
            ends = [line[name], line[f"{name}_low"], line[f"{name}_high"]]
            assert ends == (
                ["", "", ""]
                if estimate is None
                else [str(estimate.value), str(estimate.low), str(estimate.high)]
            )
        step_time = row.step_time
        assert line["forward_s"] == ("" if step_time is None else str(step_time.forward_s))
        assert (line["repeats"], line["blocks"]) == (str(row.repeats), str(row.blocks))
        assert line["failed_jobs"] == str(len(row.failures))


def test_a_line_for_each_message() -> None:
    lines = table(RUN, "allreduce")
    points = [(curve, point) for curve in RUN.allreduce_curves for point in curve.points]
    measured = [line for line in lines if line["op_s"]]
    assert len(measured) == len(points)
    for line, (curve, point) in zip(measured, points, strict=True):
        assert (line["engine"], line["dtype"], line["tensors"]) == (
            *(curve.engine, curve.dtype, str(curve.tensors)),
        )
        assert float(line["message_bytes"]) == point.message_bytes
        assert float(line["busbw_gb_per_s"]) == point.busbw_gb_per_s.value
        assert float(line["busbw_gb_per_s_low"]) <= point.busbw_gb_per_s.value
        assert float(line["busbw_gb_per_s_high"]) >= point.busbw_gb_per_s.value
    assert {line["wrong_elements"] for line in measured} == {"0", str(WRONG)}
    unsupported = [line for line in lines if line["unsupported"]]
    assert [line["engine"] for line in unsupported] == ["mpi4py", "mpi4py"]  # on 2 and on 4 ranks
    assert [line["ranks"] for line in lines if line["failed_jobs"] == "1"] == ["8"]


def test_a_file_for_each_measured_kind(tmp_path: Path) -> None:
    names = [file.name for file in write_csv(tmp_path, RUN)]
    assert names == ["training.csv", "allreduce.csv", "input.csv"]
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(names)
    assert (tmp_path / "training.csv").read_text() == to_csv(RUN, "training")
    inputs = table(RUN, "input")
    assert len(inputs) == len(RUN.loader_rows) == 2 and inputs[0]["data"] == "digits"
    alone = tmp_path / "alone"
    alone.mkdir()
    assert [file.name for file in write_csv(alone, analyze(trainings()))] == ["training.csv"]


def test_text_with_commas_quotes_and_newlines_survives() -> None:
    error = f'{HOSTILE}, "quoted"\nand a second line'
    (line,) = table(analyze([failed(training_result("ddp", 2), error)]), "training")
    assert line["failures"] == error and line["samples_per_s"] == ""


@pytest.mark.parametrize("blocks", [1, 6])
def test_a_single_block_has_no_interval(blocks: int) -> None:
    (line,) = table(analyze([training_result("ddp", 2, block_s=(1.0,) * blocks)]), "training")
    assert float(line["samples_per_s"]) == pytest.approx(200)
    assert (line["samples_per_s_low"] == "") == (blocks == 1)
