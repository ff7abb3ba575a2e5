"""All messages under all engines, measured: what allreduce.py prints and writes."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Iterable

import torch

from hvdtools.bench.analysis.bandwidth import algbw_gb_per_s, busbw_gb_per_s
from hvdtools.bench.analysis.interval import median_interval
from hvdtools.bench.formatting import format_bytes
from hvdtools.bench.programs.allreduce.engines import ENGINES
from hvdtools.bench.programs.allreduce.point import Job, Message, measure
from hvdtools.bench.results.measured import Allreduce, Point, to_dict
from hvdtools.bench.run.interleave import stopping_rule_of
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import read_launch_environment

HEADER = (
    f"{'message':>9} {'of':>8} {'tensors':>7} {'engine':>15} {'ops':>6} "
    f"{'microseconds [95 %]':>29} {'alg GB/s':>9} {'bus GB/s':>9} {'wrong':>6}"
)


def row(name: str, point: Point, ranks: int) -> str:
    """A line of the table."""
    size = format_bytes(point.message_bytes)
    what = f"{size:>9} {point.dtype:>8} {point.tensors:>7} {name:>15}"
    if point.unsupported is not None:
        return f"{what} unsupported: {point.unsupported}"
    span = median_interval(point.op_s)
    middle_s = span.value if span else statistics.median(point.op_s)
    shown = f"{middle_s * 1e6:.1f}"
    if span:
        shown += f" [{span.low * 1e6:.1f}, {span.high * 1e6:.1f}]"
    alg = algbw_gb_per_s(point.message_bytes, middle_s)
    bus = busbw_gb_per_s(point.message_bytes, middle_s, ranks)
    return (
        f"{what} {point.ops_per_block:>6} {shown:>29} {alg:>9.3f} {bus:>9.3f} "
        f"{point.wrong_elements:>6}"
    )


def gpu_wanted(device: str | None) -> bool:
    """Whether messages lie on GPUs: where there are some, unless told otherwise.

    Raises:
        HvdtoolsError: PyTorch sees none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise HvdtoolsError("--device cuda, but PyTorch sees no GPU here: leave it out.")
    return device != "cpu" and torch.cuda.is_available()


def join(options: argparse.Namespace) -> Job:
    """Join the job under each engine.

    Raises:
        HvdtoolsError: An engine cannot, or sees another job than the others; or
            PyTorch sees no GPU where one was asked for.
    """
    names, on_gpu = options.engine, gpu_wanted(options.device)
    made = {name: make(on_gpu) for name, make in ENGINES.items() if name in names}
    first = next(iter(made.values()))
    for name, engine in made.items():
        if (engine.rank, engine.size) != (first.rank, first.size):
            raise HvdtoolsError(
                f"{name} says rank {engine.rank} of {engine.size}, {first.name} says rank "
                f"{first.rank} of {first.size}: give each engine a job of its own."
            )
    return Job(
        engines={name: made[name] for name in names},
        gather=first.gather,
        rank=first.rank,
        ranks=first.size,
        local_ranks=read_launch_environment(os.environ).local_size,
        device=first.device,
        rule=stopping_rule_of(options),
    )


def sweep(job: Job, messages: Iterable[Message]) -> dict[str, list[Point]]:
    """Each engine's points; rank 0 prints them as they come."""
    points: dict[str, list[Point]] = {name: [] for name in job.engines}
    if job.rank == 0:
        print(f"{job.ranks} rank(s), {job.device.type}\n{HEADER}", flush=True)
    for message in messages:
        for name, point in measure(job, message).items():
            points[name].append(point)
            if job.rank == 0:
                engine = job.engines[name]
                print(row(f"{name} ({engine.transport})", point, job.ranks), flush=True)
    return points


def measure_all(options: argparse.Namespace) -> int:
    """Measure and write what the options say; the elements of all sums that were wrong.

    Raises:
        HvdtoolsError: As `join`, before anything is measured.
    """
    job = join(options)
    messages = [
        Message(size, dtype, tensors)
        for dtype in options.dtype
        for tensors in options.tensors
        for size in options.sizes
    ]
    points = sweep(job, messages)
    if job.rank == 0 and options.result:
        with options.result.open("a") as file:
            for name, engine in job.engines.items():
                measured = Allreduce(
                    engine.name, engine.transport, job.device.type, tuple(points[name])
                )
                file.write(json.dumps(to_dict(measured)) + "\n")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    wrong = sum(point.wrong_elements for of_engine in points.values() for point in of_engine)
    if wrong and job.rank == 0:
        print(f"allreduce: {wrong} element(s) were not the exact sum.", file=sys.stderr)
    return wrong
