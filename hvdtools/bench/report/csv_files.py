"""A run's numbers as CSV files, for spreadsheets and other plotting tools.

Seconds, bytes, shares of 1 and samples/s throughout; an empty field is not known.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

from hvdtools.bench.analysis.allreduce import AllreduceCurve
from hvdtools.bench.analysis.input_pipeline import LoaderRow
from hvdtools.bench.analysis.interval import Estimate
from hvdtools.bench.analysis.summary import RunSummary
from hvdtools.bench.analysis.training import TrainingRow
from hvdtools.bench.analysis.workloads import Workload
from hvdtools.bench.results.measured import KINDS
from hvdtools.bench.results.result_file import replace_file

Field = str | int | float | bool | None
Record = dict[str, Field]


def write_csv(folder: Path, run: RunSummary) -> list[Path]:
    """Write training.csv, allreduce.csv and input.csv, for those kinds that the run has."""
    written = []
    for kind in KINDS:
        if run.of_kind(kind):
            written.append(folder / f"{kind}.csv")
            replace_file(written[-1], to_csv(run, kind))
    return written


def to_csv(run: RunSummary, kind: str) -> str:
    """The numbers of one kind: a line for each engine and size, and for each all-reduce message.

    Args:
        kind: A name in `measured.KINDS`.
    """
    records = {"training": _trainings, "allreduce": _allreduces, "input": _loaders}[kind](run)
    run_id = run.results[0].run_id
    text = io.StringIO()
    # A case that failed has fewer fields.
    names = list(dict.fromkeys(name for record in records for name in record))
    writer = csv.DictWriter(text, ["run_id", *names], restval="", lineterminator="\n")
    writer.writeheader()
    for record in records:
        known = {name: field for name, field in record.items() if _is_known(field)}
        writer.writerow({"run_id": run_id, **known})
    return text.getvalue()


def _is_known(field: Field) -> bool:
    return field is not None and not (isinstance(field, float) and math.isnan(field))


def _trainings(run: RunSummary) -> list[Record]:
    return [_training(row) for row in run.training_rows]


def _training(row: TrainingRow) -> Record:
    step_time, skew = row.step_time, row.skew
    phases = ("input_s", "forward_s", "backward_s", "optimizer_s", "communication_s")
    return {
        **_case(row.workload, row.engine, row.ranks, row.nodes),
        "batch_per_rank": row.batch_per_rank,
        **_estimate("samples_per_s", row.samples_per_s),
        **_estimate("efficiency", row.efficiency),
        **_estimate("node_efficiency", row.node_efficiency),
        **_estimate("vs_baseline", row.vs_baseline),
        **{name: getattr(step_time, name, None) for name in (*phases, "communication_share")},
        "input_share": row.input_share,
        "slowest_rank": None if skew is None else skew.rank,
        "slowest_over_median": None if skew is None else skew.over_median,
        "peak_memory_bytes": row.peak_memory_bytes,
        "accuracy": row.accuracy,
        "in_sync": row.in_sync,
        **_counts(row.repeats, row.blocks, row.failures),
    }


def _allreduces(run: RunSummary) -> list[Record]:
    records = [record for curve in run.allreduce_curves for record in _allreduce(curve)]
    # The complete records come first: they name the columns.
    return sorted(records, key=lambda record: "message_bytes" not in record)


def _allreduce(curve: AllreduceCurve) -> Iterable[Record]:
    case: Record = {
        **_case(curve.workload, curve.engine, curve.ranks, curve.nodes),
        "dtype": curve.dtype,
        "tensors": curve.tensors or None,
    }
    for point in curve.points:
        yield {
            **case,
            "message_bytes": point.message_bytes,
            **_estimate("op_s", point.op_s),
            "algbw_gb_per_s": point.algbw_gb_per_s,
            **_estimate("busbw_gb_per_s", point.busbw_gb_per_s),
            "wrong_elements": point.wrong_elements,
            "unsupported": None,
            **_counts(point.repeats, point.blocks, curve.failures),
        }
    if not curve.points:
        yield {**case, "unsupported": curve.unsupported, **_counts(0, 0, curve.failures)}


def _loaders(run: RunSummary) -> list[Record]:
    return [_loader(row) for row in run.loader_rows]


def _loader(row: LoaderRow) -> Record:
    return {
        **_case(row.workload, "loader", row.ranks, row.nodes),
        "batch_per_rank": row.batch_per_rank,
        "workers": row.workers,
        **_estimate("samples_per_s", row.samples_per_s),
        **_counts(row.repeats, row.blocks, row.failures),
    }


def _case(workload: Workload, engine: str, ranks: int, nodes: int) -> Record:
    return {
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


def _estimate(name: str, estimate: Estimate | None) -> Record:
    """The value and the ends of its 95 % interval."""
    return {
        name: None if estimate is None else estimate.value,
        f"{name}_low": None if estimate is None else estimate.low,
        f"{name}_high": None if estimate is None else estimate.high,
    }


def _counts(repeats: int, blocks: int, failures: Sequence[str]) -> Record:
    return {
        "repeats": repeats,
        "blocks": blocks,
        "failed_jobs": len(failures),
        "failures": " | ".join(dict.fromkeys(failures)),
    }
