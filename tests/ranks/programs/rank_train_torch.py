"""Run in every rank: benchmarks/torch/train_torch.py with small models and sleeps planted in it.

Usage: rank_train_torch.py PLANTS OPTION..., PLANTS in JSON: {engine: [rank or null, seconds]}
makes every forward pass of that engine sleep so long, on one rank or on all. The
engine "slow" is "no_comm" by another name. Prints how long it slept each time and, where
COUNT_BUCKETS is set, how many buckets Horovod sent.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any

import torch

from hvdtools.bench.programs.torch import engines as torch_engines
from hvdtools.bench.programs.torch import models as torch_models
from hvdtools.bench.programs.torch import train_torch

WIDTH = 1024  # of the vectors that torch_data makes
slept_s: list[float] = []  # every planted sleep, in order


class Slow(torch_engines.NoComm):
    name = "slow"


def tiny() -> torch.nn.Module:
    layers = (torch.nn.Linear(WIDTH, 8), torch.nn.Tanh(), torch.nn.Linear(8, WIDTH))
    return torch.nn.Sequential(*layers)


PLANTED = {
    name: torch_models.Model(tiny, "vectors", False, optimizer)
    for name, optimizer in (("tiny", torch_models.sgd), ("tiny-adamw", torch_models.adamw))
}


def plant_sleep(engine: type[Any], rank: int | None, seconds: float) -> None:
    prepare = engine.prepare

    def prepare_then_plant(self: Any, model: torch.nn.Module, optimizer: Any) -> Any:
        if rank in (None, self.rank):
            model.register_forward_pre_hook(lambda *_: sleep(seconds))
        return prepare(self, model, optimizer)

    engine.prepare = prepare_then_plant


def sleep(seconds: float) -> None:
    """On a busy machine it may take longer: how long it did is remembered."""
    begun_s = time.perf_counter()
    time.sleep(seconds)
    slept_s.append(time.perf_counter() - begun_s)


def count_buckets() -> list[str]:
    """The names of the buckets that Horovod gets from now on."""
    import horovod.torch as hvd

    sent: list[str] = []
    allreduce = hvd.allreduce_async_

    def counted(*arguments: Any, name: str, **options: Any) -> Any:
        sent.append(name)
        return allreduce(*arguments, name=name, **options)

    hvd.allreduce_async_ = counted
    return sent


def main() -> None:
    torch_engines.ENGINES["slow"] = Slow
    train_torch.ENGINES = (*train_torch.ENGINES, "slow")
    torch_models.MODELS.update(PLANTED)
    for engine, (rank, seconds) in json.loads(sys.argv[1]).items():
        plant_sleep(torch_engines.ENGINES[engine], rank, seconds)
    sent = count_buckets() if "COUNT_BUCKETS" in os.environ else []
    train_torch.main(sys.argv[2:])
    print("slept:", json.dumps(slept_s), flush=True)
    if sent:
        print("buckets sent:", sum(".bucket" in name for name in sent), flush=True)
    train_torch.leave()


if __name__ == "__main__":
    main()
