"""assert_in_sync(): compare a model over ranks on request."""

from __future__ import annotations

import horovod.torch as hvd
from torch import Tensor
from torch.nn import Module
from torch.optim import Optimizer

from hvdtools.core.agreement import describe_differences, divergence_error
from hvdtools.core.errors import HvdtoolsError
from hvdtools.torch.checksum import Comparison, checksums
from hvdtools.torch.norm.layers import may_differ
from hvdtools.torch.session import require_started
from hvdtools.torch.waiting import waiting


def assert_in_sync(model: Module, optimizer: Optimizer | None = None) -> None:
    """Compare weights, buffers and optimizer state over ranks, bit by bit.

    Call it on every rank. Running statistics of batch-norm layers that are not
    synchronized are left out: they differ between ranks.

    Args:
        model: Prepared or not.
        optimizer: Its state tensors are compared too.

    Raises:
        HvdtoolsError: They differ: on every rank, naming rank and tensor.
    """
    require_started("assert_in_sync()")
    apart = may_differ(model)
    named: dict[str, Tensor] = {f"the weight {n}": p for n, p in model.named_parameters()}
    named |= {f"the buffer {n}": b for n, b in model.named_buffers() if n not in apart}
    if optimizer is not None:
        named |= _state_of(optimizer, {id(p): name for name, p in model.named_parameters()})
    if not named:
        return
    with waiting("assert_in_sync()"):
        layouts = hvd.allgather_object(list(named), name="hvdtools.in_sync.layout")
        for rank, layout in enumerate(layouts):
            if layout != layouts[0]:
                odd = sorted(set(layout) ^ set(layouts[0]))
                raise HvdtoolsError(
                    f"Replicas diverged: rank {rank} and rank 0 do not hold the same "
                    f"tensors ({', '.join(odd[:3])})."
                )
        differences = Comparison(checksums(list(named.values())), "hvdtools.in_sync").conclude()
    if differences:
        raise divergence_error(describe_differences(differences, list(named)))


def _state_of(optimizer: Optimizer, names: dict[int, str]) -> dict[str, Tensor]:
    return {
        f"the optimizer's {key} of {names.get(id(parameter), 'an unknown parameter')}": value
        for group in optimizer.param_groups
        for parameter in group["params"]
        for key, value in sorted(optimizer.state.get(parameter, {}).items())
        if isinstance(value, Tensor)
    }
