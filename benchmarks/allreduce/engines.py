"""Who sums a message over all ranks, each by its own call, in place."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor
from torch.distributed import ReduceOp
from torch.distributed.distributed_c10d import _coalescing_manager

from hvdtools.bench.programs.common.horovod_moves import transport
from hvdtools.bench.suite.engines import HOROVODS_FUSION_BYTES
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.installed import require
from hvdtools.core.topology import LaunchEnvironment, read_launch_environment

Operation = Callable[[], object]


class Engine(Protocol):
    """Sums messages. `transport` names what carries them.

    Attributes:
        refusals: What it raises when a message is not to its taste, before it sends any.
    """

    name: str
    transport: str
    rank: int
    size: int
    device: torch.device
    refusals: tuple[type[Exception], ...]

    def operation(self, tensors: Sequence[Tensor]) -> Operation:
        """What sums these tensors when called, several as one group; done when the device is."""

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """(k) on each rank -> row r has rank r's, on every rank."""


class Horovod:
    """Horovod, joined as hvdtools' adapter joins it."""

    name = "horovod"
    refusals: tuple[type[Exception], ...] = (ValueError,)

    def __init__(self, on_gpu: bool) -> None:
        # Horovod's own default. hvdtools.torch would turn fusion off, since its buckets are fused
        # already; a group of tensors here is not.
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", str(HOROVODS_FUSION_BYTES))
        require("torch")
        # Imported here, so that other engines run where no Horovod is built.
        import horovod.torch as hvd

        import hvdtools.torch as hvt

        topology = hvt.init()
        self.rank, self.size = topology.rank, topology.size
        self.device = _device(on_gpu)
        self._hvd = hvd
        self.transport = transport(hvd, "torch", on_gpu=on_gpu)

    def operation(self, tensors: Sequence[Tensor]) -> Operation:
        # Under a name of its own: ranks agree on a name that they know by one bit.
        name = f"message.{tensors[0].dtype}.{len(tensors)}.{tensors[0].numel()}"
        if len(tensors) == 1:
            return lambda: self._hvd.allreduce_(tensors[0], op=self._hvd.Sum, name=name)
        group = list(tensors)
        return lambda: self._hvd.grouped_allreduce_(group, op=self._hvd.Sum, name=name)

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        mine = torch.tensor([list(values)], dtype=torch.float64)
        rows: list[list[float]] = self._hvd.allgather(mine, name="gather").tolist()
        return rows


class Torch:
    """torch.distributed: Gloo on CPUs, NCCL on GPUs."""

    name = "torch"
    refusals: tuple[type[Exception], ...] = (RuntimeError, TypeError, ValueError)

    def __init__(self, on_gpu: bool) -> None:
        place = read_launch_environment(os.environ)
        self.rank, self.size = place.rank, place.size
        _choose_gpu(place, on_gpu)
        self.device = _device(on_gpu)
        self.transport = "nccl" if on_gpu else "gloo"
        alone = torch.distributed.HashStore() if self.size == 1 else None  # type: ignore[attr-defined]
        if alone is None and "MASTER_PORT" not in os.environ:
            raise HvdtoolsError(
                "--engine torch meets at MASTER_ADDR:MASTER_PORT: set both, the same on every rank."
            )
        torch.distributed.init_process_group(
            self.transport,
            rank=self.rank,
            world_size=self.size,
            store=alone,
            device_id=self.device if on_gpu else None,
        )

    def operation(self, tensors: Sequence[Tensor]) -> Operation:
        if len(tensors) == 1:
            return lambda: torch.distributed.all_reduce(tensors[0], op=ReduceOp.SUM)
        group = list(tensors)

        def grouped() -> None:
            # What torch.distributed offers for a group: the backend gets all tensors at once.
            with _coalescing_manager():
                for tensor in group:
                    torch.distributed.all_reduce(tensor, op=ReduceOp.SUM)

        return grouped

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        mine = torch.tensor(list(values), dtype=torch.float64, device=self.device)
        rows = [torch.empty_like(mine) for _ in range(self.size)]
        torch.distributed.all_gather(rows, mine)
        return [row.tolist() for row in rows]


def _choose_gpu(place: LaunchEnvironment, on_gpu: bool) -> None:
    if on_gpu:
        # A launcher may show each rank only its own GPU; then that is the one.
        torch.cuda.set_device(place.local_rank % torch.cuda.device_count())


def _device(on_gpu: bool) -> torch.device:
    return torch.device("cuda", torch.cuda.current_device()) if on_gpu else torch.device("cpu")


def _mpi4py(on_gpu: bool) -> Engine:
    # Imported here: importing it joins an MPI job.
    from hvdtools.bench.programs.allreduce.mpi import Mpi4py

    place = read_launch_environment(os.environ)
    _choose_gpu(place, on_gpu)
    return Mpi4py(place, _device(on_gpu))


# In the order in which they are made: the first of a job also gathers its times.
ENGINES: dict[str, Callable[[bool], Engine]] = {
    "horovod": Horovod,
    "torch": Torch,
    "mpi4py": _mpi4py,
}
