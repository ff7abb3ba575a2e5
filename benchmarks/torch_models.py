"""The networks that train_torch.py trains, each with what it reads and its usual optimizer."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from gpt_shapes import GPT_124M, GPT_350M, GPT_MINI
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch_convnets import cnn, resnet50, vgg16
from torch_gpt import Gpt
from torch_mlp import mlp

Optimizer = torch.optim.Optimizer


@dataclass(frozen=True)
class Model:
    """A network of the benchmarks.

    Attributes:
        make: Builds it on the default device in float32, from PyTorch's random numbers.
        reads: What it is fed, a name in `torch_data.READS`.
        channels_last: Whether the network and its images train with the colours
            as the fastest dimension, as is usual for it.
        optimizer: Makes the optimizer for its parameters, a learning rate and the
            device that they lie on.
    """

    make: Callable[[], nn.Module]
    reads: str
    channels_last: bool
    optimizer: Callable[[Iterable[nn.Parameter], float, torch.device], Optimizer]


def sgd(parameters: Iterable[nn.Parameter], lr: float, device: torch.device) -> Optimizer:
    """SGD with momentum 0.9, as the papers of VGG and ResNet have it."""
    return torch.optim.SGD(parameters, lr=lr, momentum=0.9)


def adamw(parameters: Iterable[nn.Parameter], lr: float, device: torch.device) -> Optimizer:
    """AdamW with the constants of GPT-3 (arXiv:2005.14165, appendix B).

    Matrices decay; biases and the scales of LayerNorm do not. On a GPU the fused
    kernel, as anyone would train it there.
    """
    every = list(parameters)
    groups = [
        {"params": [weight for weight in every if weight.dim() >= 2], "weight_decay": 0.1},
        {"params": [weight for weight in every if weight.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=device.type == "cuda")


MODELS = {
    "cnn": Model(cnn, "digits", False, sgd),
    "mlp": Model(mlp, "vectors", False, sgd),
    "resnet50": Model(resnet50, "images", True, sgd),
    "vgg16": Model(vgg16, "images", True, sgd),
    "gpt-mini": Model(lambda: Gpt(GPT_MINI), "bytes", False, adamw),
    "gpt-124m": Model(lambda: Gpt(GPT_124M), "tokens", False, adamw),
    "gpt-350m": Model(lambda: Gpt(GPT_350M), "tokens", False, adamw),
}


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean cross entropy in nats, worked out in float32 (in float64 for float64).

    Args:
        outputs: (B, C) for classes, or (B, T, V) for each token of a text.
        targets: (B,) or (B, T), whole numbers below C or V.
    """
    wide = outputs if outputs.dtype == torch.float64 else outputs.float()
    return cross_entropy(wide.flatten(0, -2), targets.flatten())
