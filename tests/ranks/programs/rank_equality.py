"""Run in every rank: train cases of equality_cases.py through hvdtools, save what they return.

Usage: rank_equality.py [side]

A check's tensors go to CHECK_FOLDER/<case id>.rank<r>.pt. As a script it runs them all; with "side"
it trains on a stream of its own, as a careful user may.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path

import torch
from checking import DEVICE
from equality_cases import CASES
from worlds import ThisRank

import hvdtools.torch as hvt

TOPOLOGY = hvt.init()


def save_trained(case_id: str) -> None:
    with torch.device(DEVICE):
        tensors = CASES[case_id].train(ThisRank())
    folder = Path(os.environ["CHECK_FOLDER"])
    torch.save(tensors, folder / f"{case_id}.rank{TOPOLOGY.rank}.pt")


CHECKS: dict[str, Callable[[], None]] = {
    case_id: partial(save_trained, case_id) for case_id in CASES
}

if __name__ == "__main__":
    on_side = "side" in sys.argv[1:]
    with torch.cuda.stream(torch.cuda.Stream()) if on_side else nullcontext():
        for case_id, check in CHECKS.items():
            print(case_id, flush=True)  # that a traceback below is of
            check()
