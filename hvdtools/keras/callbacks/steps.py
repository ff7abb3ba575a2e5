"""The steps at which ranks talk to each other."""

from __future__ import annotations

from typing import Any

import keras

from hvdtools.core.errors import HvdtoolsError

# A wrong set-up shows in the first steps.
_FIRST_STEPS = 3


def require_check_every(check_every: object) -> None:
    """Raise if there is no such number of steps."""
    if isinstance(check_every, bool) or not isinstance(check_every, int) or check_every < 1:
        raise HvdtoolsError(f"check_every={check_every!r} must be a whole number of at least 1.")


class AtSteps(keras.callbacks.Callback):
    """Calls `at_step` after steps 1, 2, 3 and every `check_every`-th, on all ranks alike.

    With `steps_per_execution` above 1 it is called when such a step was passed.
    """

    def __init__(self, check_every: int) -> None:
        super().__init__()
        self._check_every = check_every

    def at_step(self, step: int) -> None:
        """To be overridden; `step` counts from the start of `fit`."""
        raise NotImplementedError

    def on_train_begin(self, logs: Any = None) -> None:
        self._done = 0
        self._in_earlier_epochs = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        before, self._done = self._done, self._in_earlier_epochs + batch + 1
        passed = self._done // self._check_every > before // self._check_every
        if passed or before < _FIRST_STEPS:
            self.at_step(self._done)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self._in_earlier_epochs = self._done
