"""Collectives on the values of a script: average, broadcast and gather."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from typing import Any, TypeVar

import horovod.torch as hvd
import torch
from horovod.common.exceptions import HorovodInternalError
from torch import Tensor
from torch.nn import Module

from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.replicate import broadcast_tensors, replicate_module
from hvdtools.torch.session import require_started
from hvdtools.torch.waiting import waiting

ValueT = TypeVar("ValueT", Tensor, float, Mapping[str, Any])


def average(value: ValueT, count: float | None = 1) -> ValueT:
    """The mean of `value` over ranks, each rank weighted by `count`.

    ``sum(count_r * value_r) / sum(count_r)``, added up in float64. With `count`
    the number of samples of a rank's mean this is the mean over all
    samples, however unevenly they are spread. A rank with count 0 adds nothing,
    whatever its value (a NaN from an empty part too).

    Args:
        value: A tensor (any shape, the same on every rank), a number, or a dict
            of both (the same keys on every rank). It is not changed.
        count: This rank's weight, 0 or more.

    Returns:
        The same type and shape as `value`; a tensor keeps its dtype if that is
        a floating one and becomes float64 otherwise, without a graph.

    Raises:
        HvdtoolsError: Unknown type, different keys or shapes on different
            ranks, a negative count, or no rank has any count.
    """
    require_started("average()")
    if count is None:
        raise HvdtoolsError(
            "average() got count=None, which is batch_weight() outside of a loop over "
            'shard(uneven="weighted"): average within the loop, or count the samples there.'
        )
    if not count >= 0:
        raise HvdtoolsError(f"average() got count={count!r}: it must be 0 or more.")
    items = dict(value) if isinstance(value, Mapping) else {"value": value}
    parts = {name: _numbers(name, item) for name, item in items.items()}
    means = _mean_over_ranks(parts, float(count))
    shaped = {name: _like(items[name], mean) for name, mean in means.items()}
    result: Any = shaped if isinstance(value, Mapping) else shaped["value"]
    return result  # type: ignore[no-any-return]


def _numbers(name: str, item: Any) -> Tensor:
    if isinstance(item, Tensor) and not item.is_complex():
        return item.detach().to("cpu", torch.float64).reshape(-1)
    if isinstance(item, int | float):
        return torch.tensor([float(item)], dtype=torch.float64, device="cpu")
    raise HvdtoolsError(
        f"average() cannot average {name!r}, a {type(item).__name__}: give tensors, numbers, or "
        "a dict of them."
    )


@waiting("average()")
def _mean_over_ranks(parts: dict[str, Tensor], count: float) -> dict[str, Tensor]:
    layout = repr([(name, part.numel()) for name, part in parts.items()])
    # Every rank adds the same number h and its square: with h equal everywhere
    # N * sum(h^2) = (sum h)^2, and otherwise it is larger. All exact in float64.
    check = float(zlib.crc32(layout.encode()) % 2**20)
    header = torch.tensor([check, check * check, count], dtype=torch.float64, device="cpu")
    body = [part * count if count else torch.zeros_like(part) for part in parts.values()]
    try:
        total = hvd.allreduce(torch.cat([header, *body]), op=hvd.Sum, name="hvdtools.average")
    except HorovodInternalError as error:
        if "Mismatched" in str(error):
            raise HvdtoolsError(_DIFFERENT) from None
        raise
    if hvd.size() * total[1] != total[0] * total[0]:
        raise HvdtoolsError(_DIFFERENT)
    if total[2] == 0:
        raise HvdtoolsError("average() got count 0 on every rank: there is nothing to average.")
    pieces = (total[3:] / total[2]).split([part.numel() for part in parts.values()])
    return dict(zip(parts, pieces, strict=True))


_DIFFERENT = (
    "average() got different names or shapes on different ranks: call it with the same ones on all."
)


def _like(item: Any, mean: Tensor) -> Any:
    if not isinstance(item, Tensor):
        return mean.item()
    dtype = item.dtype if item.is_floating_point() else torch.float64
    return mean.reshape(item.shape).to(item.device, dtype)


AnyT = TypeVar("AnyT")


@waiting("broadcast()")
def broadcast(value: AnyT, root: int = 0) -> AnyT:
    """Give every rank what rank `root` holds.

    Args:
        value: A tensor or a module (its parameters and buffers) on every rank,
            overwritten in place and returned: the same shapes and dtypes on
            every rank. Or, on `root`, any object that can be pickled, where the
            other ranks' values are ignored (None will do).
        root: The rank whose value is kept, 0 to size - 1.

    Raises:
        HvdtoolsError: `root` is not a rank of the job.
    """
    topology = require_started("broadcast()")
    if not 0 <= root < topology.size:
        raise HvdtoolsError(
            f"broadcast() got root={root!r}: it must be one of the ranks 0 to {topology.size - 1}."
        )
    # Where the ranks hold different kinds of things, root's travels as an object.
    kinds = set(hvd.allgather_object(_kind(value), name="hvdtools.broadcast.kind"))
    if kinds == {"module"} and isinstance(value, Module):
        replicate_module(value, root, "hvdtools.broadcast")
        return value
    if kinds == {"tensor"} and isinstance(value, Tensor):
        with torch.no_grad():
            broadcast_tensors([value], root, "hvdtools.broadcast")
        return value
    result: AnyT = hvd.broadcast_object(value, root, name="hvdtools.broadcast.object")
    return result


def _kind(value: object) -> str:
    if isinstance(value, Module):
        return "module"
    return "tensor" if isinstance(value, Tensor) else "object"


@waiting("gather()")
def gather(tensor: Tensor) -> list[Tensor]:
    """Every rank's `tensor`, on every rank, in rank order.

    The bytes travel through the host, so any dtype does (bool and bfloat16
    too), and each rank may bring another shape: states of metrics, predictions
    for an uneven number of samples, nothing at all.

    Args:
        tensor: Any shape and dtype, dense; it is not changed.

    Returns:
        One tensor for each rank, with that rank's shape and dtype, on this
        rank's device and without a graph. They are copies, this rank's own too.

    Raises:
        HvdtoolsError: `tensor` is not a dense tensor.
    """
    require_started("gather()")
    if not isinstance(tensor, Tensor) or tensor.layout != torch.strided:
        found = f"{tensor.layout} tensor" if isinstance(tensor, Tensor) else type(tensor).__name__
        raise HvdtoolsError(f"gather() got a {found}: give it a dense torch.Tensor.")
    mine = (
        tensor.detach()
        .resolve_conj()
        .resolve_neg()
        .cpu()
        .contiguous()
        .reshape(-1)
        .view(torch.uint8)
    )
    kinds = hvd.allgather_object((tensor.shape, tensor.dtype), name="hvdtools.gather.kinds")
    sizes = [shape.numel() * dtype.itemsize for shape, dtype in kinds]
    everyone = hvd.allgather(mine, name="hvdtools.gather") if any(sizes) else mine
    return [
        # clone() aligns the bytes for the tensor's dtype.
        part.clone().view(dtype).reshape(shape).to(tensor.device)
        for part, (shape, dtype) in zip(everyone.split(sizes), kinds, strict=True)
    ]
