"""What programs of checks on PyTorch share, beside `checking_base`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import horovod.torch as hvd
import torch
from checking_base import heard, refused, run_checks
from torch import Tensor

__all__ = ["DEVICE", "buckets_sent", "heard", "refused", "run_checks"]

# Where the programs compute; by hand, TEST_DEVICE=cuda runs them on GPUs.
DEVICE = os.environ.get("TEST_DEVICE", "cpu")
torch.set_default_device(DEVICE)


@contextmanager
def buckets_sent(first: Tensor) -> Iterator[list[bool]]:
    """For each bucket that leaves meanwhile, whether parameter `first` had no gradient yet."""
    early: list[bool] = []
    original = hvd.allreduce_async_

    def watched(*arguments: object, **options: object) -> int:
        early.append(first.grad is None)
        handle: int = original(*arguments, **options)
        return handle

    hvd.allreduce_async_ = watched
    try:
        yield early
    finally:
        hvd.allreduce_async_ = original
