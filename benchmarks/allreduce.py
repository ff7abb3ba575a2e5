"""Sum messages of many sizes over all ranks, check every element, and time it.

By hand, in any launcher:

    hvdtools launch -n 2 --with mpirun -- python benchmarks/allreduce.py \\
        --engine horovod,mpi4py --sizes 1KiB:1GiB --dtype float32,float16 --tensors 1,16

Rank 0 prints a line for each message and engine and, with --result, appends one
JSON line for each engine with the raw times. The exit code is 1 if an element
of a sum was wrong. METHOD.md says what is timed and why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Collection
from pathlib import Path

import torch
from allreduce_engines import ENGINES
from allreduce_point import Job, Message, measure
from allreduce_values import DTYPES

from hvdtools.bench.bandwidth import alg_gb_per_s, bus_gb_per_s
from hvdtools.bench.interval import median_interval
from hvdtools.bench.measured import Allreduce, Point, to_table
from hvdtools.bench.sizes import sizes_in
from hvdtools.bench.turns import add_options, stopping_of
from hvdtools.bench.words import bytes_in_words
from hvdtools.errors import HvdtoolsError, unknown_name
from hvdtools.topology import promised

HEADER = (
    f"{'message':>9} {'of':>8} {'tensors':>7} {'engine':>15} {'ops':>6} "
    f"{'microseconds [95 %]':>29} {'alg GB/s':>9} {'bus GB/s':>9} {'wrong':>6}"
)


def row(name: str, point: Point, ranks: int) -> str:
    """A line of the table."""
    size = bytes_in_words(point.message_bytes)
    what = f"{size:>9} {point.dtype:>8} {point.tensors:>7} {name:>15}"
    if point.refused is not None:
        return f"{what} refused: {point.refused}"
    span = median_interval(point.op_s)
    middle_s = span.middle if span else statistics.median(point.op_s)
    shown = f"{middle_s * 1e6:.1f}"
    if span:
        shown += f" [{span.low * 1e6:.1f}, {span.high * 1e6:.1f}]"
    alg = alg_gb_per_s(point.message_bytes, middle_s)
    bus = bus_gb_per_s(point.message_bytes, middle_s, ranks)
    return (
        f"{what} {point.ops_per_block:>6} {shown:>29} {alg:>9.3f} {bus:>9.3f} "
        f"{point.wrong_elements:>6}"
    )


def join(options: argparse.Namespace) -> Job:
    """Join the job under each engine.

    Raises:
        HvdtoolsError: An engine cannot, or sees another job than the others.
    """
    names = options.engine
    made = {name: make(options.on_gpu) for name, make in ENGINES.items() if name in names}
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
        local_ranks=promised(os.environ).local_size,
        device=first.device,
        rule=stopping_of(options),
    )


def sweep(job: Job, messages: Collection[Message]) -> dict[str, list[Point]]:
    """Each engine's points; rank 0 prints them as they come."""
    points: dict[str, list[Point]] = {name: [] for name in job.engines}
    if job.rank == 0:
        print(f"{job.ranks} rank(s), {job.device.type}\n{HEADER}", flush=True)
    for message in messages:
        for name, point in measure(job, message).items():
            points[name].append(point)
            if job.rank == 0:
                engine = job.engines[name]
                print(row(f"{name} ({engine.moved_by})", point, job.ranks), flush=True)
    return points


def listed(kind: str, text: str, known: Collection[str]) -> tuple[str, ...]:
    """The names in "a,b".

    Raises:
        HvdtoolsError: One is unknown.
    """
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",")))
    for name in names:
        if name not in known:
            raise unknown_name(kind, name, tuple(known))
    return names


def counts(text: str) -> tuple[int, ...]:
    """The numbers in "1,16".

    Raises:
        HvdtoolsError: One is no whole number from 1.
    """
    parts = [part.strip() for part in text.split(",")]
    if any(not part.isdecimal() or int(part) == 0 for part in parts):
        raise HvdtoolsError(f"--tensors {text!r} are no whole numbers from 1, as in 1,16.")
    return tuple(dict.fromkeys(map(int, parts)))


def gpu_wanted(device: str | None) -> bool:
    """Whether messages lie on GPUs: where there are some, unless told otherwise.

    Raises:
        HvdtoolsError: PyTorch sees none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise HvdtoolsError("--device cuda, but PyTorch sees no GPU here: leave it out.")
    return device != "cpu" and torch.cuda.is_available()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Time all-reduces of many sizes, and check them.",
        epilog="--limit-s is 2 unless given, and counts for each message.",
    )
    parser.add_argument("--engine", default="horovod", help=f"of {','.join(ENGINES)} [horovod]")
    parser.add_argument("--sizes", default="1KiB:1GiB", help="small:large, or a list [1KiB:1GiB]")
    parser.add_argument("--factor", type=int, default=2, help="from a size to the next [2]")
    parser.add_argument("--dtype", default="float32", help=f"of {','.join(DTYPES)} [float32]")
    parser.add_argument("--tensors", default="1", help="how many a message consists of [1]")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="[the GPU, where there is one]")
    parser.add_argument("--result", type=Path, help="rank 0 appends JSON lines to this file")
    add_options(parser)
    parser.set_defaults(limit_s=2.0)
    options = parser.parse_args(arguments)
    try:
        options.engine = listed("engine", options.engine, ENGINES)
        dtypes = listed("dtype", options.dtype, DTYPES)
        tensors = counts(options.tensors)
        sizes = sizes_in(options.sizes, options.factor)
        options.on_gpu = gpu_wanted(options.device)
        if options.result and not options.result.parent.is_dir():
            raise HvdtoolsError(f"There is no folder {options.result.parent}: make it first.")
    except HvdtoolsError as error:
        parser.error(str(error))
    options.messages = [Message(s, d, t) for d in dtypes for t in tensors for s in sizes]
    return options


def main(arguments: list[str] | None = None) -> int:
    options = parse(arguments)
    try:
        job = join(options)
    except HvdtoolsError as error:
        print(f"allreduce: {error}", file=sys.stderr)
        return 2
    points = sweep(job, options.messages)
    if job.rank == 0 and options.result:
        with options.result.open("a") as file:
            for name, engine in job.engines.items():
                measured = Allreduce(
                    engine.name, engine.moved_by, job.device.type, tuple(points[name])
                )
                file.write(json.dumps(to_table(measured)) + "\n")
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    wrong = sum(point.wrong_elements for of_engine in points.values() for point in of_engine)
    if wrong and job.rank == 0:
        print(f"allreduce: {wrong} element(s) were not the exact sum.", file=sys.stderr)
    # A result file says so itself, and the job that wrote it did what it was asked.
    return 1 if wrong and not options.result else 0


if __name__ == "__main__":
    sys.exit(main())
