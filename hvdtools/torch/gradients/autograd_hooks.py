"""Hooks into autograd: when gradients arrive, and in which backward pass.

`hook_parameter` and `OutputHook` report the gradients of parameters and of the output;
the other functions identify the running graph task and queue work for its end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any, Protocol
from weakref import ref

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.utils._pytree import tree_leaves

from hvdtools.core.errors import HvdtoolsError

# A Python autograd.Function runs its backward below this frame. Re-entrant
# checkpointing calls backward() from there, so a hook that finds the frame on
# its stack is inside a nested pass, on CPU and GPU threads alike.
_NODE_BACKWARD = torch.autograd.function.BackwardCFunction.apply.__code__


def current_task() -> int:
    """The number of the running graph task, unique in the process; -1 outside backward."""
    task: int = torch._C._current_graph_task_id()
    return task


def is_nested() -> bool:
    """True inside a backward pass that another backward pass started."""
    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code is _NODE_BACKWARD:
            return True
    return False


def at_end_of_backward(action: Callable[[], None]) -> None:
    """Run `action` once the running graph task has computed all its gradients.

    By then the engine has made the caller's streams wait for every gradient.
    An exception in that pass skips the action.
    """
    torch.autograd.Variable._execution_engine.queue_callback(action)


class OutputHook:
    """A forward hook that calls `on_backward` when a gradient reaches the model's output.

    That is in the outermost backward pass, before any segment of re-entrant
    checkpointing starts a nested one.

    A copy or a pickle of the model (an average of weights, a checkpoint of the
    whole module) gets a hook that does nothing.
    """

    def __init__(self, on_backward: Callable[[], None] | None = None) -> None:
        self._on_backward = on_backward

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        # Inside torch.compile the hook would become part of the graph, and
        # compiled code contains no re-entrant checkpoint.
        if self._on_backward is None or torch.compiler.is_compiling():
            return
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor) and leaf.requires_grad and not leaf.is_leaf:
                leaf.register_hook(self._on_gradient)

    def _on_gradient(self, gradient: Tensor) -> None:
        if self._on_backward is not None:
            self._on_backward()

    def __deepcopy__(self, memo: dict[int, Any]) -> OutputHook:
        return OutputHook()

    def __reduce__(self) -> tuple[Any, ...]:
        return OutputHook, ()


class GradientListener(Protocol):
    """Gets the events of `hook_parameter`."""

    def on_parameter_gradient(self, index: int) -> None:
        """A gradient was added to parameter `index`."""


def hook_parameter(parameter: Parameter, listener: GradientListener, index: int) -> None:
    """Call `listener.on_parameter_gradient(index)` after each change of the parameter's `.grad`.

    The hook keeps neither the listener nor, through it, the model alive. A
    frozen parameter is hooked too, so that thawing it later needs nothing.
    """
    frozen = not parameter.requires_grad
    if frozen and not (parameter.is_floating_point() or parameter.is_complex()):
        return  # integer weights (quantized layers) can never have a gradient
    weak = ref(listener)

    def hook(parameter: Tensor) -> None:
        alive = weak()
        if alive is not None:
            alive.on_parameter_gradient(index)

    parameter.requires_grad_(True)
    parameter.register_post_accumulate_grad_hook(hook)
    parameter.requires_grad_(not frozen)


def require_reducible(name: str, parameter: Parameter) -> None:
    """Raise if the parameter's gradient cannot be averaged in a flat buffer.

    Raises:
        HvdtoolsError: It is sparse, or has a graph.
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
