"""What programs of checks share: each `check_*` runs in every rank, its outcome comes back."""

from __future__ import annotations

import json
import logging
import os
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor

from hvdtools.errors import HvdtoolsError

# Where the programs compute; by hand, TEST_DEVICE=cuda runs them on GPUs.
DEVICE = os.environ.get("TEST_DEVICE", "cpu")
torch.set_default_device(DEVICE)


def run_checks(namespace: Mapping[str, Any], names: Sequence[str] = ()) -> None:
    """Run the checks named, or all of a program, and print {check: "ok" or its traceback}."""
    outcomes = {}
    for name in names or [name for name in namespace if name.startswith("check_")]:
        try:
            namespace[name]()
            outcomes[name] = "ok"
        except Exception:
            outcomes[name] = traceback.format_exc()
    print(json.dumps(outcomes))


def refused(sentence: str, action: Callable[[], object]) -> str:
    """Check that the action raises the error that holds `sentence`; what it says in full."""
    try:
        action()
    except HvdtoolsError as error:
        assert sentence in str(error), str(error)
        return str(error)
    raise AssertionError(f"nothing was refused; expected: {sentence}")


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


@contextmanager
def heard() -> Iterator[list[str]]:
    """What this rank's hvdtools logs meanwhile."""
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("hvdtools")
    logger.addHandler(handler)
    try:
        yield lines
    finally:
        logger.removeHandler(handler)
