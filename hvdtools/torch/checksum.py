"""Compare tensors over ranks by checksums of their bits."""

from __future__ import annotations

from collections.abc import Sequence

import horovod.torch as hvd
import torch
from torch import Tensor

from hvdtools.core.agreement import Differences, find_differences
from hvdtools.torch.waiting import join_default_stream, wait_for

_WORD_BYTES = 8


def checksum(tensor: Tensor) -> Tensor:
    """The sum of the tensor's bits as 64-bit words, modulo 2**64: shape (), int64, on its device.

    Integer addition does not depend on the order, so not on the device. It takes
    one reading of the tensor. One changed bit changes it; swapped words do not.
    """
    flat = _in_memory_order(tensor.detach())
    whole = flat.numel() * flat.itemsize // _WORD_BYTES * (_WORD_BYTES // flat.itemsize)
    if flat.storage_offset() * flat.itemsize % _WORD_BYTES:
        flat = flat.clone()
    total = flat[:whole].view(torch.int64).sum()
    rest = flat[whole:]
    return total + rest.view(torch.uint8).sum(dtype=torch.int64) if rest.numel() else total


def _in_memory_order(tensor: Tensor) -> Tensor:
    """All elements as one dimension, without a copy if they are dense, in any order."""
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor)
    expected = torch.empty_like(tensor, device="meta", memory_format=torch.preserve_format).stride()
    if tensor.stride() == expected:
        return tensor.as_strided((tensor.numel(),), (1,))
    return tensor.reshape(-1)


def checksums(tensors: Sequence[Tensor]) -> Tensor:
    """The checksum of each: shape (len(tensors),), int64, on the device of the first."""
    device = tensors[0].device
    return torch.stack([checksum(tensor).to(device) for tensor in tensors])


def combined_checksum(tensors: Sequence[Tensor]) -> Tensor:
    """One checksum of several tensors of one dtype and device: shape (), int64.

    Concatenated first, because on a GPU the number of kernels decides the time.
    """
    return checksum(torch.cat([_in_memory_order(tensor.detach()) for tensor in tensors]))


class Comparison:
    """An asynchronous comparison of numbers over ranks.

    Args:
        numbers: Shape (n,), int64; the same length on every rank.
        label: Names the all-reduce; the same on every rank.
        free: How many of them, at the end, may differ: `agreements` has what came of them.
    """

    def __init__(self, numbers: Tensor, label: str, free: int = 0) -> None:
        self._numbers = numbers
        self._label = label
        self._bound = len(numbers) - free
        self.agreements: list[bool] = []  # of the free numbers, once all ranks have taken part
        # Largest and smallest in one message: min(x) = ~max(~x), also at the ends of the range.
        self._handle = hvd.allreduce_async(
            torch.cat([numbers, ~numbers]), op=hvd.Max, name=f"{label}.compare"
        )

    def arrived(self) -> bool:
        """Whether every rank has taken part, so that `conclude` will not wait."""
        done: bool = hvd.poll(self._handle)
        return done

    def found_difference(self) -> bool:
        """Wait for all ranks: whether any of them differ in a number that must agree."""
        result = wait_for(self._handle, on_gpu=self._numbers.is_cuda)
        if result.is_cuda:
            join_default_stream()
        largest, inverted_smallest = result.chunk(2)
        agree = (largest == ~inverted_smallest).tolist()
        self.agreements = agree[self._bound :]
        return not all(agree[: self._bound])

    def conclude(self) -> Differences:
        """Wait for all ranks: {place: the ranks that differ there from most}; {} if all agree.

        Without a majority, the ranks that differ from rank 0. The result is the
        same on every rank.
        """
        if not self.found_difference():
            return {}
        mine = self._numbers[None, : self._bound].cpu()
        everyone = hvd.allgather(mine, name=f"{self._label}.differences")
        return find_differences(everyone.tolist())
