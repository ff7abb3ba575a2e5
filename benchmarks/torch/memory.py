"""The most memory that is taken from one moment on, on the GPU or, without one, by the process."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from collections.abc import Callable, Iterable

import torch
from torch import nn

from hvdtools.bench.programs.common.resident_set import forget_the_peak, peak_bytes

MakeOptimizer = Callable[[Iterable[nn.Parameter], float, torch.device], torch.optim.Optimizer]


class PeakMemory:
    """Begins to look when it is made.

    On a GPU it sees what PyTorch's allocator hands out: NCCL's own buffers are not
    in it. On the CPU it sees the growth of the process' largest resident set, with
    all that libraries take.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        gc.collect()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
            torch.cuda.reset_peak_memory_stats(device)
            self._before_bytes = torch.cuda.memory_allocated(device)
        else:
            _hand_back_what_is_free()
            forget_the_peak()
            self._before_bytes = peak_bytes()

    def read(self) -> int:
        """The most bytes since, beyond what was taken then."""
        if self._device.type == "cuda":
            return torch.cuda.max_memory_allocated(self._device) - self._before_bytes
        return max(0, peak_bytes() - self._before_bytes)


def warm_up(device: torch.device, optimizer_of: MakeOptimizer) -> None:
    """A first small training, so that what libraries load is not taken for the first engine's."""
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 64))
    optimizer = optimizer_of(model.to(device).parameters(), 1e-3, device)
    for bfloat16 in (False, True):
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            model(torch.ones(8, 3, 8, 8, device=device)).float().sum().backward()
        optimizer.step()


def _hand_back_what_is_free() -> None:
    """Freed memory that the C library keeps would hide what the next engine takes of it."""
    if sys.platform == "linux":
        with contextlib.suppress(AttributeError):  # a C library other than glibc
            ctypes.CDLL(None).malloc_trim(0)
