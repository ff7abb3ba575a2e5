"""What hvdtools' own checks cost, as a share of a training step.

    hvdtools launch -n 2 -- python benchmarks/studies/consistency_check_cost.py --model transformer

Trains the same model in turns: without the proof, with the proof in every step
(`check_every=1`), and with a weight in every pass. InterleavedBlocks change in every round,
so that a drift of the machine falls on all. Rank 0 prints a line for each: the
median and the quartiles over rounds of the slowest rank's time a step, what it
takes more than plain training in the same round, and for the proof the share of
a step at `check_every=100`.

PyTorch is imported where it is used, so that neither --help nor a wrong option waits for it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn


def perceptron() -> tuple[nn.Module, Tensor]:
    """24 linear layers of 1024 (25 M parameters), batch 64."""
    import torch
    from torch import nn

    layers = [layer for _ in range(24) for layer in (nn.Linear(1024, 1024), nn.ReLU())]
    return nn.Sequential(*layers), torch.randn(64, 1024)


def transformer() -> tuple[nn.Module, Tensor]:
    """12 encoder layers of width 768 (85 M parameters), 16 sequences of 512."""
    import torch
    from torch import nn

    layer = nn.TransformerEncoderLayer(768, 12, 3072, dropout=0.0, batch_first=True)
    return nn.TransformerEncoder(layer, 12), torch.randn(16, 512, 768)


MODELS = {"perceptron": perceptron, "transformer": transformer}


@dataclass(frozen=True)
class Way:
    """One way to train.

    Attributes:
        check_every: As in `prepare()`.
        weight: The context of each backward pass.
    """

    check_every: int
    weight: Callable[[], AbstractContextManager[None]] = nullcontext


def random_weight() -> AbstractContextManager[None]:
    import torch

    import hvdtools.torch as hvt

    return hvt.weight(2 + torch.rand(()).item())


WAYS = {
    "plain": Way(check_every=0),
    "proof in every step": Way(check_every=1),
    "weighted": Way(check_every=0, weight=random_weight),
}


def trainer(make: Callable[[], tuple[nn.Module, Tensor]], way: Way) -> Callable[[], None]:
    """A prepared model's training step."""
    import torch

    import hvdtools.torch as hvt

    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, inputs = make()
    model, inputs = model.to(device), inputs.to(device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-5, fused=device == "cuda")
    hvt.prepare(model, optimizer, check_every=way.check_every)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            loss = model(inputs).float().square().mean()
        with way.weight():
            loss.backward()
        optimizer.step()

    return step


def seconds_a_step(step: Callable[[], None], steps: int) -> float:
    """The slowest rank's mean over `steps` steps, seconds."""
    import torch

    import hvdtools.torch as hvt

    hvt.average(0.0)  # all begin together
    _wait_for_device()
    begun_s = time.perf_counter()
    for _ in range(steps):
        step()
    _wait_for_device()
    mine = torch.tensor([(time.perf_counter() - begun_s) / steps])
    return max(part.item() for part in hvt.gather(mine))


def _wait_for_device() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def quartiles(values: list[float], unit: str, scale: float) -> str:
    low, middle, high = statistics.quantiles([value * scale for value in values], n=4)
    return f"{middle:.3f} {unit} ({low:.3f} to {high:.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=MODELS, default="perceptron")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=10, help="in each turn")
    options = parser.parse_args()
    import hvdtools.torch as hvt

    topology = hvt.init()
    steps = {name: trainer(MODELS[options.model], way) for name, way in WAYS.items()}
    for step in steps.values():
        seconds_a_step(step, 5)
    taken: dict[str, list[float]] = {name: [] for name in WAYS}
    for number in range(options.rounds):
        names = list(WAYS) if number % 2 else list(WAYS)[::-1]
        for name in names:
            taken[name].append(seconds_a_step(steps[name], options.steps))
    if topology.rank:
        return
    print(
        f"{options.model}, {topology.size} ranks, {options.rounds} rounds of {options.steps} steps"
    )
    for name, times in taken.items():
        more = [a - b for a, b in zip(times, taken["plain"], strict=True)]
        shares = [m / b for m, b in zip(more, taken["plain"], strict=True)]
        line = f"{name}: {quartiles(times, 'ms a step', 1e3)}"
        if name != "plain":
            line += f", {quartiles(shares, '% more', 100)}"
        if WAYS[name].check_every:
            line += f"; at check_every=100 {statistics.median(shares) / 100:.3%} of a step"
        print(line)


if __name__ == "__main__":
    main()
