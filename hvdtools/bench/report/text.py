"""The sentences of a report: what was run, and what to know before trusting the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from hvdtools.bench.analysis.allreduce import AllreduceCurve
from hvdtools.bench.analysis.input_pipeline import InputBound
from hvdtools.bench.formatting import (
    format_bytes,
    format_list,
    format_number,
    format_percent,
    format_size,
)
from hvdtools.bench.results.result_file import Result
from hvdtools.core.text import count_noun


def describe_training(results: Sequence[Result]) -> str:
    """What was trained, on what, how often, and what stays the same on more ranks."""
    run = _describe_run(results)
    trainings = [each.training for each in results if each.training is not None]
    if not trainings:
        return run
    one = trainings[0]
    threads = f"{count_noun(one.threads_per_rank, 'thread')} a rank."
    gradient_bytes = [each.gradient_bytes for each in trainings if each.gradient_bytes is not None]
    if one.parameters is None or not gradient_bytes:
        return f"{run} {_describe_batch(results)} {threads}"
    counts = sorted({each.allreduces_per_step or 0 for each in trainings} - {0})
    return (
        f"{run} {_describe_batch(results)} The model has {one.parameters:,} weights; each rank "
        f"contributes {format_bytes(max(gradient_bytes))} of gradients to a step"
        f"{f' in {_allreduces(counts)}' if counts else ''}. {threads}"
    )


def describe_allreduces(results: Sequence[Result]) -> str:
    """Which engines reduced which messages."""
    points = [p for each in results if each.allreduce is not None for p in each.allreduce.points]
    if not points:
        return _describe_run(results)
    sizes = sorted({point.message_bytes for point in points})
    return (
        f"{_describe_run(results)} Messages of {format_bytes(sizes[0])} to "
        f"{format_bytes(sizes[-1])} on each rank; every sum was checked, outside the timed part."
    )


def describe_loaders(results: Sequence[Result]) -> str:
    """What a loader alone measures."""
    return (
        f"{results[0].program} on {_sizes(results)} in {_repeats(results)}: batches are loaded as "
        "for a training and discarded. No training can be faster than that."
    )


def _describe_run(results: Sequence[Result]) -> str:
    engines = format_list(list(dict.fromkeys(result.engine for result in results)))
    interleaved = any(len(result.interleaved) > 1 for result in results)
    separate = any(len(result.interleaved) == 1 for result in results)
    if interleaved and separate:
        order = "some engines interleaved within one job and some in separate jobs"
    elif interleaved:
        order = "the engines interleaved within one job"
    else:
        order = "each engine in separate jobs"
    program, repeats = results[0].program, _repeats(results)
    return f"{program} ran {engines} on {_sizes(results)}, in {repeats}, {order}."


def _sizes(results: Sequence[Result]) -> str:
    sizes = sorted({(result.nodes, result.ranks) for result in results})
    if all(nodes == 1 for nodes, _ in sizes):
        counts = [str(ranks) for _, ranks in sizes]
        return f"{format_list(counts)} {'rank' if counts == ['1'] else 'ranks'}"
    return format_list([format_size(ranks, nodes) for nodes, ranks in sizes])


def _repeats(results: Sequence[Result]) -> str:
    return count_noun(len({result.repeat for result in results}), "repeat")


def _describe_batch(results: Sequence[Result]) -> str:
    """What weak or strong scaling keeps constant here."""
    batches = {r.ranks: r.training.batch_per_rank for r in results if r.training is not None}
    if results[0].scaling == "strong":
        shares = format_list([str(batches[ranks]) for ranks in sorted(batches)])
        total = max(ranks * batch for ranks, batch in batches.items())
        return (
            f"Strong scaling: a step has {total:,} samples on all ranks together, shared evenly "
            f"({shares} each)."
        )
    each = format_list([f"{batch:,}" for batch in sorted(set(batches.values()))])
    return f"Weak scaling: a step has {each} samples on every rank, for any number of ranks."


def _allreduces(counts: Sequence[int]) -> str:
    if counts[0] == counts[-1]:
        return count_noun(counts[0], "all-reduce")
    return f"{counts[0]} to {counts[-1]} all-reduces"


def input_bound_notes(input_bound: Sequence[InputBound]) -> list[str]:
    """A note for each size on which trainings of one workload wait for their loader."""
    sizes = sorted({(each.row.nodes, each.row.ranks) for each in input_bound})
    return [
        _input_bound_note(
            [each for each in input_bound if (each.row.nodes, each.row.ranks) == size]
        )
        for size in sizes
    ]


def _input_bound_note(here: Sequence[InputBound]) -> str:
    trainings = []
    for row in (each.row for each in here):
        waiting = "" if row.input_share is None else f", {format_percent(row.input_share)} waiting"
        rate = format_number(0 if row.samples_per_s is None else row.samples_per_s.value)
        trainings.append(f"{row.engine} ({rate} samples/s{waiting})")
    loaders = dict.fromkeys(loader for each in here for loader in each.slow_loaders)
    rates = [
        f"the loader alone delivers {format_number(each.samples_per_s.value)}"
        for each in loaders
        if each.samples_per_s is not None
    ]
    return (
        f"input-bound: on {format_size(here[0].row.ranks, here[0].row.nodes)} training waits for "
        f"its loader under {'; '.join([format_list(trainings), *rates])}."
    )


def precision_notes(results: Sequence[Result]) -> list[str]:
    """What the intervals do not cover."""
    worked = [result for result in results if result.measured is not None]
    notes = []
    if worked and len({(result.run_id, result.repeat) for result in worked}) == 1:
        notes.append(
            "One repeat: a 95 % interval covers the blocks of a single job. It does not cover how "
            "jobs differ, so two jobs may differ by more than their intervals. Three or more "
            "repeats measure that, too."
        )
    stopped_by = [str(getattr(result.measured, "stopped_by", "")) for result in worked]
    late = stopped_by.count("limit")
    if late:
        notes.append(
            f"{late} of {count_noun(len(stopped_by), 'measurement')} ended at the time limit, "
            "before the interval was as narrow as requested."
        )
    return notes


def unsupported_notes(curves: Sequence[AllreduceCurve]) -> list[str]:
    """Which engine does not support which messages, once for all sizes of job."""
    notes = {
        f"{curve.engine} does not support {curve.dtype}"
        f"{f' in {curve.tensors} tensors' if curve.tensors > 1 else ''}: {curve.unsupported}"
        for curve in curves
        if curve.unsupported is not None
    }
    return sorted(notes)


def failure_lines(cases: Sequence[tuple[str, int, int, Sequence[str]]]) -> list[str]:
    """A line for each reason that cases failed for: of (engine, ranks, nodes, reasons)."""
    return [
        f"{engine}, {format_size(ranks, nodes)}{_times(reasons.count(reason))}: {reason}"
        for engine, ranks, nodes, reasons in cases
        for reason in dict.fromkeys(reasons)
    ]


def _times(count: int) -> str:
    return f" ({count} times)" if count > 1 else ""
