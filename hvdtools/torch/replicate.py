"""Make every rank's model and optimizer equal to rank 0's, in place.

Broadcasting moves bytes and adds nothing up, so every tensor travels as uint8:
bfloat16, bool and integer buffers need no special case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer
from torch.utils._pytree import tree_map

from hvdtools.core.errors import HvdtoolsError

_CHUNK_BYTES = 64 * 2**20


def broadcast_tensors(tensors: Iterable[Tensor], root: int, label: str) -> None:
    """Overwrite `tensors` on every rank with rank `root`'s, in place.

    Args:
        tensors: The same shapes, dtypes and order on every rank; any strides.
        root: The rank whose values are kept.
        label: Names the transfer; the same on every rank.
    """
    chunk: list[Tensor] = []
    size_bytes = 0
    number = 0
    for tensor in tensors:
        if tensor.numel() == 0:
            continue
        if chunk and (size_bytes >= _CHUNK_BYTES or tensor.device != chunk[0].device):
            _broadcast_chunk(chunk, root, f"{label}.{number}")
            chunk, size_bytes, number = [], 0, number + 1
        chunk.append(tensor.detach())
        size_bytes += tensor.numel() * tensor.element_size()
    if chunk:
        _broadcast_chunk(chunk, root, f"{label}.{number}")


def _broadcast_chunk(tensors: Sequence[Tensor], root: int, name: str) -> None:
    # A zero-dimensional tensor cannot be viewed as bytes: reshape makes it one-dimensional.
    rows = [t.contiguous().reshape(-1).view(torch.uint8) for t in tensors]
    flat = torch.cat(rows) if len(rows) > 1 else rows[0].clone()
    hvd.broadcast_(flat, root_rank=root, name=name)
    if hvd.rank() == root:
        return
    parts = flat.split([row.numel() for row in rows])
    for tensor, part in zip(tensors, parts, strict=True):
        # clone() aligns the bytes for the tensor's dtype.
        tensor.copy_(part.clone().view(tensor.dtype).reshape(tensor.shape))


def require_same_model(model: Module, label: str) -> None:
    """Raise on every rank if the ranks' models differ in names, shapes or dtypes.

    Raises:
        HvdtoolsError: Names the first rank that differs from rank 0, and where.
    """
    mine = [
        (name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in _named_tensors(model)
    ]
    digest = hashlib.sha256(repr(mine).encode()).hexdigest()
    digests = hvd.allgather_object(digest, name=f"{label}.digest")
    if len(set(digests)) == 1:
        return
    other = next(rank for rank, value in enumerate(digests) if value != digests[0])
    theirs = hvd.allgather_object(mine, name=f"{label}.layout")
    pairs = zip(theirs[0], theirs[other], strict=False)
    difference = next(
        (f"{ours} on rank 0, {its} on rank {other}" for ours, its in pairs if ours != its),
        f"{len(theirs[0])} tensors on rank 0, {len(theirs[other])} on rank {other}",
    )
    raise HvdtoolsError(
        f"The ranks built different models ({difference}): build the same model on every rank "
        "before prepare()."
    )


def _named_tensors(model: Module) -> list[tuple[str, Tensor]]:
    """Parameters and buffers, those left out of state_dict() too, each once."""
    return [*model.named_parameters(), *model.named_buffers()]


def replicate_module(model: Module, root: int, label: str) -> None:
    """Give every rank rank `root`'s parameters and buffers, in place."""
    broadcast_tensors((tensor for _, tensor in _named_tensors(model)), root, f"{label}.model")


@dataclass(frozen=True)
class _Shape:
    """Stands for a tensor while the state's structure travels."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    device_type: str


def replicate_optimizer(optimizer: Optimizer, label: str) -> None:
    """Give every rank rank 0's optimizer state and hyperparameters, in place.

    A state that rank 0 has and another rank lacks (loaded from a checkpoint on
    rank 0 alone) is made there with rank 0's dtypes; `load_state_dict` would
    cast it to the parameters' dtype.
    """
    order = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state = [optimizer.state.get(parameter, {}) for parameter in order]
    settings = [
        {name: value for name, value in group.items() if name != "params"}
        for group in optimizer.param_groups
    ]
    mine = [state, settings]
    outline = hvd.broadcast_object(tree_map(_outline, mine), 0, name=f"{label}.optimizer")
    if hvd.rank() != 0:
        mine = tree_map(lambda leaf: _empty(leaf, order), outline)
    tensors: list[Tensor] = []
    tree_map(lambda leaf: tensors.append(leaf) if isinstance(leaf, Tensor) else None, mine)
    broadcast_tensors(tensors, 0, f"{label}.optimizer.tensors")
    if hvd.rank() != 0:
        _adopt(optimizer, order, mine)


def _outline(leaf: Any) -> Any:
    if isinstance(leaf, Tensor):
        return _Shape(tuple(leaf.shape), leaf.dtype, leaf.device.type)
    return leaf


def _empty(leaf: Any, order: Sequence[Tensor]) -> Any:
    if not isinstance(leaf, _Shape):
        return leaf
    # Each rank has its own GPU: the kind of device travels, not its number.
    device = next((p.device for p in order if p.device.type == leaf.device_type), leaf.device_type)
    return torch.empty(leaf.shape, dtype=leaf.dtype, device=device)


def _adopt(optimizer: Optimizer, order: Sequence[Tensor], mine: list[Any]) -> None:
    state, settings = mine
    if len(settings) != len(optimizer.param_groups) or len(state) != len(order):
        raise HvdtoolsError(
            f"Rank 0's optimizer has {len(settings)} parameter groups with {len(state)} parameters "
            f"and this rank's has {len(optimizer.param_groups)} with {len(order)}: build the same "
            "optimizer on every rank before prepare()."
        )
    for parameter, values in zip(order, state, strict=True):
        if values:
            optimizer.state[parameter] = values
        else:
            optimizer.state.pop(parameter, None)
    for group, values in zip(optimizer.param_groups, settings, strict=True):
        group.update(values)
