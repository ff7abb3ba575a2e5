"""What a report says of a work in words."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from hvdtools.bench.analysis.curves import Curve
from hvdtools.bench.analysis.loaders import LoaderRow
from hvdtools.bench.analysis.stats import Row, is_input_bound
from hvdtools.bench.report.grids import size_words
from hvdtools.bench.report.words import bytes_in_words, listed, percent, rate_in_words
from hvdtools.bench.results.result_file import Result
from hvdtools.core.words import counted


def training_sentence(results: Sequence[Result]) -> str:
    """What was trained, on what, how often, and what stayed the same on more ranks."""
    first = results[0]
    said = f"{first.program} ran {_engines(results)} on {_sizes(results)}, {_turns(results)}."
    trainings = [each.training for each in results if each.training is not None]
    if not trainings:
        return said
    one = trainings[0]
    threads = f"{counted(one.threads_per_rank, 'thread')} a rank."
    gradient_bytes = [each.gradient_bytes for each in trainings if each.gradient_bytes is not None]
    if one.parameters is None or not gradient_bytes:
        return f"{said} {_batch(results)} {threads}"
    allreduces = sorted({each.allreduces_per_step or 0 for each in trainings} - {0})
    in_allreduces = f" in {_from_to(allreduces)}" if allreduces else ""
    return (
        f"{said} {_batch(results)} The model has {one.parameters:,} weights; a rank gives "
        f"{bytes_in_words(max(gradient_bytes))} of gradients into a step{in_allreduces}. {threads}"
    )


def _engines(results: Sequence[Result]) -> str:
    return listed(list(dict.fromkeys(result.engine for result in results)))


def _sizes(results: Sequence[Result]) -> str:
    sizes = sorted({(result.nodes, result.ranks) for result in results})
    if all(nodes == 1 for nodes, _ in sizes):
        counts = [str(ranks) for _, ranks in sizes]
        return f"{listed(counts)} {'rank' if counts == ['1'] else 'ranks'}"
    return listed([size_words(ranks, nodes) for nodes, ranks in sizes])


def _repeats(results: Sequence[Result]) -> str:
    return counted(len({result.repeat for result in results}), "repeat")


def _turns(results: Sequence[Result]) -> str:
    repeats = _repeats(results)
    together = any(len(result.interleaved) > 1 for result in results)
    alone = any(len(result.interleaved) == 1 for result in results)
    if together and alone:
        return f"in {repeats}, some engines in turns within one job and some in jobs of their own"
    if together:
        return f"in {repeats}, the engines in turns within one job"
    return f"in {repeats}, each engine in jobs of its own"


def _batch(results: Sequence[Result]) -> str:
    """What weak and strong mean here."""
    batches = {r.ranks: r.training.batch_per_rank for r in results if r.training is not None}
    if results[0].scaling == "strong":
        shares = listed([str(batches[ranks]) for ranks in sorted(batches)])
        total = max(ranks * batch for ranks, batch in batches.items())
        return (
            f"Strong scaling: a step has {total:,} samples of all ranks together, shared evenly "
            f"({shares} each)."
        )
    each = listed([f"{batch:,}" for batch in sorted(set(batches.values()))])
    return f"Weak scaling: a step has {each} samples on every rank, however many ranks there are."


def _from_to(numbers: Sequence[int]) -> str:
    if numbers[0] == numbers[-1]:
        return counted(numbers[0], "all-reduce")
    return f"{numbers[0]} to {numbers[-1]} all-reduces"


def allreduce_sentence(results: Sequence[Result]) -> str:
    """Who summed what."""
    points = [p for each in results if each.allreduce is not None for p in each.allreduce.points]
    said = f"{results[0].program} ran {_engines(results)} on {_sizes(results)}, {_turns(results)}."
    if not points:
        return said
    sizes = sorted({point.message_bytes for point in points})
    span = f"{bytes_in_words(sizes[0])} to {bytes_in_words(sizes[-1])}"
    return f"{said} Messages of {span} on each rank; every sum was checked, outside the timed part."


def input_sentence(results: Sequence[Result]) -> str:
    """What a loader alone is."""
    return (
        f"{results[0].program} on {_sizes(results)} in {_repeats(results)}: batches are loaded as "
        "for a training and given to nobody. A training cannot be faster than that."
    )


def input_bound(rows: Sequence[Row], loader_rows: Sequence[LoaderRow]) -> list[str]:
    """A sentence for each size on which a loader holds trainings of one work back."""
    held = [row for row in rows if is_input_bound(row, loader_rows)]
    sizes = sorted({(row.nodes, row.ranks) for row in held})
    return [_held_back(held, loader_rows, *size) for size in sizes]


def _held_back(
    rows: Sequence[Row], loader_rows: Sequence[LoaderRow], nodes: int, ranks: int
) -> str:
    here = [row for row in rows if (row.nodes, row.ranks) == (nodes, ranks)]
    said = []
    for row in here:
        waits = "" if row.input_share is None else f", {percent(row.input_share)} waiting"
        rate = rate_in_words(0 if row.samples_per_s is None else row.samples_per_s.middle)
        said.append(f"{row.engine} ({rate} samples/s{waits})")
    # Which of the two reasons it is: without its wait, only the loader's own rate is left.
    unwaited = [dataclasses.replace(row, input_share=None) for row in here]
    alone = [
        f"the loader alone gives {rate_in_words(each.samples_per_s.middle)}"
        for each in loader_rows
        if each.samples_per_s and any(is_input_bound(row, [each]) for row in unwaited)
    ]
    return (
        f"input-bound: on {size_words(ranks, nodes)} training waits for its loader under "
        f"{'; '.join([listed(said), *alone])}."
    )


def how_surely(results: Sequence[Result]) -> list[str]:
    """What the intervals do not say."""
    worked = [result for result in results if result.measured is not None]
    notes = []
    if worked and len({(result.run_id, result.repeat) for result in worked}) == 1:
        notes.append(
            "One repeat: a 95 % interval is that of the blocks of a single job. How much the next "
            "job would differ is not in it, so two jobs may differ by more than their intervals "
            "say. Three repeats or more measure that, too."
        )
    ended = [str(getattr(result.measured, "stopped_by", "")) for result in worked]
    late = ended.count("limit")
    if late:
        notes.append(
            f"{late} of {counted(len(ended), 'measurement')} ended at the time limit, before the "
            "interval was as narrow as asked."
        )
    return notes


def refusals(curves: Sequence[Curve]) -> list[str]:
    """Which engine does not sum what, once for all rank counts."""
    said = {
        f"{curve.engine} does not do {curve.dtype}"
        f"{f' in {curve.tensors} tensors' if curve.tensors > 1 else ''}: {curve.unsupported}"
        for curve in curves
        if curve.unsupported is not None
    }
    return sorted(said)
