"""Wait for the other ranks, and record what for."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import horovod.torch as hvd
import torch
from torch import Tensor

_POLL_S = 50e-6

# (what, since when) of the innermost wait, outermost first. What is a text or
# makes one: it is wanted once in a job that stalls, and waits are many.
_waits: list[tuple[str | Callable[[], str], float]] = []


@contextmanager
def waiting(what: str | Callable[[], str]) -> Iterator[None]:
    """Record what this rank waits for while the block runs, for the stall report."""
    wait = (what, time.monotonic())
    _waits.append(wait)
    try:
        yield
    finally:
        _waits.remove(wait)  # not the last: other threads wait, too


def current_wait() -> tuple[str, float] | None:
    """(what, seconds so far) of this rank's wait; None if it does not wait. For any thread."""
    try:
        what, since_s = _waits[-1]
        text = what if isinstance(what, str) else what()
    except (IndexError, KeyError):  # it ended this very moment
        return None
    return text, time.monotonic() - since_s


def wait_for(handle: int, *, on_gpu: bool) -> Tensor:
    """The result of Horovod's asynchronous operation `handle`; waits for every rank.

    Horovod's own wait spins, on a core that its thread needs to add up
    gradients on the CPU.
    """
    while not on_gpu and not hvd.poll(handle):
        time.sleep(_POLL_S)
    result: Tensor = hvd.synchronize(handle)
    return result


def join_default_stream(device: torch.device | None = None) -> None:
    """Make the stream in use wait for what Horovod has completed, on the GPU in use or `device`.

    Asynchronous completion makes the device's default stream wait for a result,
    whichever stream the script works on.
    """
    torch.cuda.current_stream(device).wait_stream(torch.cuda.default_stream(device))
