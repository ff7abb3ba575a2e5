"""The networks that train_torch.py trains, each with what it reads and its usual optimizer.

Programs read the names here before they import PyTorch, so this imports it only where a network
or an optimizer is made.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from hvdtools.bench.programs.common.gpt_shapes import GPT_124M, GPT_350M, GPT_MINI
from hvdtools.core.errors import unknown_name

if TYPE_CHECKING:
    import torch
    from torch import nn
    from torch.optim import Optimizer

# What a model reads -> the data that it may be fed by name.
READS = {
    "digits": ("digits", "synthetic"),
    "vectors": ("synthetic",),
    "images": ("synthetic",),
    "bytes": ("synthetic",),
    "tokens": ("synthetic",),
}
# What a model reads -> the files that it may be fed instead.
_FILES = {
    "images": "the path of a folder of class folders",
    "bytes": "the path of a file",
    "tokens": "the path of a file",
}


@dataclass(frozen=True)
class Model:
    """A network of the benchmarks.

    Attributes:
        make: Builds it on the default device in float32, from PyTorch's random numbers.
        reads: What it is fed, a name in `READS`.
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
    from torch.optim import SGD

    return SGD(parameters, lr=lr, momentum=0.9)


def adamw(parameters: Iterable[nn.Parameter], lr: float, device: torch.device) -> Optimizer:
    """AdamW with the constants of GPT-3 (arXiv:2005.14165, appendix B).

    Matrices decay; biases and the scales of LayerNorm do not. On a GPU the fused
    kernel, as anyone would train it there.
    """
    from torch.optim import AdamW

    every = list(parameters)
    groups = [
        {"params": [weight for weight in every if weight.dim() >= 2], "weight_decay": 0.1},
        {"params": [weight for weight in every if weight.dim() < 2], "weight_decay": 0.0},
    ]
    return AdamW(groups, lr=lr, betas=(0.9, 0.95), fused=device.type == "cuda")


def _network(module: str, name: str, *arguments: object) -> Callable[[], nn.Module]:
    """Calls what the module has under this name; the module is not imported before."""

    def make() -> nn.Module:
        network: nn.Module = getattr(import_module(f"{__package__}.{module}"), name)(*arguments)
        return network

    return make


MODELS = {
    "cnn": Model(_network("convnets", "cnn"), "digits", False, sgd),
    "mlp": Model(_network("mlp", "mlp"), "vectors", False, sgd),
    "resnet50": Model(_network("convnets", "resnet50"), "images", True, sgd),
    "vgg16": Model(_network("convnets", "vgg16"), "images", True, sgd),
    "gpt-mini": Model(_network("gpt", "Gpt", GPT_MINI), "bytes", False, adamw),
    "gpt-124m": Model(_network("gpt", "Gpt", GPT_124M), "tokens", False, adamw),
    "gpt-350m": Model(_network("gpt", "Gpt", GPT_350M), "tokens", False, adamw),
}


def names(reads: str) -> tuple[str, ...]:
    """The data that a model which reads this may be fed, beside the path of files."""
    if reads not in READS:
        raise unknown_name("kind of input", reads, tuple(READS))
    return READS[reads]


def check_data(reads: str, data: str) -> None:
    """See that a model which reads this may be fed the data.

    Raises:
        HvdtoolsError: It is neither one of `names(reads)` nor the path of what the model reads.
    """
    known, path = names(reads), Path(data)
    fits = path.is_dir() if reads == "images" else path.is_file()
    if data in known or (fits and reads in _FILES):
        return
    raise unknown_name("data", data, (*known, *([_FILES[reads]] if reads in _FILES else [])))
