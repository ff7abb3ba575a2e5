import torch
from lightning_fabric import Fabric
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hvdtools.torch as hvt

topology = hvt.init()
fabric = Fabric(devices=[torch.cuda.current_device()] if torch.cuda.is_available() else 1)
fabric.seed_everything(0, verbose=False)
pixels, digits = load_digits(return_X_y=True)
images, digits = torch.tensor(pixels / 16).float(), torch.tensor(digits)
train = TensorDataset(images[:1536], digits[:1536])
loader = hvt.shard(DataLoader(train, 64 // topology.size, shuffle=True))
loader = fabric.setup_dataloaders(loader)

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
model, optimizer = fabric.setup(model, optimizer)
hvt.prepare(model, optimizer)

for epoch in range(1, 11):
    for x, y in loader:
        optimizer.zero_grad()
        fabric.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    if epoch % 5 == 0 and topology.rank == 0:
        with torch.no_grad():
            x, y = fabric.to_device((images[1536:], digits[1536:]))
            print(f"epoch {epoch}: held-out loss {nn.functional.cross_entropy(model(x), y):.4f}")
