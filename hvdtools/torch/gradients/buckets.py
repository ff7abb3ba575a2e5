"""Gradient buckets: the gradients of neighboring parameters in one flat buffer.

Horovod averages a single large tensor in place, without a copy into its fusion
buffer, so a bucket is sent as it lies in memory. Each gradient is a view of the
buffer with its parameter's strides: a channels-last weight has a channels-last
gradient, and fused optimizers see what they expect.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.gradients.control_flags import PASSES, SLOTS, WEIGHT, WEIGHTED
from hvdtools.torch.gradients.transport import GradientTransport

# Horovod has no bfloat16, and a float16 sum over many ranks can overflow where
# the average would not: buckets of both hold float32.
_REDUCED_IN = {
    torch.float64: torch.float64,
    torch.float32: torch.float32,
    torch.float16: torch.float32,
    torch.bfloat16: torch.float32,
}
# Every gradient starts on a cache line, as a separate tensor would.
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
    """Some parameters whose gradients share one flat buffer, and their flags.

    The flags are one "used" flag for each parameter, above 0 after averaging if
    some rank used it, and the control flags of `control_flags.py`. They are the
    tail of the payload if the transport carries them, else a separate tensor.

    Args:
        parameters: Of one dtype and device.
        dtype: Of the payload, as `reduced_dtype` gives it.
        transport: Decides where the flags are.

    Attributes:
        parameters: In buffer order.
        payload: What the transport averages: shape (n,), contiguous, on the
            parameters' device. The gradients, and the flags where it carries them.
        gradients: The part of `payload` with all views and the gaps between them.
        views: For each parameter the part of `payload` with its shape and strides.
        separate_flags: Shape (len(parameters) + SLOTS,), float64: all flags, where
            the payload does not carry them; else None.
        used: A view of the first flags, shape (len(parameters),).
        flags: A view of the control flags, shape (SLOTS,).
    """

    def __init__(
        self, parameters: Sequence[Parameter], dtype: torch.dtype, transport: GradientTransport
    ) -> None:
        self.parameters = list(parameters)
        self.dtype = dtype
        self.in_place = self.parameters[0].dtype == dtype
        self._carries_flags = transport.carries_flags(dtype)
        self._idle_references, self._grad_references = _calibrate_references()
        self.allocate()

    def allocate(self) -> None:
        """Take new buffers of zeros; the old ones stay with their other users."""
        align = _ALIGN_BYTES // self.dtype.itemsize
        sizes = [-(-parameter.numel() // align) * align for parameter in self.parameters]
        count, total, device = len(self.parameters), sum(sizes), self.parameters[0].device
        tail = count + SLOTS if self._carries_flags else 0
        self.payload = torch.zeros(total + tail, dtype=self.dtype, device=device)
        offsets = [sum(sizes[:index]) for index in range(count)]
        self.views = [
            self.payload.as_strided(parameter.shape, _dense_strides(parameter), offset)
            for parameter, offset in zip(self.parameters, offsets, strict=True)
        ]
        self.gradients = self.payload[:total]
        self.separate_flags: Tensor | None = None
        if not self._carries_flags:
            self.separate_flags = torch.zeros(count + SLOTS, dtype=torch.float64, device=device)
        all_flags = self.payload[total:] if self._carries_flags else self.separate_flags
        assert all_flags is not None
        self.used, self.flags = all_flags[:count], all_flags[count:]
        self._storage_users = _storage_users(self.payload)

    def watched_from_outside(self) -> bool:
        """True if the script holds a part of the buffer other than through `.grad`.

        A script may keep last step's gradients ("grads = [p.grad for p in …]").
        In plain PyTorch they keep their values; reusing the buffer would
        overwrite them.
        """
        if _storage_users(self.payload) > self._storage_users:
            return True
        counts = _references(self.views)
        if max(counts) <= self._idle_references:
            return False
        return any(
            count > (self._grad_references if parameter.grad is view else self._idle_references)
            for count, parameter, view in zip(counts, self.parameters, self.views, strict=True)
        )

    def fill(self, scale: float = 1.0) -> list[int]:
        """Move this rank's gradients into the buffer, zeros where it has none; reset the flags.

        A gradient that already is a view of the buffer is not copied. Where
        the dtypes agree `.grad` becomes the view.

        Args:
            scale: Each gradient is multiplied by it.

        Returns:
            The indices in `parameters` of those without a gradient on this rank.
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
        self._mark_used(unused)
        if scale != 1:
            self.gradients.mul_(scale)
        return unused

    def set_flags(self, flags: Mapping[int, float]) -> None:
        """Set the control flags: {slot: value}, 0 in all other slots."""
        values = [flags.get(slot, 0.0) for slot in range(SLOTS)]
        on_host = torch.tensor(values, dtype=self.flags.dtype, device="cpu")
        self.flags.copy_(on_host, non_blocking=True)

    def divide_by_weight(self) -> None:
        """After averaging: turn weighted sums into means, ``sum(w * g) / mean weight of a pass``.

        Changes nothing where no rank gave a weight.
        """
        # If all weights are 0, the sums are 0 too, and reading the flags raises.
        factor = self.flags[PASSES] / self.flags[WEIGHT].clamp_min(_TINY)
        self.gradients.mul_(torch.where(self.flags[WEIGHTED] > 0, factor, 1.0))

    def clear_gradients(self) -> None:
        """Zero every `.grad` that is a view of the buffer."""
        for parameter, view in zip(self.parameters, self.views, strict=True):
            if parameter.grad is view:
                view.zero_()

    def _mark_used(self, unused: list[int]) -> None:
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
        # Read only if needed: on a GPU this waits for the device.
        used_somewhere = self.used.tolist()
        for place in unused:
            if used_somewhere[place] > 0:
                parameter, view = self.parameters[place], self.views[place]
                parameter.grad = view if self.in_place else view.to(parameter.dtype)


