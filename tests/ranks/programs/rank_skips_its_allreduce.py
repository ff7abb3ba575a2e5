"""Run in every rank: the last rank's gradients are never averaged; it must not go unnoticed."""

from __future__ import annotations

import contextlib

import torch
from torch import nn

import hvdtools.torch as hvt

topology = hvt.init()
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
hvt.prepare(model, optimizer)
faulty = topology.rank == topology.size - 1
for _ in range(3):
    optimizer.zero_grad()
    with hvt.no_sync() if faulty else contextlib.nullcontext():
        model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
print("trained", flush=True)
