"""Gradients that have added up in `.grad` since the last all-reduce, and their weight.

With weights, pass k of a round adds ``w_k * g_k``. PyTorch adds plain
gradients, so `.grad` holds ``sum(w_j * g_j) / scale`` with the latest weight as
the scale, and is rescaled if a pass has a different weight than the one
before: equal weights, as of full batches, cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from torch.nn import Parameter

# Gradients that are restored after a pass of weight 0.
SavedGradients = dict[Parameter, Tensor]


class GradientAccumulation:
    """The backward passes whose gradients wait for the next all-reduce.

    Args:
        named: (name, parameter) of every parameter of the model.

    Attributes:
        passes: How many there were.
        counted: How many of them count towards `accumulate`.
        weight: The sum of their weights.
        scale: The factor that `.grad` has yet to be multiplied by; None without weights.
        unreduced: The parameters, by index, that got a gradient.
    """

    def __init__(self, named: Sequence[tuple[str, Parameter]]) -> None:
        self._named = named
        self.clear()

    def clear(self) -> None:
        """Start again: everything was averaged or dropped."""
        self.passes = 0
        self.counted = 0
        self.weight = 0.0
        self.scale: float | None = None
        self.unreduced: set[int] = set()
        # PyTorch's count of in-place changes of their gradients.
        self._versions: dict[int, int] = {}

    def discard(self, seen: set[int]) -> None:
        """Start again after a pass that failed; the gradients of `seen` must not be used."""
        self.clear()
        self.unreduced = set(seen)

    def forget_discarded(self, first: int | None) -> None:
        """Start again if zero_grad() dropped what earlier passes left.

        Args:
            first: A parameter that already has a gradient of the new pass.
        """
        earlier = self.unreduced - {first}
        if earlier and all(self._dropped(index) for index in earlier):
            self.clear()

    def _dropped(self, index: int) -> bool:
        """Whether zero_grad() set the gradient to None or to zeros."""
        gradient = self._named[index][1].grad
        if gradient is None:
            return True
        return gradient._version != self._versions.get(index) and not gradient.any()

    def _remember(self) -> None:
        self._versions = {i: g._version for i, g in self._gradients() if i in self.unreduced}

    def problem(self, weight: float | None, first: int | None, *, sends: bool) -> str | None:
        """Why a pass of this weight cannot be added; None if it can.

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
        """Why the gradients of an earlier round are in the way: they would be scaled, too."""
        for index, gradient in self._gradients():
            if index != first and gradient.any():
                return (
                    "Weighted passes would add up to the gradients of an earlier step "
                    f"({self._named[index][0]} first): call zero_grad() after each step."
                )
        return None

    @torch.no_grad()
    def begin(self, weight: float | None, first: int | None) -> SavedGradients | None:
        """Prepare `.grad` for a pass of this weight.

        Args:
            weight: None if none was given.
            first: A parameter that already has its gradient of this pass.

        Returns:
            For weight 0, the gradients to restore when the pass is over: its
            own do not count, even if they are NaN. None for any other weight.
        """
        if not self.passes:
            self.scale = weight
        if weight == 0:
            return self._save_gradients(first)
        if weight is not None and self.scale is not None and self.scale != weight:
            earlier = [g for index, g in self._gradients() if index != first]
            if earlier:
                torch._foreach_mul_(earlier, self.scale / weight)
            self.scale = weight
            self._remember()
        return None

    def _save_gradients(self, first: int | None) -> SavedGradients:
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
        """Record the end of a pass that accumulates.

        A pass of weight 0 leaves zeros where there was nothing before: None
        would look like zero_grad().
        """
        self.passes += 1
        self.counted += counts
        self.weight += weight or 0.0
        self.unreduced |= seen
        if saved is not None:
            for parameter in (self._named[index][1] for index in seen):
                saved.setdefault(parameter, torch.zeros_like(parameter))
            restore(saved, (parameter for _, parameter in self._named))
        self._remember()

    def unreduced_now(self) -> list[int]:
        """The parameters, by index, whose `.grad` is this rank's own and not the average."""
        return sorted(i for i in self.unreduced if self._named[i][1].grad is not None)


def restore(saved: SavedGradients, parameters: Iterable[Parameter]) -> None:
    """Restore what `GradientAccumulation.begin` saved; what the pass left is dropped."""
    for parameter in parameters:
        parameter.grad = saved.get(parameter)