def plan_buckets(
    named: Sequence[tuple[str, Parameter]], cap_bytes: float
) -> list[list[tuple[str, Parameter]]]:
    """Group parameters into buckets, last layers first, as backward reaches them.

    Neighbors of the same dtype and device share a bucket until it holds
    `cap_bytes`; a larger parameter gets a bucket to itself.

    Args:
        named: (name, parameter) in the model's order.
        cap_bytes: The size of the payload, in bytes, at which a bucket is closed.

    Returns:
        For each bucket its (name, parameter) pairs, in the order of sending.

    Raises:
        HvdtoolsError: Horovod cannot average the dtype of a parameter.
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


class BucketLayout:
    """The buckets of a model's trainable parameters, updated as parameters freeze and thaw.

    Args:
        named: (name, parameter) of every parameter, each once, in model order.
        bucket_bytes: The size at which a bucket is closed.
        transport: What the buckets are sent by.

    Attributes:
        buckets: In the order in which they are sent.
    """

    def __init__(
        self,
        named: Sequence[tuple[str, Parameter]],
        bucket_bytes: float,
        transport: GradientTransport,
    ) -> None:
        self.buckets: list[Bucket] = []
        self._named = named
        self._bucket_bytes = bucket_bytes
        self._transport = transport
        self._trainable: tuple[bool, ...] = ()
        self._bucket_of: dict[int, int] = {}  # parameter index -> bucket index

    def refresh(self) -> None:
        """Make the buckets, or remake them if parameters were frozen or thawed since."""
        trainable = tuple(parameter.requires_grad for _, parameter in self._named)
        if trainable == self._trainable:
            return
        thawed = [named for named, wanted in zip(self._named, trainable, strict=True) if wanted]
        groups = plan_buckets(thawed, self._bucket_bytes)
        self.buckets = [
            Bucket([p for _, p in group], reduced_dtype(*group[0]), self._transport)
            for group in groups
        ]
        bucket_of = {id(p): b for b, bucket in enumerate(self.buckets) for p in bucket.parameters}
        self._bucket_of = {
            index: bucket_of[id(parameter)]
            for index, (_, parameter) in enumerate(self._named)
            if id(parameter) in bucket_of
        }
        self._trainable = trainable

    def bucket_of(self, index: int) -> int:
        """The bucket, by index, of parameter `index`.

        Raises:
            HvdtoolsError: It has none, because it was frozen when the pass began.
        """
        if index not in self._bucket_of:
            raise HvdtoolsError(
                f"Parameter {self._named[index][0]} was frozen between forward and backward: "
                "change requires_grad before the forward pass."
            )
        return self._bucket_of[index]

    def ends_of(self, bucket: int) -> list[str]:
        """The names of the first and the last parameter of a bucket, once if it has only one."""
        members = [index for index, each in self._bucket_of.items() if each == bucket]
        return [self._named[index][0] for index in dict.fromkeys((members[-1], members[0]))]

    def holds_gradient(self, index: int, sent: int) -> bool:
        """Whether the `.grad` of parameter `index` is a view of one of the first `sent` buckets."""
        bucket = self._bucket_of.get(index, sent)
        gradient = self._named[index][1].grad
        return bucket < sent and any(gradient is view for view in self.buckets[bucket].views)


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
