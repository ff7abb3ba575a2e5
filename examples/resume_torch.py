import sys
from pathlib import Path

import torch

import hvdtools.torch as hvt

CHECKPOINT = Path("last.pt")  # on a file system that rank 0 sees in every attempt

topology = hvt.init()
torch.manual_seed(1)
inputs = torch.randn(512, 8)
data = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
loader = hvt.shard(torch.utils.data.DataLoader(data, batch_size=16, shuffle=True))
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
hvt.prepare(model, optimizer)

first_epoch = 0
if hvt.broadcast(CHECKPOINT.exists()):  # rank 0's answer, on every rank
    first_epoch = hvt.load(CHECKPOINT, model=model, optimizer=optimizer)["epoch"]
loader.sampler.set_epoch(first_epoch)
hvt.stop_requested()  # from here on the signal no longer ends the process

for epoch in range(first_epoch, 5):
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()
        optimizer.step()
    mean = hvt.average(loss.item(), count=len(x))
    if topology.rank == 0:
        print(f"epoch {epoch}: loss {mean:.4f}", flush=True)
    hvt.save(CHECKPOINT, model=model, optimizer=optimizer, epoch=epoch + 1)
    if hvt.stop_requested():  # the same answer on every rank
        sys.exit(75)  # "saved; run me again"
