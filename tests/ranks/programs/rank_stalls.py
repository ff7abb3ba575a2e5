"""Run in every rank: rank 1 comes late to a backward pass, and then to an average."""

from __future__ import annotations

import time

import torch
from torch import nn

import hvdtools.torch as hvt

topology = hvt.init(stall_s=1)
model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
hvt.prepare(model, optimizer)


def read_slowly() -> None:
    if topology.rank == 1:
        time.sleep(4)


for step in range(2):
    optimizer.zero_grad()
    if step == 1:
        read_slowly()
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
read_slowly()
hvt.average(1.0)
print("done")
