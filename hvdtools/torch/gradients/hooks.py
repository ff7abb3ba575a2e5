"""Hooks on parameters, and the gradients that no hook can average."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Parameter

from hvdtools.core.errors import HvdtoolsError


class Listener(Protocol):
    """Who wants to know of gradients."""

    def on_parameter_gradient(self, index: int) -> None:
        """A gradient was added to parameter `index`."""


def listen(parameter: Parameter, listener: Listener, index: int) -> None:
    """Tell `listener` whenever a gradient was added to the parameter's `.grad`.

    The hook keeps neither the listener nor, through it, the model alive. A
    frozen parameter is hooked too, so that thawing it later needs nothing.
    """
    frozen = not parameter.requires_grad
    if frozen and not (parameter.is_floating_point() or parameter.is_complex()):
        return  # integer weights (quantised layers) can never have a gradient
    parameter.requires_grad_(True)
    parameter.register_post_accumulate_grad_hook(_weak_hook(ref(listener), index))
    parameter.requires_grad_(not frozen)


def _weak_hook(listener: ref[Listener], index: int) -> Callable[[Tensor], None]:
    def hook(parameter: Tensor) -> None:
        alive = listener()
        if alive is not None:
            alive.on_parameter_gradient(index)

    return hook


def refuse_unreducible(name: str, parameter: Parameter) -> None:
    """Raise if the parameter's gradient cannot be averaged in a flat buffer.

    Raises:
        HvdtoolsError: It is sparse, or has a graph of its own.
    """
    gradient = parameter.grad
    if gradient is None:
        return
    if gradient.layout != torch.strided:
        raise HvdtoolsError(
            f"The gradient of {name} is sparse, and the average over ranks is dense: make its "
            "embedding with sparse=False."
        )
    if gradient.requires_grad:
        raise HvdtoolsError(
            f"backward(create_graph=True) reached {name}, whose average over ranks has no graph: "
            "take second derivatives with torch.autograd.grad, which runs no hooks."
        )
