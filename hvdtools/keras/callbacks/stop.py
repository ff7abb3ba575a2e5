"""Stops training on all ranks at the same step when one of them requests it."""

from __future__ import annotations

import functools
from typing import Any
from weakref import WeakKeyDictionary

import horovod.tensorflow as hvd
import keras
import tensorflow as tf

from hvdtools.core import preemption
from hvdtools.core.log import log_first_step, logger
from hvdtools.core.text import ranks_text
from hvdtools.keras.callbacks.checks import EveryFewSteps
from hvdtools.tensorflow import named_collectives

_NAME = "stop_training"


class _Request:
    """Has this rank requested to stop?"""

    def __init__(self) -> None:
        self.pending = False


# Of the models that train with other ranks now.
_requests: WeakKeyDictionary[Any, _Request] = WeakKeyDictionary()


class _StopTraining:
    """`model.stop_training`, which only records a request while the model trains with others.

    `fit` reads it after every batch and returns at once, and the other ranks would wait
    forever. It may be set by a callback, a signal handler or another thread, so a callback
    of ours could not intervene.
    """

    def __get__(self, model: Any, owner: Any = None) -> Any:
        if model is None:
            return self
        request = _requests.get(model)
        # 0, not False: TensorFlow skips the assignment of an object that is identical to the
        # present one, and a request could not be withdrawn.
        pending = 0 if request is not None and request.pending else False
        return vars(model).get(_NAME, False) or pending

    def __set__(self, model: Any, value: Any) -> None:
        request = _requests.get(model)
        if request is None:
            vars(model)[_NAME] = value
        else:
            request.pending = bool(value)


@functools.cache
def _patch_model() -> None:
    """Let Keras models record requests. This patches a class of Keras, and has an effect only
    on models that train on several ranks."""
    keras.Model.stop_training = _StopTraining()


class StopTogether(EveryFewSteps):
    """Grants a request to stop once all ranks know of it.

    With `on_signal` the batch system's signal is such a request (see `stop_requested`).
    """

    def __init__(self, check_every: int, *, on_signal: bool) -> None:
        super().__init__(check_every)
        self._on_signal = on_signal

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if self._on_signal:
            preemption.install_handler()
        self._granted = False
        if hvd.size() > 1:
            _patch_model()
            request = _requests[self.model] = _Request()
            request.pending = bool(self.model.stop_training)  # set by an earlier callback
            self.model.__dict__[_NAME] = False

    def at_step(self, step: int) -> None:
        log_first_step(hvd.rank())
        self._exchange(f"after step {step}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._exchange(f"after epoch {epoch + 1}")

    def on_train_end(self, logs: Any = None) -> None:
        _requests.pop(self.model, None)

    def _exchange(self, when: str) -> None:
        signaled = self._on_signal and preemption.signal_received()
        if hvd.size() == 1 and signaled:
            self.model.stop_training = True
        if hvd.size() == 1 or self._granted:
            return
        own = tf.constant([_requests[self.model].pending or signaled], tf.int32)
        all_ranks = named_collectives.allgather(own, "hvdtools.stop").numpy().tolist()
        ranks = [rank for rank, pending in enumerate(all_ranks) if pending]
        if ranks:
            self._granted = self.model.__dict__[_NAME] = True
            logger.info("training stops %s: requested by %s", when, ranks_text(ranks))
