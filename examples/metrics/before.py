import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torch.utils.tensorboard import SummaryWriter
from torchmetrics.classification import MulticlassF1Score
from tqdm import tqdm

device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
pixels, digits = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(pixels / 16).float(), torch.tensor(digits))
loader = DataLoader(data, batch_size=64, shuffle=True, drop_last=True)

model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
f1 = MulticlassF1Score(10).to(device)
writer = SummaryWriter("runs")

for epoch in range(1, 11):
    total = 0.0
    for x, y in tqdm(loader, f"epoch {epoch}"):
        x, y = x.to(device), y.to(device)
        optimizer.zero_grad()
        scores = model(x)
        loss = nn.functional.cross_entropy(scores, y)
        loss.backward()
        optimizer.step()
        total += loss.item()
        f1.update(scores, y)
    mean = total / len(loader)
    score = f1.compute().item()
    f1.reset()
    if epoch % 2 == 0:
        writer.add_scalar("loss", mean, epoch)
        writer.add_scalar("f1", score, epoch)
        writer.flush()
        tqdm.write(f"epoch {epoch}: f1 {score:.4f} loss {mean:.4f}")
