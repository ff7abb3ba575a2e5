import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import DataLoader
from transformers import AutoModelForCausalLM, LlamaConfig

import hvdtools.torch as hvt

topology = hvt.init()
device = "cuda" if torch.cuda.is_available() else "cpu"
torch.manual_seed(0)
# A placeholder for your tokenized texts: sequences of 4 to 24 tokens that count upwards.
texts = [(torch.arange(4 + 5 * i % 21) + 5 * i) % 50 for i in range(288)]
held_out = texts[256:]


def pad(rows):
    ids = pad_sequence(rows, batch_first=True)
    labels = pad_sequence(rows, batch_first=True, padding_value=-100)
    return {"input_ids": ids, "labels": labels, "attention_mask": (labels != -100).long()}


loader = hvt.shard(DataLoader(texts[:256], 32 // topology.size, shuffle=True, collate_fn=pad))
config = LlamaConfig(
    vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2
)
model = AutoModelForCausalLM.from_config(config).to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
hvt.prepare(model, optimizer)

for epoch in range(1, 5):
    model.train()
    for batch in loader:
        optimizer.zero_grad()
        loss = model(**{name: value.to(device) for name, value in batch.items()}).loss
        with hvt.weight((batch["labels"][:, 1:] != -100).sum()):
            loss.backward()
        optimizer.step()
    if epoch % 2 == 0 and topology.rank == 0:
        model.eval()
        with torch.no_grad():
            loss = model(**{name: value.to(device) for name, value in pad(held_out).items()}).loss
        print(f"epoch {epoch}: loss {loss.item():.4f}")
