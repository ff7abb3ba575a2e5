"""Scales the learning rate with the number of ranks, after a warm-up."""

from __future__ import annotations

import math
from typing import Any

import horovod.tensorflow as hvd
import keras

from hvdtools.core.errors import HvdtoolsError
from hvdtools.core.learning_rate import require_warmup_steps, scaling_text
from hvdtools.core.log import logger
from hvdtools.keras.optimizer import averaging_of, innermost
from hvdtools.keras.replicas import optimizers_of


def require_warmup(steps: object, epochs: object) -> None:
    """Raise for an invalid warm-up, or if it is given in both steps and epochs."""
    if steps is not None and epochs is not None:
        raise HvdtoolsError("callbacks() got warmup_steps and warmup_epochs: give one of them.")
    if steps is not None:
        require_warmup_steps(steps)
    if epochs is None:
        return
    is_number = isinstance(epochs, int | float) and not isinstance(epochs, bool)
    if not (is_number and 0 <= epochs < math.inf):  # type: ignore[operator]
        raise HvdtoolsError(f"warmup_epochs={epochs!r} must be a number of 0 or more.")


class ScaleLearningRate(keras.callbacks.Callback):
    """Gives the prepared optimizers the factor for their learning rate.

    Args:
        policy, factor: The policy's name, and its factor for this job's ranks.
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
        self._refuse_multi_optimizer()
        changed = [self._set_factor(optimizer) for optimizer in optimizers_of(self.model)]
        if any(changed):
            self.model.make_train_function(force=True)  # a traced step has the former factor

    def _set_factor(self, optimizer: Any) -> bool:
        """True if the optimizer had another factor."""
        averaging = averaging_of(optimizer)
        assert averaging is not None  # ensured by CheckOptimizers
        steps = self._steps(optimizer) if self._policy != "none" else 0
        changed = (averaging.factor, averaging.warmup_steps) != (self._factor, steps)
        averaging.factor, averaging.warmup_steps = self._factor, steps
        if changed or self._policy != "none":
            before, after = _rate_texts(optimizer, self._factor)
            logger.info(scaling_text(before, after, self._policy, hvd.size(), self._factor, steps))
        return changed

    def _refuse_multi_optimizer(self) -> None:
        names = {type(innermost(optimizer)).__name__ for optimizer in optimizers_of(self.model)}
        # By name: older versions of Keras 3 do not have the class.
        if self._factor != 1 and "MultiOptimizer" in names:
            raise HvdtoolsError(
                f'scale_lr="{self._policy}" cannot scale the rates in a MultiOptimizer: multiply '
                f"each by {self._factor:g} where the optimizers are created."
            )

    def _steps(self, optimizer: Any) -> int:
        """The length of the warm-up in optimizer steps."""
        if not self._warmup_epochs:
            return self._warmup_steps or 0
        batches = self.params["steps"]
        if batches is None:
            raise HvdtoolsError(
                f"warmup_epochs={self._warmup_epochs!r} needs the number of steps in an epoch, "
                "which is unknown for this data: use callbacks(warmup_steps=...), or "
                "fit(steps_per_epoch=...)."
            )
        accumulated = innermost(optimizer).gradient_accumulation_steps or 1
        return round(self._warmup_epochs * batches / accumulated)


def _rate_texts(optimizer: Any, factor: float) -> tuple[str, str]:
    """The rate before and after scaling, for the log."""
    inner = innermost(optimizer)
    if isinstance(inner._learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        return "schedule", f"schedule x {factor:g}"
    rate = float(inner.learning_rate)
    return f"{rate:g}", f"{rate * factor:g}"
