import torch

import hvdtools.torch as hvt

topology = hvt.init()  # join the job: rank, size, local rank, node
torch.manual_seed(1)
inputs = torch.randn(512, 8)
data = torch.utils.data.TensorDataset(inputs, inputs.sum(1, keepdim=True))
loader = hvt.shard(torch.utils.data.DataLoader(data, batch_size=16, shuffle=True))
model = torch.nn.Linear(8, 1)
optimizer = torch.optim.AdamW(model.parameters(), lr=0.05)
hvt.prepare(model, optimizer)  # the same two objects, not wrapped
for epoch in range(5):
    for x, y in loader:
        optimizer.zero_grad()
        loss = torch.nn.functional.mse_loss(model(x), y)
        loss.backward()  # every .grad is now the average over ranks
        optimizer.step()
    mean = hvt.average(loss.item(), count=len(x))
    if topology.rank == 0:
        print(f"epoch {epoch}: loss {mean:.4f}")
