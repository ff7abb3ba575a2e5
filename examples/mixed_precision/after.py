import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import hvdtools.torch as hvt

topology = hvt.init()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
images = torch.tensor(pixels / 16).float().reshape(-1, 1, 8, 8)
data = TensorDataset(images, torch.tensor(digits))
loader = hvt.shard(DataLoader(data, 64 // topology.size, shuffle=True, drop_last=True))

model = nn.Sequential(
    nn.Conv2d(1, 16, 3),
    nn.ReLU(),
    nn.Conv2d(16, 32, 3),
    nn.ReLU(),
    nn.Flatten(),
    nn.Linear(512, 10),
).to(device, memory_format=torch.channels_last)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
scaler = torch.amp.GradScaler(device)
hvt.prepare(model, optimizer)

for epoch in range(1, 5):
    for x, y in loader:
        optimizer.zero_grad()
        with torch.autocast(device):  # float16 on a GPU, bfloat16 on the CPU
            loss = nn.functional.cross_entropy(model(x.to(device)), y.to(device))
        scaler.scale(loss).backward()
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        scaler.step(optimizer)
        scaler.update()
    last = hvt.average(loss.item())
    if epoch % 2 == 0 and topology.rank == 0:
        print(f"epoch {epoch}: loss {last:.4f}")
