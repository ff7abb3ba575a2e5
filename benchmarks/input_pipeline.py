"""Load batches on every rank and do nothing with them: how fast could training be fed?

By hand, in any launcher (more ranks than one meet at MASTER_ADDR:MASTER_PORT):

    python benchmarks/input_pipeline.py --make photos --images 2000 --size 500
    python benchmarks/input_pipeline.py --model resnet50 --data photos --workers 8

Each rank loads its own part of the data, as in training, and copies it to its
device, as in training. Rank 0 prints the rates and, with --result, appends one
JSON line, a `measured.Loader`. METHOD.md says what is timed and why.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.distributed as dist
from made_images import make_images
from torch.utils.data import DataLoader
from torch_data import Batch, FixedBatch, dealt, for_ever, make, on_device
from torch_meeting import gather_by_torch, place_of_this_rank, this_device, wait_for_device
from torch_models import MODELS

from hvdtools.bench import measured, turns
from hvdtools.errors import HvdtoolsError


@dataclass(frozen=True)
class Job:
    """The ranks that load side by side, and this one's device."""

    rank: int
    size: int
    device: torch.device

    def meet(self) -> None:
        """Go on when every rank is here."""
        if self.size > 1:
            dist.barrier()

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """Row r has rank r's values, on every rank."""
        return gather_by_torch(values)


@contextmanager
def joined() -> Iterator[Job]:
    """The job that this process is a rank of, from its start to its end.

    Raises:
        HvdtoolsError: There are several ranks and no place to meet.
    """
    rank, size = place_of_this_rank()
    if size == 1:
        yield Job(rank, size, this_device())
        return
    if not {"MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys():
        raise HvdtoolsError(
            f"{size} ranks meet at MASTER_ADDR:MASTER_PORT: set both, the same on every rank."
        )
    # Gloo on GPUs, too: only the times of blocks travel, and those outside of what is timed.
    dist.init_process_group("gloo", rank=rank, world_size=size)
    try:
        yield Job(rank, size, this_device())
        dist.barrier()
    finally:
        dist.destroy_process_group()


def load_blocks(
    training: DataLoader[Batch] | FixedBatch,
    job: Job,
    steps: int,
    rule: turns.Stopping,
    *,
    channels_last: bool = False,
) -> turns.Turns:
    """Blocks of `steps` batches of this rank's loader, epoch after epoch.

    What an epoch's end costs falls into the block in which it comes.
    """
    batches = for_ever(training)

    def block() -> float:
        job.meet()
        begun_s = time.perf_counter()
        for _ in range(steps):
            on_device(next(batches), job.device, channels_last=channels_last)
        wait_for_device(job.device)
        return time.perf_counter() - begun_s

    return turns.take_turns({"loader": block}, rule, job.gather)


def measure(job: Job, options: argparse.Namespace) -> measured.Loader:
    """Load as the options say; the same on every rank.

    Raises:
        HvdtoolsError: The data cannot be read, or are too few.
    """
    model = MODELS[options.model]
    training = make(
        *(model.reads, options.data, options.batch_size, job.device, torch.float32),
        *(options.workers, options.seed, options.sequence),
    ).training
    if isinstance(training, DataLoader):
        training = dealt(training, job.rank, job.size, options.seed)
    taken = load_blocks(
        *(training, job, options.steps, turns.stopping_of(options)),
        channels_last=model.channels_last,
    )
    return loader_of(taken, options, getattr(training, "num_workers", 0))


def loader_of(taken: turns.Turns, options: argparse.Namespace, workers: int) -> measured.Loader:
    """The measurement in the blocks that were taken."""
    of_ranks = zip(*taken.rank_block_s["loader"], strict=True)
    return measured.Loader(
        engine="loader",
        data=options.data,
        batch_per_rank=options.batch_size,
        workers=workers,
        steps_per_block=options.steps,
        block_s=tuple(taken.slowest_s("loader")),
        rank_step_s=tuple(statistics.median(blocks) / options.steps for blocks in of_ranks),
        stopped_by=taken.stopped_by,
    )


def tell(loader: measured.Loader) -> None:
    """Print the rates of each rank and of all."""
    for rank, step_s in enumerate(loader.rank_step_s):
        print(
            f"rank {rank}: {loader.batch_per_rank / step_s:.0f} samples/s, {step_s:.6f} s a batch"
        )
    whole = statistics.median(loader.block_rates)
    print(
        f"{len(loader.rank_step_s)} rank(s) with {loader.workers} worker(s) each: {whole:.0f} "
        f"samples/s (median of {len(loader.block_s)} blocks, stopped by {loader.stopped_by})"
    )


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Load batches on every rank, and nothing else.")
    parser.add_argument("--engine", choices=["loader"], default="loader", help="there is one")
    parser.add_argument("--model", choices=sorted(MODELS), default="resnet50", help="who reads")
    parser.add_argument("--data", default="synthetic", help="a name, or the path of files")
    parser.add_argument("--batch-size", type=int, default=128, help="samples a rank and a step")
    parser.add_argument("--workers", type=int, default=4, help="loading processes a rank")
    parser.add_argument("--sequence", type=int, help="tokens of a text")
    parser.add_argument("--steps", type=int, default=20, help="batches in a block")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--result", type=Path, help="rank 0 appends one JSON line to this file")
    turns.add_options(parser)
    made = parser.add_argument_group("instead of loading, once and in one process")
    made.add_argument("--make", type=Path, metavar="FOLDER", help="write image files there")
    made.add_argument("--images", type=int, default=2000, help="so many")
    made.add_argument("--size", type=int, default=500, help="so wide and high, in pixels")
    options = parser.parse_args(arguments)
    for name, least in (("batch_size", 1), ("steps", 1), ("workers", 0), ("max_blocks", 1)):
        if getattr(options, name) < least:
            parser.error(f"--{name.replace('_', '-')} must be at least {least}")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    try:
        if options.make:
            written_bytes = make_images(options.make, options.images, options.size)
            print(f"{options.images} images, {written_bytes / 1e6:.1f} MB, in {options.make}")
            return
        with joined() as job:
            loader = measure(job, options)
    except HvdtoolsError as error:
        print(f"input_pipeline: {error}", file=sys.stderr)
        sys.exit(2)
    if job.rank == 0:
        tell(loader)
        if options.result:
            with options.result.open("a") as file:
                file.write(json.dumps(measured.to_table(loader)) + "\n")


if __name__ == "__main__":
    main()
