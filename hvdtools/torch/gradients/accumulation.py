"""What has added up in `.grad` since the last all-reduce, and what it weighs.

With weights, pass k of a round adds ``w_k * g_k``. PyTorch adds plain
gradients, so `.grad` holds ``sum(w_j * g_j) / scale`` with the latest weight as
the scale, and is scaled anew where a pass has another weight than the one
before: equal weights, as of full batches, cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

# Gradients put away while a pass of weight 0 runs.
SavedGradients = dict[Parameter, Tensor]


class GradientAccumulation:
    """The backward passes whose gradients wait for the next all-reduce.

    Args:
        named: (name, parameter) of every parameter of the model.

    Attributes:
        passes: How many there were.
        counted: Those among them that count towards `accumulate`.
        weight: The sum of their weights.
        scale: What `.grad` is yet to be multiplied by; None without weights.
        unreduced: The parameters, by index, that they gave a gradient.
    """

    def __init__(self, named: Sequence[tuple[str, Parameter]]) -> None:
        self._named = named
        self.clear()

    def clear(self) -> None:
        """Start anew: all was averaged or thrown away."""
        self.passes = 0
        self.counted = 0
        self.weight = 0.0
        self.scale: float | None = None
        self.unreduced: set[int] = set()
        # PyTorch's count of in-place changes of their gradients.
        self._versions: dict[int, int] = {}

    def forget_discarded(self, first: int | None) -> None:
        """Start anew if zero_grad() dropped what earlier passes left.

        Args:
            first: A parameter that already has a gradient of the new pass.
        """
        earlier = self.unreduced - {first}
        if earlier and all(self._dropped(index) for index in earlier):
            self.clear()

    def _dropped(self, index: int) -> bool:
        """Whether zero_grad() took the gradient away, or made it zeros."""
        gradient = self._named[index][1].grad
        if gradient is None:
            return True
        return gradient._version != self._versions.get(index) and not gradient.any()

    def _remember(self) -> None:
        self._versions = {i: g._version for i, g in self._gradients() if i in self.unreduced}

    def problem(self, weight: float | None, first: int | None, *, sends: bool) -> str | None:
        """Why a pass of this weight cannot add to what is there; None if it can.

        Args as in `begin`.
        """
        if self.passes and (weight is None) != (self.scale is None):
            return (
                "Some of the backward passes that add up have a weight and some have none: use "
                "hvt.weight() in all of them or in none."
            )
        if weight is None:
            return None
        if self.passes and weight != self.scale and first in self.unreduced:
            return (
                "To add up passes of different weights, call the model that was given to "
                f"prepare(), and not compiled: the gradient of {self._named[first][0]} came "
                "before any was seen to reach the model's output. With equal weights (drop_last) "
                "neither matters."
            )
        return None if self.passes or sends else self._not_cleared(first)

    def _not_cleared(self, first: int | None) -> str | None:
        """Gradients of an earlier round would be scaled as if they were of this one."""
        for index, gradient in self._gradients():
            if index != first and gradient.any():
                return (
                    "Weighted passes would add up to the gradients of an earlier step "
                    f"({self._named[index][0]} first): call zero_grad() after each step."
                )
        return None

    @torch.no_grad()
    def begin(self, weight: float | None, first: int | None) -> SavedGradients | None:
        """Get `.grad` ready for a pass of this weight.

        Args:
            weight: None if none was given.
            first: A parameter that already has its gradient of this pass.

        Returns:
            For weight 0, the gradients to put back when the pass is over: its
            own count for nothing, be they NaN. None for any other weight.
        """
        if not self.passes:
            self.scale = weight
        if weight == 0:
            return self._put_aside(first)
        if weight is not None and self.scale is not None and self.scale != weight:
            earlier = [g for index, g in self._gradients() if index != first]
            if earlier:
                torch._foreach_mul_(earlier, self.scale / weight)
            self.scale = weight
            self._remember()
        return None

    def _put_aside(self, first: int | None) -> SavedGradients:
        saved = {self._named[index][1]: g for index, g in self._gradients() if index != first}
        for _, parameter in self._named:
            parameter.grad = None
        return saved

    def _gradients(self) -> Iterable[tuple[int, Tensor]]:
        for index, (_, parameter) in enumerate(self._named):
            if parameter.grad is not None:
                yield index, parameter.grad

    def add(
        self, seen: set[int], weight: float | None, saved: SavedGradients | None, *, counts: bool
    ) -> None:
        """Note the end of a pass that sends nothing.

        A pass of weight 0 leaves zeros where there was nothing before, so that
        zero_grad() can be told from it.
        """
        self.passes += 1
        self.counted += counts
        self.weight += weight or 0.0
        self.unreduced |= seen
        if saved is not None:
            for parameter in (self._named[index][1] for index in seen):
                saved.setdefault(parameter, torch.zeros_like(parameter))
            put_back(saved, (parameter for _, parameter in self._named))
        self._remember()

    def unreduced_now(self) -> list[int]:
        """The parameters, by index, whose `.grad` is this rank's own and not the average."""
        return sorted(i for i in self.unreduced if self._named[i][1].grad is not None)


def put_back(saved: SavedGradients, parameters: Iterable[Parameter]) -> None:
    """Undo what `GradientAccumulation.begin` set aside, over whatever the pass left."""
    for parameter in parameters:
        parameter.grad = saved.get(parameter)
