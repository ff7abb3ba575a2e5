import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hvdtools.torch as hvt

topology = hvt.init()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(pixels / 16).float(), torch.tensor(digits))
loader = DataLoader(data, 64 // topology.size, shuffle=True, drop_last=True)
loader = hvt.shard(loader)

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
hvt.prepare(model, optimizer)

for epoch in range(1, 11):
    total = torch.zeros((), device=device)
    for x, y in loader:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x.to(device)), y.to(device))
        loss.backward()
        optimizer.step()
        total += loss.detach()
    mean = hvt.average(total.item() / len(loader))
    if epoch % 5 == 0 and topology.rank == 0:
        print(f"epoch {epoch}: loss {mean:.4f}")
