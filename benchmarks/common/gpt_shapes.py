"""GPT-2's published sizes, and a small one that a CPU trains; the same for both frameworks.

Source: Radford et al., Language Models are Unsupervised Multitask Learners, 2019.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Shape:
    """How large a GPT is.

    Attributes:
        layers, heads, width: Blocks; heads of attention in each; numbers per token.
        vocabulary: Different tokens.
        longest: Tokens of the longest text that it reads.
    """

    layers: int
    heads: int
    width: int
    vocabulary: int
    longest: int


GPT_MINI = Shape(layers=4, heads=6, width=192, vocabulary=256, longest=256)  # 1 878 144 weights
GPT_124M = Shape(layers=12, heads=12, width=768, vocabulary=50257, longest=1024)  # 124 439 808
GPT_350M = Shape(layers=24, heads=16, width=1024, vocabulary=50257, longest=1024)  # 354 823 168
