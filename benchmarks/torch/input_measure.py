"""The loading of batches on the ranks of a job, measured: what input_pipeline.py writes."""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader

from hvdtools.bench.programs.torch.data import Batch, FixedBatch, dealt, for_ever, make, on_device
from hvdtools.bench.programs.torch.models import MODELS
from hvdtools.bench.programs.torch.process_group import (
    gather_by_torch,
    rank_and_size,
    this_device,
    wait_for_device,
)
from hvdtools.bench.results import measured
from hvdtools.bench.run import interleave


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

    Several ranks meet at MASTER_ADDR:MASTER_PORT.
    """
    rank, size = rank_and_size()
    if size == 1:
        yield Job(rank, size, this_device())
        return
    # Gloo on GPUs, too: only the times of blocks travel, and those outside of what is timed.
    dist.init_process_group("gloo", rank=rank, world_size=size)
    yield Job(rank, size, this_device())
    dist.barrier()
    dist.destroy_process_group()


def load_blocks(
    training: DataLoader[Batch] | FixedBatch,
    job: Job,
    steps: int,
    rule: interleave.StoppingRule,
    *,
    channels_last: bool = False,
) -> interleave.InterleavedBlocks:
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

    return interleave.run_interleaved({"loader": block}, rule, job.gather)


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
        *(training, job, options.steps, interleave.stopping_rule_of(options)),
        channels_last=model.channels_last,
    )
    return loader_of(taken, options, getattr(training, "num_workers", 0))


def loader_of(
    taken: interleave.InterleavedBlocks, options: argparse.Namespace, workers: int
) -> measured.Loader:
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
