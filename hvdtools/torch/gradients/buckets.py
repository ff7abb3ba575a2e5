"""Gradient buckets: neighbouring gradients laid into one flat buffer.

Horovod moves a single large tensor without its fusion copy and averages it in
place, so a bucket goes over the wire as it lies in memory. Each gradient is a
view into the buffer with its parameter's own strides; a channels-last weight
has a channels-last gradient, and the fused optimizers see what they expect.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.gradients.control_flags import PASSES, SLOTS, WEIGHT, WEIGHTED

# Horovod has no bfloat16, and a float16 sum over many ranks can overflow where
# the average would not: both travel in float32.
_REDUCED_IN = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}
# Every gradient starts on a cache line, as a tensor of its own would.
_ALIGN_BYTES = 64
_TINY = 1e-30


def reduced_dtype(name: str, parameter: Tensor) -> torch.dtype:
    """The dtype in which a parameter's gradient is averaged.

    Raises:
        HvdtoolsError: Horovod cannot average this dtype.
    """
    try:
        return _REDUCED_IN[parameter.dtype]
    except KeyError:
        known = ", ".join(str(dtype).removeprefix("torch.") for dtype in _REDUCED_IN)
        raise HvdtoolsError(
            f"Parameter {name} is {str(parameter.dtype).removeprefix('torch.')}, which Horovod "
            f"cannot average: convert it to one of {known}, or freeze it with "
            "requires_grad_(False)."
        ) from None


class Bucket:
    """Some parameters whose gradients share one flat buffer.

    The buffer's tail holds one "used" flag for each parameter, above zero after
    averaging if some rank used it, and the control flags of `control_flags.py`.

    Attributes:
        parameters: In buffer order.
        flat: The buffer, one-dimensional, contiguous, on the parameters' device.
        views: For each parameter the part of `flat` with its shape and strides.
        gradients: The part of `flat` with all views (and the gaps between them).
        used: The flags, a view of shape (len(parameters),).
        flags: A view of shape (SLOTS,).
    """

    def __init__(self, parameters: Sequence[Parameter], dtype: torch.dtype) -> None:
        self.parameters = list(parameters)
        self.dtype = dtype
        self.in_place = self.parameters[0].dtype == dtype
        self._idle_references, self._grad_references = _calibrate_references()
        self.allocate()

    def allocate(self) -> None:
        """Take a new buffer; the old one lives on in whoever still looks at it."""
        align = _ALIGN_BYTES // self.dtype.itemsize
        sizes = [-(-parameter.numel() // align) * align for parameter in self.parameters]
        count = len(self.parameters)
        total = sum(sizes)
        self.flat = torch.zeros(
            total + count + SLOTS, dtype=self.dtype, device=self.parameters[0].device
        )
        offsets = [sum(sizes[:index]) for index in range(count)]
        self.views = [
            self.flat.as_strided(parameter.shape, _dense_strides(parameter), offset)
            for parameter, offset in zip(self.parameters, offsets, strict=True)
        ]
        self.gradients = self.flat[:total]
        self.used = self.flat[total : total + count]
        self.flags = self.flat[total + count :]
        self._storage_users = _storage_users(self.flat)

    def watched_from_outside(self) -> bool:
        """True if somebody beside us and `.grad` still holds a part of the buffer.

        A script may keep last step's gradients ("grads = [p.grad for p in …]").
        In plain PyTorch they keep their values; writing into the same buffer
        again would change them behind its back.
        """
        if _storage_users(self.flat) > self._storage_users:
            return True
        counts = _references(self.views)
        if max(counts) <= self._idle_references:
            return False
        return any(
            count > (self._grad_references if parameter.grad is view else self._idle_references)
            for count, parameter, view in zip(counts, self.parameters, self.views, strict=True)
        )

    def fill(self, scale: float = 1.0) -> list[int]:
        """Move this rank's gradients into the buffer, zeros where it has none.

        A gradient that is already a view of the buffer stays where it is.
        Where dtypes agree `.grad` becomes the view.

        Args:
            scale: Each gradient is multiplied by it.

        Returns:
            The places in `parameters` that have no gradient on this rank.
        """
        if self.watched_from_outside():
            self.allocate()
        unused: list[int] = []
        sources: list[Tensor] = []
        targets: list[Tensor] = []
        for place, (parameter, view) in enumerate(zip(self.parameters, self.views, strict=True)):
            gradient = parameter.grad
            if gradient is None:
                unused.append(place)
            elif gradient is not view:
                sources.append(gradient)
                targets.append(view)
                if self.in_place:
                    parameter.grad = view
        if sources:
            torch._foreach_copy_(targets, sources)
        self._raise_flags(unused)
        if scale != 1:
            self.gradients.mul_(scale)
        return unused

    def set_flags(self, flags: Mapping[int, float]) -> None:
        """Put values in their places among the control flags, 0 in all others."""
        tail = [flags.get(place, 0.0) for place in range(SLOTS)]
        self.flags.copy_(torch.tensor(tail, dtype=self.dtype, device="cpu"), non_blocking=True)

    def divide_by_weight(self) -> None:
        """After averaging: make weighted sums means, ``sum(w * g) / mean weight of a pass``.

        Where no rank gave a weight nothing changes.
        """
        # Where all weights are 0 so are the sums; the reader of the flags raises.
        factor = self.flags[PASSES] / self.flags[WEIGHT].clamp_min(_TINY)
        self.gradients.mul_(torch.where(self.flags[WEIGHTED] > 0, factor, 1.0))

    def clear_gradients(self) -> None:
        """Zero every `.grad` that is a view of the buffer."""
        for parameter, view in zip(self.parameters, self.views, strict=True):
            if parameter.grad is view:
                view.zero_()

    def _raise_flags(self, unused: list[int]) -> None:
        self.used.fill_(1)
        self.flags.zero_()
        if unused:
            torch._foreach_zero_([self.views[place] for place in unused])
            for place in unused:
                self.used[place] = 0

    def give_back(self, unused: list[int]) -> None:
        """After averaging: make every `.grad` the average, or None if no rank used it."""
        if not self.in_place:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            averaged = [
                view
                for p, view in zip(self.parameters, self.views, strict=True)
                if p.grad is not None
            ]
            if gradients:
                torch._foreach_copy_(gradients, averaged)
        if not unused:
            return
        # Only here are flags read: on a GPU this waits for the device.
        used_somewhere = self.used.tolist()
        for place in unused:
            if used_somewhere[place] > 0:
                parameter, view = self.parameters[place], self.views[place]
                parameter.grad = view if self.in_place else view.to(parameter.dtype)


def plan_buckets(
    named: Sequence[tuple[str, Parameter]], cap_bytes: float
) -> list[list[tuple[str, Parameter]]]:
    """Group parameters into buckets, last layers first, as backward reaches them.

    Neighbours of the same dtype and device share a bucket until it holds
    `cap_bytes`; a parameter larger than that has one of its own.

    Args:
        named: (name, parameter) in the model's order.
        cap_bytes: The size, in bytes on the wire, at which a bucket is closed.
    """
    open_buckets: dict[tuple[torch.dtype, torch.device], list[tuple[str, Parameter]]] = {}
    held_bytes: dict[tuple[torch.dtype, torch.device], int] = {}
    closed: list[list[tuple[str, Parameter]]] = []
    for name, parameter in reversed(named):
        kind = (parameter.dtype, parameter.device)
        size_bytes = parameter.numel() * reduced_dtype(name, parameter).itemsize
        if kind in open_buckets and held_bytes[kind] + size_bytes > cap_bytes:
            closed.append(open_buckets.pop(kind))
        bucket = open_buckets.setdefault(kind, [])
        held_bytes[kind] = size_bytes + (held_bytes[kind] if bucket else 0)
        bucket.append((name, parameter))
    return closed + list(open_buckets.values())


def _dense_strides(parameter: Tensor) -> tuple[int, ...]:
    """The parameter's strides, or contiguous ones where it has gaps or overlaps."""
    dense = torch.empty_like(parameter, device="meta", memory_format=torch.preserve_format)
    return tuple(dense.stride())


def _storage_users(flat: Tensor) -> int:
    users: int = torch._C._storage_Use_Count(flat.untyped_storage()._cdata)
    return users


def _references(views: list[Tensor]) -> list[int]:
    """Python's reference count of each view, counted the same way every time."""
    return [sys.getrefcount(view) for view in views]


def _calibrate_references() -> tuple[int, int]:
    """The reference counts of a listed view: at rest, and while it is some `.grad`.

    Measured, since how C++ keeps a tensor's Python object alive differs between
    PyTorch versions.
    """
    parameter = Parameter(torch.zeros(1))
    views = [torch.zeros(1)]
    at_rest = _references(views)[0]
    parameter.grad = views[0]
    return at_rest, _references(views)[0]
