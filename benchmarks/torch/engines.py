"""What keeps the replicas of train_torch.py equal: a class for each way, and one that does nothing.

`Hvdtools` is what a script of yours needs to become a Horovod job: the calls
`hvt.init()`, `hvt.prepare(model, optimizer)` and `hvt.shard(loader)`.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from hvdtools.bench.programs.common.horovod_moves import transport
from hvdtools.bench.programs.torch.data import Loader, dealt
from hvdtools.bench.programs.torch.engine import Engine, Prepared
from hvdtools.bench.programs.torch.process_group import (
    barrier,
    gather_by_horovod,
    gather_by_torch,
    rank_and_size,
    this_device,
)
from hvdtools.bench.suite.engines import HOROVODS_FUSION_BYTES


class Hvdtools:
    """Horovod through hvdtools' adapter."""

    name = "hvdtools"
    takes_channels_last = True

    def __init__(self) -> None:
        # Imported here, so that --engine ddp runs where no Horovod is built.
        import horovod.torch as hvd

        import hvdtools.torch as hvt

        topology = hvt.init()
        self._hvt = hvt
        self.rank, self.size = topology.rank, topology.size
        self.device = this_device()
        self.transport = transport(hvd, "torch", on_gpu=self.device.type == "cuda")
        self.gather = gather_by_horovod

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Prepared:
        return self._hvt.prepare(model, optimizer)

    def shard(self, loader: Loader, seed: int) -> Loader:
        return self._hvt.shard(loader, seed=seed)

    def allreduces_per_step(self, model: nn.Module) -> int | None:
        """Its buckets. One rank alone has nobody to send them to."""
        from hvdtools.torch.gradients.buckets import plan_buckets

        if self.size == 1:
            return 0
        bucket_mib = (self._hvt.prepare.__kwdefaults__ or {})["bucket_mib"]
        trained = [(name, each) for name, each in model.named_parameters() if each.requires_grad]
        return len(plan_buckets(trained, bucket_mib * 2**20))


class Horovod:
    """Plain Horovod, as its documentation has it.

    It dies on weights that lie channels-last, so it trains contiguous ones and
    its figures are for those. `init()` is hvdtools', which joins the job under
    any launcher and sets what helps Horovod on the CPU.
    """

    name = "horovod"
    takes_channels_last = False

    def __init__(self) -> None:
        import horovod.torch as hvd

        import hvdtools.torch as hvt

        topology = hvt.init()
        self._hvd = hvd
        self.rank, self.size = topology.rank, topology.size
        self.device = this_device()
        self.transport = transport(hvd, "torch", on_gpu=self.device.type == "cuda")
        self.gather = gather_by_horovod

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Prepared:
        hvd = self._hvd
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)
        # A new optimizer has no state, and Horovod would make it by a step with zero gradients:
        # weight decay would then change the weights before the first real step.
        if optimizer.state:
            hvd.broadcast_optimizer_state(optimizer, root_rank=0)
        named = model.named_parameters()
        return model, hvd.DistributedOptimizer(optimizer, named_parameters=named)

    def shard(self, loader: Loader, seed: int) -> Loader:
        return dealt(loader, self.rank, self.size, seed)

    def allreduces_per_step(self, model: nn.Module) -> int | None:
        """Its gradients, each by itself; Horovod may fuse some. None go anywhere from one rank."""
        trained = sum(each.requires_grad for each in model.parameters())
        return trained if self.size > 1 else 0


class Ddp:
    """PyTorch's DistributedDataParallel, tuned as its documentation advises."""

    name = "ddp"
    takes_channels_last = True

    def __init__(self) -> None:
        self.rank, self.size = rank_and_size()
        self.device = this_device()
        self.transport = "nccl" if self.device.type == "cuda" else "gloo"
        barrier()
        self.gather = gather_by_torch

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Prepared:
        wrapped = DistributedDataParallel(model, gradient_as_bucket_view=True, static_graph=True)
        return wrapped, optimizer

    def shard(self, loader: Loader, seed: int) -> Loader:
        return dealt(loader, self.rank, self.size, seed)

    def allreduces_per_step(self, model: nn.Module) -> int | None:
        """Its buckets, which it makes anew after its first steps; a single rank sends them too."""
        assert isinstance(model, DistributedDataParallel)
        said = model._get_ddp_logging_data()
        return int(said["num_buckets_reduced"]) if said.get("has_rebuilt_buckets") else None


class NoComm:
    """No communication within the steps: every rank trains for itself, the ideal of all others."""

    name = "no_comm"
    transport = "none"
    takes_channels_last = True

    def __init__(self) -> None:
        self.rank, self.size = rank_and_size()
        self.device = this_device()
        self.gather = gather_by_torch

    def prepare(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Prepared:
        return model, optimizer

    def shard(self, loader: Loader, seed: int) -> Loader:
        return dealt(loader, self.rank, self.size, seed)

    def allreduces_per_step(self, model: nn.Module) -> int | None:
        return 0


# Those of Horovod first: its `init()` is to find the process as the launcher left it.
ENGINES: dict[str, type[Engine]] = {
    "hvdtools": Hvdtools,
    "horovod": Horovod,
    "ddp": Ddp,
    "no_comm": NoComm,
}


def start(names: Sequence[str]) -> list[Engine]:
    """The engines of this job, in the order of their names."""
    if "horovod" in names:
        # hvdtools sends whole buckets and turns fusion off. Plain Horovod counts on it, and both
        # live in one Horovod: then it is as plain Horovod has it, at hvdtools' expense.
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", str(HOROVODS_FUSION_BYTES))
    made = {name: ENGINES[name]() for name in ENGINES if name in names}
    return [made[name] for name in names]


def spokesman(engines: Sequence[Engine]) -> Engine:
    """The one engine whose `gather` all use: of Horovod if there is one, which needs no ports."""
    return min(engines, key=lambda engine: list(ENGINES).index(engine.name))
