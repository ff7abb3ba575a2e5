"""GPT-2's architecture in PyTorch; `gpt_shapes` has its sizes and its source.

No dropout, as is usual where no text is read twice.
"""

from __future__ import annotations

from torch import Tensor, arange, nn
from torch.nn.functional import linear, scaled_dot_product_attention

from hvdtools.bench.programs.common.gpt_shapes import Shape


class Block(nn.Module):
    """Attention and a layer of four times the width, each beside a shortcut."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm1 = nn.LayerNorm(shape.width)
        self.attend = nn.Linear(shape.width, 3 * shape.width)
        self.attended = nn.Linear(shape.width, shape.width)
        self.norm2 = nn.LayerNorm(shape.width)
        self.widen = nn.Linear(shape.width, 4 * shape.width)
        self.gelu = nn.GELU(approximate="tanh")
        self.narrow = nn.Linear(4 * shape.width, shape.width)

    def forward(self, signal: Tensor) -> Tensor:
        signal = signal + self.attended(self._attention(self.norm1(signal)))
        added: Tensor = signal + self.narrow(self.gelu(self.widen(self.norm2(signal))))
        return added

    def _attention(self, signal: Tensor) -> Tensor:
        """(B, T, width) -> the same; no token sees a later one."""
        batch, tokens, width = signal.shape
        # (B, T, 3 width) -> three of (B, heads, T, width / heads)
        parts = self.attend(signal).view(batch, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = scaled_dot_product_attention(parts[0], parts[1], parts[2], is_causal=True)
        return mixed.transpose(1, 2).reshape(batch, tokens, width)


class Gpt(nn.Module):
    """Tokens (B, T) -> scores (B, T, vocabulary) of the token that follows each."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.places = nn.Embedding(shape.longest, shape.width)
        self.blocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))
        self.norm = nn.LayerNorm(shape.width)
        self._begin()

    def _begin(self) -> None:
        """GPT-2's random weights: what is added to the shortcuts shrinks with their number."""
        for name, module in self.named_modules():
            if not isinstance(module, nn.Linear | nn.Embedding):
                continue
            adds = name.endswith(("attended", "narrow"))
            std = 0.02 / (2 * self.shape.layers) ** 0.5 if adds else 0.02
            nn.init.normal_(module.weight, std=std)
            if isinstance(module, nn.Linear):
                nn.init.zeros_(module.bias)

    def forward(self, tokens: Tensor) -> Tensor:
        places = arange(tokens.shape[1], device=tokens.device)
        signal = self.tokens(tokens) + self.places(places)
        for block in self.blocks:
            signal = block(signal)
        # The embedding is the last layer, too: its gradient comes from both ends of the network.
        return linear(self.norm(signal), self.tokens.weight)
