"""Batch-norm layers that share their statistics over ranks, and those that do not."""

from __future__ import annotations

from typing import Any

import horovod.torch as hvd
import torch
from torch import Tensor
from torch._compile import _disable_dynamo
from torch.nn import Module
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase
from torch.nn.modules.lazy import LazyModuleMixin

from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.norm.arithmetic import Moments, global_moments, normalize


class _Synchronized(_BatchNorm):
    """Mixed into a batch-norm layer: in training it normalizes over all ranks' batches.

    In evaluation, and in a job of one rank, it is the user's own layer.
    """

    _plain: type[_BatchNorm]
    _hvdtools_name: str

    def forward(self, input: Tensor) -> Tensor:
        # As torch.nn.SyncBatchNorm: an evaluation may run on some ranks only.
        return self._over_ranks(input) if self.training else super().forward(input)

    # torch.compile cannot trace Horovod: here it ends one graph and begins the next.
    @_disable_dynamo
    def _over_ranks(self, input: Tensor) -> Tensor:
        if not hvd.is_initialized() or hvd.size() == 1:
            return super().forward(input)
        self._check_input_dim(input)  # type: ignore[no-untyped-call]
        if input.size(1) != self.num_features:
            raise ValueError(f"expected {self.num_features} channels (got {input.size(1)})")
        moments = global_moments(input, f"{self._hvdtools_name}.forward")
        if self.track_running_stats:
            self._track(moments)
        return normalize(
            input, self.weight, self.bias, moments, self.eps, f"{self._hvdtools_name}.backward"
        )

    @torch.no_grad()
    def _track(self, moments: Moments) -> None:
        momentum = self.momentum
        if self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
            if momentum is None:  # the plain mean over all batches so far
                momentum = 1.0 / float(self.num_batches_tracked)
        unbiased = moments.variance * (moments.count / (moments.count - 1))
        for running, new in ((self.running_mean, moments.mean), (self.running_var, unbiased)):
            if running is not None:
                running.lerp_(new.to(running.dtype), momentum or 0.0)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class is made on the fly: a copy or a pickle names the user's own.
        reduced: Any = super().__reduce_ex__(protocol)
        return (_remake, (self._plain,), *reduced[2:])


_made: dict[type, type[_BatchNorm]] = {}


def _synchronized(plain: type[_BatchNorm]) -> type[_BatchNorm]:
    """The subclass of `plain` that synchronizes, always the same one."""
    if plain not in _made:
        name = f"Sync{plain.__name__.removeprefix('Sync')}"
        _made[plain] = type(name, (_Synchronized, plain), {"_plain": plain})
    return _made[plain]


def _remake(plain: type[_BatchNorm]) -> _BatchNorm:
    kind = _synchronized(plain)
    return kind.__new__(kind)


def sync_batchnorm(model: Module, label: str) -> int:
    """Let every batch-norm layer of `model` take its statistics over all ranks' batches.

    In training, N ranks then normalize as one process on the joined batch does,
    however unevenly the batch is split, and keep equal running statistics. The
    layers stay the same objects with the same parameters, buffers and
    `state_dict` keys, and instances of their class (of a subclass of it). A
    second call changes nothing more, and a job of one rank keeps its layers.

    Costs one small all-reduce a layer in forward and one in backward, and all
    ranks wait for each other there: an exception on one rank only stalls the
    others, and a layer that only some ranks run does too. Weights
    (`hvdtools.torch.weight`) are read in forward and backward: a rank with
    weight 0 must have it in both. Second derivatives are refused.

    Args:
        model: Its `_BatchNorm` layers: BatchNorm1d, 2d, 3d, torch.nn.SyncBatchNorm
            and subclasses that keep their forward.
        label: Names the all-reduces; the same on every rank.

    Returns:
        The number of layers changed.

    Raises:
        HvdtoolsError: A layer has a custom forward, is lazy and without a
            size yet, is scripted, or synchronizes over a group of ranks. No
            layer was changed then.
    """
    layers: list[_BatchNorm] = []
    for name, module in model.named_modules():
        _refuse(name or "the model", module)
        if isinstance(module, _BatchNorm):
            layers.append(module)
    if hvd.size() == 1:
        return 0
    changed = 0
    for number, layer in enumerate(layers):
        if not isinstance(layer, _Synchronized):
            layer._hvdtools_name = f"{label}.batchnorm{number}"  # type: ignore[assignment]
            layer.__class__ = _synchronized(type(layer))
            changed += 1
    return changed


def _refuse(name: str, module: Module) -> None:
    kind = type(module).__name__
    if isinstance(module, torch.jit.ScriptModule):
        if "BatchNorm" in str(getattr(module, "original_name", "")):
            raise HvdtoolsError(
                f"Batch-norm layer {name} is scripted, and Horovod cannot run inside TorchScript: "
                "leave sync_batchnorm=False, or script a fresh model with the trained state_dict."
            )
        return
    if not isinstance(module, _BatchNorm) or isinstance(module, _Synchronized):
        return
    if isinstance(module, LazyModuleMixin):
        raise HvdtoolsError(
            f"Batch-norm layer {name} is a {kind} that does not know its size yet: send one batch "
            "through the model before."
        )
    own = "forward" in vars(module) or type(module).forward not in _KNOWN_FORWARDS
    if own:
        raise HvdtoolsError(
            f"Batch-norm layer {name} is a {kind} with a custom forward, so its statistics "
            "cannot be shared over ranks: use torch's BatchNorm layer there, or leave "
            "sync_batchnorm=False."
        )
    if getattr(module, "process_group", None) is not None:
        raise HvdtoolsError(
            f"Batch-norm layer {name} is a {kind} over a process group of torch.distributed, which "
            "does not run here: make it without process_group, for all ranks."
        )


_KNOWN_FORWARDS = (_BatchNorm.forward, torch.nn.SyncBatchNorm.forward)


def may_differ(model: Module) -> set[str]:
    """The names of buffers in which ranks may rightly hold different values.

    Running statistics (mean, variance and their count) of batch- and
    instance-norm layers that each rank updates from its own batches. The names
    are those of `model.named_buffers()`.
    """
    return {
        f"{name}.{buffer}" if name else buffer
        for name, module in model.named_modules()
        if isinstance(module, _NormBase) and not isinstance(module, _Synchronized)
        for buffer, _ in module.named_buffers(recurse=False)
        if buffer in ("running_mean", "running_var", "num_batches_tracked")
    }
