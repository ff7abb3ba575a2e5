"""Which backward pass are we in? The little of autograd's engine that the reducer needs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

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

    The engine then already made the caller's streams wait for every gradient.
    An exception in that pass skips the action.
    """
    torch.autograd.Variable._execution_engine.queue_callback(action)


class OutputHook:
    """A forward hook that calls `on_backward` when a gradient reaches the model's output.

    That moment lies in the outermost backward pass, before any segment of
    re-entrant checkpointing starts one of its own.

    A copy or a pickle of the model (an average of weights, a checkpoint of the
    whole module) gets a hook that does nothing.
    """

    def __init__(self, on_backward: Callable[[], None] | None = None) -> None:
        self._on_backward = on_backward

    def __call__(self, module: torch.nn.Module, inputs: Any, output: Any) -> None:
        # Inside torch.compile the hook would become part of the graph, and
        # compiled code holds no re-entrant checkpoint of its own.
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
