"""Run in every rank: loaders whose cost is planted. Usage: ... CASE ARGUMENT

Prints on each rank one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from hvdtools.bench.programs.torch.data import dealt, for_ever, make
from hvdtools.bench.programs.torch.input_measure import Job, joined, load_blocks
from hvdtools.bench.run.interleave import StoppingRule

BATCH, STEPS = 4, 5
RULE = StoppingRule(interval=0.0, limit_s=0.0, min_blocks=6, warmup_blocks=1)


class Sleepy(Dataset[tuple[Tensor, int]]):
    """40 samples, each of which takes so many seconds."""

    def __init__(self, sample_s: float) -> None:
        self.sample_s = sample_s

    def __len__(self) -> int:
        return 40

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        time.sleep(self.sample_s)
        return torch.zeros(1), number


class SlowStart(Sampler[int]):
    """All of 2 batches in order; an epoch takes 50 ms to begin."""

    def __iter__(self) -> Iterator[int]:
        time.sleep(0.05)
        return iter(range(2 * BATCH))


def timed(job: Job, loader: DataLoader[tuple[Tensor, Tensor]], steps: int = STEPS) -> object:
    """The blocks' times, [block][rank]."""
    return load_blocks(loader, job, steps, RULE).rank_block_s["loader"]


def sleeps(job: Job, workers: str) -> object:
    """5 ms a sample, twice as many on rank 1."""
    dataset = Sleepy(0.005 * (1 + job.rank))
    number = int(workers)
    return timed(job, DataLoader(dataset, BATCH, num_workers=number, persistent_workers=number > 0))


def restarts(job: Job, steps: str) -> object:
    """Blocks of as many steps, over epochs of two."""
    return timed(job, DataLoader(Sleepy(0), BATCH, sampler=SlowStart()), int(steps))


def nothing(job: Job, _: str) -> object:
    """A batch that lies there already."""
    return timed(job, make("digits", "digits", 45, job.device, torch.float32, 0, 1).training)


def deals(job: Job, folder: str) -> object:
    """The classes that this rank sees in two epochs of a folder."""
    loader = make("images", folder, 2, job.device, torch.float32, 1, 1).training
    assert isinstance(loader, DataLoader)
    part = dealt(loader, job.rank, job.size, seed=1)
    batches = for_ever(part)
    return [[int(k) for _ in range(len(part)) for k in next(batches)[1]] for _ in range(2)]


CASES = {case.__name__: case for case in (sleeps, restarts, nothing, deals)}

if __name__ == "__main__":
    with joined() as this_job:
        found = CASES[sys.argv[1]](this_job, sys.argv[2])
    print(json.dumps(found), flush=True)
