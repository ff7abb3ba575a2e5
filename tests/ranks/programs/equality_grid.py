"""The cells of the equality table: every optimizer in every precision on every kind of data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from functools import partial

import equality_loops
import torch
from equality_loops import steps_for, take_step, weights_of
from torch import Tensor, nn
from worlds import WIDTH, Part, World

OPTIMIZERS = {
    "SGD": equality_loops.OPTIMIZERS["sgd"],
    "momentum": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9),
    "AdamW": equality_loops.OPTIMIZERS["adamw"],
    "Adafactor": lambda p: torch.optim.Adafactor(p, lr=0.01),
    "LBFGS": lambda p: torch.optim.LBFGS(p, lr=0.05, max_iter=2),
}
PRECISIONS = ("float32", "autocast bf16", "GradScaler")
DATA = ("even", "uneven", "weighted")
# (optimizer, precision) that PyTorch itself cannot do.
IMPOSSIBLE = {("LBFGS", "GradScaler"): "PyTorch's GradScaler takes no closure"}
CELLS = tuple(
    (optimizer, precision, data)
    for optimizer in OPTIMIZERS
    for precision in PRECISIONS
    for data in DATA
    if (optimizer, precision) not in IMPOSSIBLE
)


def train_cell(world: World, name: str, precision: str, data: str) -> list[Tensor]:
    """The weights at the end; with GradScaler its scale is the last."""
    torch.manual_seed(7)
    model = nn.Sequential(nn.Linear(WIDTH, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh())
    model.append(nn.Linear(8, 1))
    optimizer = OPTIMIZERS[name](model.parameters())
    world.prepare(model, optimizer, check_every=1)
    device, in_bfloat16 = torch.get_default_device().type, precision == "autocast bf16"
    scaler = torch.amp.GradScaler(device, init_scale=2.0**10, enabled=precision == "GradScaler")

    def loss_of_part(part: Part) -> Tensor:
        """The mean squared error over the rows that count; NaN if none does."""
        with torch.autocast(device, torch.bfloat16, enabled=in_bfloat16):
            error = model(part.inputs).float() - part.targets
        return (error.square() * part.mask).sum() / part.mask.sum()

    def backward(parts: Sequence[Part], factor: float) -> Tensor:
        with world.weight(parts) if data == "weighted" else nullcontext():
            if in_bfloat16:
                return world.backward_of_parts(model, parts, loss_of_part)
            loss = world.loss_over(parts, loss_of_part)
            (scaler.scale(loss) * factor).backward()
            return loss.detach()

    for number, parts in enumerate(world.batches(data, steps_for(optimizer))):
        # The last rank's loss alone overflows in the first step: every rank must skip it.
        last = parts[-1].rank == world.size - 1 and parts[-1].count > 0
        factor = float("inf") if scaler.is_enabled() and number == 0 and last else 1.0
        take_step(optimizer, partial(backward, parts, factor), scaler)
    weights = weights_of(model)
    return [*weights, torch.tensor(scaler.get_scale())] if scaler.is_enabled() else weights
