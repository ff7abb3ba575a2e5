"""Are the ranks' models still the same?"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hvdtools.keras.callbacks.steps import AtSteps
from hvdtools.keras.replicated import replicated
from hvdtools.tensorflow.variables import assert_in_sync


class Replicas(AtSteps):
    """Compares weights and optimizer state over ranks, now and then and at the end.

    Args:
        check_every: In steps.
        local: Layers whose non-trainable weights are each rank's own.
    """

    def __init__(self, check_every: int, local: Sequence[Any]) -> None:
        super().__init__(check_every)
        self._local = local

    def at_step(self, step: int) -> None:
        assert_in_sync(replicated(self.model, self._local), f"at step {step}")

    def on_train_end(self, logs: Any = None) -> None:
        assert_in_sync(replicated(self.model, self._local), "at the end of training")
