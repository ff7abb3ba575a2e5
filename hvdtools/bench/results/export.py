"""A run's numbers as CSV: for spreadsheets and for other people's plots."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from hvdtools.bench.analysis.curves import curves
from hvdtools.bench.analysis.interval import Span
from hvdtools.bench.analysis.loaders import loaders
from hvdtools.bench.analysis.stats import Row, summarise
from hvdtools.bench.analysis.workloads import Workload
from hvdtools.bench.report.curve_grids import bus_span
from hvdtools.bench.report.grids import communication_share
from hvdtools.bench.results.measured import KINDS
from hvdtools.bench.results.result_file import Result

# Seconds, bytes, shares of 1 and samples/s throughout; an empty field is a thing not known.
Field = str | int | float | bool | None


def write_csv(folder: Path, results: Sequence[Result]) -> list[Path]:
    """Write training.csv, allreduce.csv and input.csv, as far as the run has such results.

    Older ones give way whole, or not at all.
    """
    written = []
    for kind in KINDS:
        if any(result.kind == kind for result in results):
            file = folder / f"{kind}.csv"
            unfinished = folder / f".{file.name}.{os.getpid()}"
            unfinished.write_text(to_csv(results, kind), encoding="utf-8", newline="")
            unfinished.replace(file)
            written.append(file)
    return written


def to_csv(results: Sequence[Result], kind: str) -> str:
    """The results of one kind: a line an engine and size; for all-reduces, a line a message.

    Args:
        kind: A name in `measured.KINDS`.
    """
    lines = _LINES[kind]([result for result in results if result.kind == kind])
    text = io.StringIO()
    # A case that failed knows less; what all of a kind may have are the columns.
    names = list(dict.fromkeys(name for line in lines for name in line))
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    for line in lines:
        writer.writerow({name: _written(field) for name, field in line.items()})
    return text.getvalue()


def _written(field: Field) -> Field:
    is_nan = isinstance(field, float) and math.isnan(field)
    return "" if field is None or is_nan else field


def _training(results: Sequence[Result]) -> list[dict[str, Field]]:
    return [_of_row(results[0].run_id, row) for row in summarise(results)]


def _of_row(run_id: str, row: Row) -> dict[str, Field]:
    split, skew = row.split, row.skew
    return {
        **_where(run_id, row.workload, row.engine, row.ranks, row.nodes),
        "batch_per_rank": row.batch_per_rank,
        **_span("samples_per_s", row.samples_per_s),
        **_span("efficiency", row.efficiency),
        **_span("node_efficiency", row.node_efficiency),
        **_span("vs_baseline", row.vs_baseline),
        "input_s": None if split is None else split.input_s,
        "forward_s": None if split is None else split.forward_s,
        "backward_s": None if split is None else split.backward_s,
        "optimizer_s": None if split is None else split.optimizer_s,
        "communication_s": None if split is None else split.communication_s,
        "communication_share": communication_share(split),
        "input_share": row.input_share,
        "slowest_rank": None if skew is None else skew.rank,
        "slowest_over_median": None if skew is None else skew.over_median,
        "peak_memory_bytes": row.peak_memory_bytes,
        "accuracy": row.accuracy,
        "in_sync": row.in_sync,
        **_counts(row.repeats, row.blocks, row.failures),
    }


def _allreduce(results: Sequence[Result]) -> list[dict[str, Field]]:
    lines = []
    for curve in curves(results):
        kind: dict[str, Field] = {
            **_where(results[0].run_id, curve.workload, curve.engine, curve.ranks, curve.nodes),
            "dtype": curve.dtype,
            "tensors": curve.tensors or None,
        }
        for point in curve.points:
            lines.append(
                {
                    **kind,
                    "message_bytes": point.message_bytes,
                    **_span("op_s", point.op_s),
                    "algbw_gb_per_s": point.algbw_gb_per_s,
                    **_span("busbw_gb_per_s", bus_span(point, curve.ranks)),
                    "wrong_elements": point.wrong_elements,
                    "unsupported": None,
                    **_counts(point.repeats, point.blocks, curve.failures),
                }
            )
        if not curve.points:
            lines.append(
                {**kind, "unsupported": curve.unsupported, **_counts(0, 0, curve.failures)}
            )
    return sorted(
        lines, key=lambda line: "message_bytes" not in line
    )  # the whole ones name columns


def _input(results: Sequence[Result]) -> list[dict[str, Field]]:
    return [
        {
            **_where(results[0].run_id, row.workload, "loader", row.ranks, row.nodes),
            "batch_per_rank": row.batch_per_rank,
            "workers": row.workers,
            **_span("samples_per_s", row.samples_per_s),
            **_counts(row.repeats, row.blocks, row.failures),
        }
        for row in loaders(results)
    ]


_LINES: dict[str, Callable[[Sequence[Result]], list[dict[str, Field]]]] = {
    "training": _training,
    "allreduce": _allreduce,
    "input": _input,
}


def _where(
    run_id: str, workload: Workload, engine: str, ranks: int, nodes: int
) -> dict[str, Field]:
    return {
        "run_id": run_id,
        "family": workload.family,
        "program": workload.program,
        "model": workload.model,
        "data": workload.data,
        "precision": workload.precision,
        "scaling": workload.scaling,
        "options": " ".join(f"{name}={value}" for name, value in workload.options),
        "engine": engine,
        "ranks": ranks,
        "nodes": nodes,
    }


def _span(name: str, span: Span | None) -> dict[str, Field]:
    """The median and the ends of its 95 % interval."""
    return {
        name: None if span is None else span.middle,
        f"{name}_low": None if span is None else span.low,
        f"{name}_high": None if span is None else span.high,
    }


def _counts(repeats: int, blocks: int, failures: Sequence[str]) -> dict[str, Field]:
    return {
        "repeats": repeats,
        "blocks": blocks,
        "failed_jobs": len(failures),
        "failures": " | ".join(dict.fromkeys(failures)),
    }
