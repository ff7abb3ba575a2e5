"""Bare MPI through mpi4py: what a message costs without a framework around it."""

from __future__ import annotations

import ctypes
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.topology import LaunchEnvironment

try:
    from mpi4py import MPI
except (ImportError, RuntimeError) as error:
    raise HvdtoolsError(
        f"--engine mpi4py needs mpi4py and the MPI that it finds: pip install mpi4py ({error})."
    ) from None

# What MPI calls these types, where it has them.
NAMES = {torch.float32: "FLOAT", torch.float16: "FLOAT16_T", torch.bfloat16: "BFLOAT16_T"}


class RefusedError(HvdtoolsError):
    """This MPI cannot sum such a message."""


class Mpi4py:
    """MPI_Allreduce in place; a group is an MPI_Iallreduce for each tensor and a wait for all."""

    name = "mpi4py"
    transport = "mpi"
    refusals: tuple[type[Exception], ...] = (RefusedError, MPI.Exception)

    def __init__(self, place: LaunchEnvironment, device: torch.device) -> None:
        self.device = device
        self.rank, self.size = MPI.COMM_WORLD.Get_rank(), MPI.COMM_WORLD.Get_size()
        if self.size != place.size:
            raise HvdtoolsError(
                f"MPI sees {self.size} rank(s) where {place.launcher} started {place.size}: for "
                "--engine mpi4py start them with `hvdtools launch --launcher mpirun`."
            )
        if "horovod" in sys.modules and MPI.Query_thread() < MPI.THREAD_MULTIPLE:
            raise HvdtoolsError(
                "MPI was started for a single thread, and Horovod's calls it too: unset "
                "HOROVOD_MPI_THREADS_DISABLE and MPI4PY_RC_THREAD_LEVEL."
            )

    def operation(self, tensors: Sequence[Tensor]) -> Callable[[], object]:
        kind = self._kind(tensors[0].dtype)
        if self.device.type == "cuda" and not reads_gpus():
            raise RefusedError("this MPI does not say that it can read the memory of GPUs")
        # By bytes: NumPy has no bfloat16. On a GPU mpi4py asks the tensor where it lies.
        flats = [tensor.view(torch.uint8) for tensor in tensors]
        buffers = [flat if flat.is_cuda else flat.numpy() for flat in flats]
        specs = [[b, t.numel(), kind] for b, t in zip(buffers, tensors, strict=True)]
        world = MPI.COMM_WORLD
        if len(specs) == 1:
            return lambda: world.Allreduce(MPI.IN_PLACE, specs[0], op=MPI.SUM)

        def grouped() -> None:
            sent = [world.Iallreduce(MPI.IN_PLACE, spec, op=MPI.SUM) for spec in specs]
            MPI.Request.Waitall(sent)

        return grouped

    def _kind(self, dtype: torch.dtype) -> MPI.Datatype:
        name = NAMES[dtype]
        kind: MPI.Datatype = getattr(MPI, name, MPI.DATATYPE_NULL)
        if kind == MPI.DATATYPE_NULL:
            said = MPI.Get_library_version().split(",")[0].strip()
            raise RefusedError(f"{said} has no type for {dtype} (MPI_{name})".replace("torch.", ""))
        return kind

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        return MPI.COMM_WORLD.allgather(list(values))


def reads_gpus() -> bool:
    """Whether the MPI of this process says that it reads GPU memory.

    It has to be asked: one that does not would end the process at the first address.
    Open MPI and MPICH have MPIX_Query_cuda_support for that, mpi4py has no name for it.
    """
    maps = Path("/proc/self/maps")
    loaded = re.findall(r"\S*/libmpi(?:ch)?\.so\S*", maps.read_text()) if maps.exists() else []
    asked = [getattr(ctypes.CDLL(path), "MPIX_Query_cuda_support", None) for path in set(loaded)]
    return any(ask is not None and ask() == 1 for ask in asked)
