"""Run in every rank of a cluster's job: trains, and prints where it was and how right it was.

    rank_cluster.py [FAILING_RANK EXIT_CODE]

Each rank prints one JSON object: its topology, its host, the GPUs it was shown and the one
that is its own, and the largest difference between its weights and those of one process that
trained on the joined batch, in float64.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from dataclasses import asdict

import torch
from torch import nn
from worlds import BATCH, WIDTH, OneProcess, Part, ThisRank, World

from hvdtools.rank_wrapper.binding import gpu_of

STEPS = 3

# By hand, TEST_DEVICE=cuda trains on GPUs.
torch.set_default_device(os.environ.get("TEST_DEVICE", "cpu"))


def trained(world: World) -> list[torch.Tensor]:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(WIDTH, 7), nn.Tanh(), nn.Linear(7, 1)).double()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
    world.prepare(model, optimizer)

    def loss_of_part(part: Part) -> torch.Tensor:
        return nn.functional.mse_loss(model(part.inputs), part.targets)

    for step in range(STEPS):
        optimizer.zero_grad()
        world.loss(step, torch.float64, loss_of_part).backward()
        optimizer.step()
    return [parameter.detach() for parameter in model.parameters()]


def main(failing: int = -1, code: int = 0) -> None:
    world = ThisRank()
    topology = world.topology
    mine, reference = trained(world), trained(OneProcess(topology.size))
    error = max((a - b).abs().max().item() for a, b in zip(mine, reference, strict=True))
    gpu = gpu_of(topology.local_rank, os.environ)
    found = {
        **asdict(topology),
        "host": socket.gethostname(),
        "gpus": os.environ.get("CUDA_VISIBLE_DEVICES"),
        "gpu": gpu.name if gpu else None,
        "error": error,
        "batch": BATCH,
    }
    print(json.dumps(found), flush=True)
    if topology.rank == failing:
        print("these are my last words", file=sys.stderr, flush=True)
        os._exit(code)


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
