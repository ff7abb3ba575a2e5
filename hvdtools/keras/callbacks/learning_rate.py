"""The learning rate grows with the number of ranks, and warms up."""

from __future__ import annotations

import math
from typing import Any

import horovod.tensorflow as hvd
import keras

from hvdtools.core import lr_scaling
from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.log import logger
from hvdtools.keras.averaging import averaging_of, innermost
from hvdtools.keras.replicated import optimizers_of


def require_warmup(steps: object, epochs: object) -> None:
    """Raise if there cannot be such a warm-up, or if it is said twice."""
    if steps is not None and epochs is not None:
        raise HvdtoolsError("callbacks() got warmup_steps and warmup_epochs: give one of them.")
    if steps is not None:
        lr_scaling.require_steps(steps)
    if epochs is None:
        return
    number = isinstance(epochs, int | float) and not isinstance(epochs, bool)
    if not (number and 0 <= epochs < math.inf):  # type: ignore[operator]
        raise HvdtoolsError(f"warmup_epochs={epochs!r} must be a number of 0 or more.")


class LearningRate(keras.callbacks.Callback):
    """Tells the prepared optimizer by what factor to scale its rate.

    Args:
        policy, factor: The policy's name, and what it makes of this job's ranks.
        warmup_steps, warmup_epochs: How long the factor rises; at most one of them.
    """

    def __init__(
        self,
        policy: str,
        factor: float,
        warmup_steps: int | None,
        warmup_epochs: float | None,
    ) -> None:
        super().__init__()
        self._policy, self._factor = policy, factor
        self._warmup_steps, self._warmup_epochs = warmup_steps, warmup_epochs

    def on_train_begin(self, logs: Any = None) -> None:
        self._refuse_several_rates()
        changed = [self._tell(optimizer) for optimizer in optimizers_of(self.model)]
        if any(changed):
            self.model.make_train_function(force=True)  # a traced step has the former factor

    def _tell(self, optimizer: Any) -> bool:
        """Whether this is news to the optimizer."""
        averaging = averaging_of(optimizer)
        assert averaging is not None  # Prepared saw to it
        steps = self._steps(optimizer) if self._policy != "none" else 0
        changed = (averaging.factor, averaging.warmup_steps) != (self._factor, steps)
        averaging.factor, averaging.warmup_steps = self._factor, steps
        if changed or self._policy != "none":
            before, after = _in_words(optimizer, self._factor)
            said = (before, after, self._policy, hvd.size(), self._factor, steps)
            logger.info(lr_scaling.line(*said))
        return changed

    def _refuse_several_rates(self) -> None:
        kinds = {type(innermost(optimizer)).__name__ for optimizer in optimizers_of(self.model)}
        # By name: older Keras 3 has none.
        if self._factor != 1 and "MultiOptimizer" in kinds:
            raise HvdtoolsError(
                f'scale_lr="{self._policy}" cannot scale the rates within a MultiOptimizer: '
                f"multiply each by {self._factor:g} where the optimizers are made."
            )

    def _steps(self, optimizer: Any) -> int:
        """The length of the warm-up in optimizer steps."""
        if not self._warmup_epochs:
            return self._warmup_steps or 0
        batches = self.params["steps"]
        if batches is None:
            raise HvdtoolsError(
                f"warmup_epochs={self._warmup_epochs!r} needs the number of steps in an epoch, "
                "which this data does not tell: give callbacks(warmup_steps=...), or "
                "fit(steps_per_epoch=...)."
            )
        accumulated = innermost(optimizer).gradient_accumulation_steps or 1
        return round(self._warmup_epochs * batches / accumulated)


def _in_words(optimizer: Any, factor: float) -> tuple[str, str]:
    inner = innermost(optimizer)
    if isinstance(inner._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return "schedule", f"schedule x {factor:g}"
    rate = float(inner.learning_rate)
    return f"{rate:g}", f"{rate * factor:g}"
