"""Batch norm over ranks: the same as torch's own layer on the joined batch."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import hvdtools.torch as hvt
from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.norm.layers import may_differ, sync_batchnorm


class OwnForward(nn.BatchNorm1d):
    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return super().forward(input) + 1


def patched() -> nn.Module:
    layer = nn.BatchNorm1d(3)
    layer.forward = lambda input: input  # type: ignore[method-assign]
    return layer


@pytest.mark.parametrize(
    ("layer", "sentence"),
    [
        (OwnForward(3), "layer b.n is a OwnForward with a custom forward"),
        (patched(), "layer b.n is a BatchNorm1d with a custom forward"),
        (nn.LazyBatchNorm1d(), "layer b.n is a LazyBatchNorm1d that does not know its size yet"),
        (nn.SyncBatchNorm(3, process_group=object()), "over a process group of torch.distributed"),
        (torch.jit.script(nn.BatchNorm1d(3)), "layer b.n is scripted"),
    ],
)
def test_layers_that_cannot_be_synchronized(layer: nn.Module, sentence: str) -> None:
    hvt.init()
    model = nn.ModuleDict({"a": nn.BatchNorm1d(3), "b": nn.ModuleDict({"n": layer})})
    with pytest.raises(HvdtoolsError, match=sentence):
        sync_batchnorm(model, "check")
    assert type(model["a"]) is nn.BatchNorm1d


def test_a_lazy_layer_that_saw_a_batch() -> None:
    hvt.init()
    model = nn.Sequential(nn.LazyBatchNorm1d())
    model(torch.randn(4, 3))
    assert sync_batchnorm(model, "check") == 0
    assert may_differ(model) == {"0.running_mean", "0.running_var", "0.num_batches_tracked"}
