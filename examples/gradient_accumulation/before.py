import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(pixels / 16).float(), torch.tensor(digits))
loader = DataLoader(data, batch_size=16, shuffle=True, drop_last=True)

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)

for epoch in range(1, 7):
    for number, (x, y) in enumerate(loader, start=1):  # 112 batches, 28 steps
        loss = nn.functional.cross_entropy(model(x.to(device)), y.to(device))
        (loss / 4).backward()
        if number % 4 == 0:
            optimizer.step()
            optimizer.zero_grad()
    last = loss.item()
    if epoch % 2 == 0:
        print(f"epoch {epoch}: loss {last:.4f}")
