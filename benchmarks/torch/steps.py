"""A training step in its phases, and how a block of steps is timed."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from hvdtools.bench.programs.torch.data import Batch, on_device
from hvdtools.bench.results.measured import PHASES


class Step(Protocol):
    """The work of one step; each method is a name in `PHASES`."""

    def input(self) -> bool:
        """Get the next batch; False if there is none, and so no step."""

    def forward(self) -> None: ...

    def backward(self) -> None: ...

    def optimizer(self) -> None: ...


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    """The mean cross entropy in nats, worked out in float32 (in float64 for float64).

    Args:
        outputs: (B, C) for classes, or (B, T, V) for each token of a text.
        targets: (B,) or (B, T), whole numbers below C or V.
    """
    wide = outputs if outputs.dtype == torch.float64 else outputs.float()
    return cross_entropy(wide.flatten(0, -2), targets.flatten())


class TrainingStep:
    """A step of a model that an engine has prepared.

    Args:
        model, optimizer: As the engine handed them back.
        batches: Where `input` takes from.
        device: Where it trains.
        channels_last: Whether images lie with their colours as the fastest dimension.
        bfloat16: Whether the forward pass runs under autocast.

    Attributes:
        loss: Of the last forward pass; NaN before the first.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        batches: Iterator[Batch],
        device: torch.device,
        *,
        channels_last: bool,
        bfloat16: bool,
    ) -> None:
        self.batches = batches
        self.loss = torch.tensor(float("nan"))
        self._model, self._optimizer = model, optimizer
        self._device, self._channels_last, self._bfloat16 = device, channels_last, bfloat16

    def input(self) -> bool:
        batch = next(self.batches, None)
        if batch is None:
            return False
        self._batch = on_device(batch, self._device, channels_last=self._channels_last)
        return True

    def forward(self) -> None:
        inputs, targets = self._batch
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._bfloat16):
            self.loss = loss(self._model(inputs), targets)

    def backward(self) -> None:
        self.loss.backward()
        self.loss = self.loss.detach()

    def optimizer(self) -> None:
        self._optimizer.step()
        self._optimizer.zero_grad()


class HostClock:
    """Marks on the host's clock, between phases that are done when their call returns."""

    def __init__(self) -> None:
        self._marks_s: list[float] = []

    def mark(self) -> None:
        self._marks_s.append(time.perf_counter())

    def between_s(self) -> list[float]:
        """The seconds between the marks, which are then forgotten."""
        marks_s, self._marks_s = self._marks_s, []
        return [later - mark for mark, later in itertools.pairwise(marks_s)]


class DeviceClock:
    """Marks on the GPU's own clock: it notes when it comes by, and nobody waits for it.

    The marks lie on the stream in use, so what a phase waits for is in its time.
    """

    def __init__(self) -> None:
        self._events: list[torch.cuda.Event] = []
        self._used = 0

    def mark(self) -> None:
        if self._used == len(self._events):
            self._events.append(torch.cuda.Event(enable_timing=True))
        self._events[self._used].record()
        self._used += 1

    def between_s(self) -> list[float]:
        """The seconds between the marks, once the device has passed them all."""
        events, self._used = self._events[: self._used], 0
        return [mark.elapsed_time(later) / 1e3 for mark, later in itertools.pairwise(events)]


Clock = HostClock | DeviceClock


def clock_for(device: torch.device) -> Clock:
    """The clock that tells the phases on this device."""
    return DeviceClock() if device.type == "cuda" else HostClock()


def run_steps(step: Step, clock: Clock, most: int | None) -> int:
    """Run `most` steps, or all until there is no batch; how many it were.

    The clock gets a mark before all, and one after each phase.
    """
    done = 0
    clock.mark()
    while done != most and step.input():
        clock.mark()
        step.forward()
        clock.mark()
        step.backward()
        clock.mark()
        step.optimizer()
        clock.mark()
        done += 1
    return done


def phase_means_s(clock: Clock, steps: int) -> list[float]:
    """The mean seconds of a step in each of `PHASES`, over the steps since the last call."""
    between_s = clock.between_s()
    if len(between_s) != steps * len(PHASES):
        raise ValueError(f"{len(between_s)} phases are not {steps} steps")
    return [sum(between_s[place :: len(PHASES)]) / steps for place in range(len(PHASES))]
