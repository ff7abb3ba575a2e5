"""Run in every rank: trains, saves when told to stop, and goes on from there when started again.

    rank_slurm_training.py FOLDER

Until it was told to stop it goes on for ever; then it exits with 75, and after the next start
it takes STEPS_MORE steps. It prints, in JSON, its rank, the size of the job, its first step and
its last, and the largest difference between its weights and those of one process that trained
on the joined batch without a stop, in float64. A child without a handler for the signal, as
the workers of a data loader may be, must survive it.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from itertools import count
from pathlib import Path

import torch
from torch import nn
from worlds import WIDTH, OneProcess, Part, ThisRank, World

STEPS_MORE = 3


def trained(
    world: World,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: range | count[int],
) -> int:
    """Trains until told to stop, or to the end of the steps. Returns the step that it is at."""

    def loss_of_part(part: Part) -> torch.Tensor:
        return nn.functional.mse_loss(model(part.inputs), part.targets)

    for step in steps:
        optimizer.zero_grad()
        world.loss(step, torch.float64, loss_of_part).backward()
        optimizer.step()
        if isinstance(steps, count):
            time.sleep(0.05)
            assert isinstance(world, ThisRank)
            if world.hvt.stop_requested():
                return step + 1
            (FOLDER / "runs").touch()
    assert isinstance(steps, range)
    return steps.stop


def parts() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    return model, torch.optim.AdamW(model.parameters(), lr=0.05)


def main() -> None:
    world = ThisRank()
    hvt, rank = world.hvt, world.topology.rank
    child = subprocess.Popen(["sleep", "600"])
    model, optimizer = parts()
    world.prepare(model, optimizer)
    checkpoint = FOLDER / "last.pt"
    if not checkpoint.exists():
        step = trained(world, model, optimizer, count())
        hvt.save(checkpoint, model=model, optimizer=optimizer, step=step)
        print(f"saved at step {step}, child {child.poll()}", flush=True)
        sys.exit(75)
    first = hvt.load(checkpoint, model=model, optimizer=optimizer)["step"]
    last = trained(world, model, optimizer, range(first, first + STEPS_MORE))
    reference, its_optimizer = parts()
    trained(OneProcess(world.size), reference, its_optimizer, range(last))
    pairs = zip(model.parameters(), reference.parameters(), strict=True)
    error = max((a - b).abs().max().item() for a, b in pairs)
    found = {"rank": rank, "size": world.size, "first": first, "last": last, "error": error}
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    FOLDER = Path(sys.argv[1])
    main()
