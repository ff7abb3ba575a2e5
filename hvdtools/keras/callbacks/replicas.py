"""Are the ranks' models still the same?"""

from __future__ import annotations

from typing import Any

from hvdtools.keras.callbacks.steps import AtSteps
from hvdtools.keras.replicated import replicated
from hvdtools.tensorflow.variables import assert_in_sync


class Replicas(AtSteps):
    """Compares weights and optimizer state over ranks, now and then and at the end."""

    def at_step(self, step: int) -> None:
        assert_in_sync(replicated(self.model), f"in step {step}")

    def on_train_end(self, logs: Any = None) -> None:
        assert_in_sync(replicated(self.model), "at the end of training")
