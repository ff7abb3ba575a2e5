"""Stop on all ranks, at the same step, when one asks for it."""

from __future__ import annotations

import functools
from typing import Any
from weakref import WeakKeyDictionary

import horovod.tensorflow as hvd
import keras
import tensorflow as tf

from hvdtools.core import preemption
from hvdtools.core.log import logger, ranks_in_words, tell_first_step
from hvdtools.keras.callbacks.steps import AtSteps
from hvdtools.tensorflow import named

_NAME = "stop_training"


class _Wish:
    """Did this rank ask to stop?"""

    def __init__(self) -> None:
        self.asked = False


# Of the models that train with other ranks now.
_wishes: WeakKeyDictionary[Any, _Wish] = WeakKeyDictionary()


class _StopTraining:
    """`model.stop_training`, where a rank's True is a wish while it trains with others.

    `fit` looks at it after every batch and leaves at once, and the other ranks
    would wait for this one for ever. Who sets it may be a callback, a signal's
    handler or another thread, so no callback of ours could come in between.
    """

    def __get__(self, model: Any, owner: Any = None) -> Any:
        if model is None:
            return self
        wish = _wishes.get(model)
        # 0, not False: TensorFlow leaves out an assignment of the very object that is there, and
        # a wish could not be taken back.
        unheard = 0 if wish is not None and wish.asked else False
        return vars(model).get(_NAME, False) or unheard

    def __set__(self, model: Any, value: Any) -> None:
        wish = _wishes.get(model)
        if wish is None:
            vars(model)[_NAME] = value
        else:
            wish.asked = bool(value)


@functools.cache
def _teach_models() -> None:
    """Let Keras models keep such a wish. This changes a class of Keras, for models of
    several ranks alone."""
    keras.Model.stop_training = _StopTraining()


class Stop(AtSteps):
    """Grants a wish to stop when all ranks know of it.

    With `on_signal` the batch system's signal is such a wish (see `stop_requested`).
    """

    def __init__(self, check_every: int, *, on_signal: bool) -> None:
        super().__init__(check_every)
        self._on_signal = on_signal

    def on_train_begin(self, logs: Any = None) -> None:
        super().on_train_begin(logs)
        if self._on_signal:
            preemption.listen()
        self._granted = False
        if hvd.size() > 1:
            _teach_models()
            wish = _wishes[self.model] = _Wish()
            wish.asked = bool(self.model.stop_training)  # by a callback that came before
            self.model.__dict__[_NAME] = False

    def at_step(self, step: int) -> None:
        tell_first_step(hvd.rank())
        self._agree(f"after step {step}")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        super().on_epoch_end(epoch, logs)
        self._agree(f"after epoch {epoch + 1}")

    def on_train_end(self, logs: Any = None) -> None:
        _wishes.pop(self.model, None)

    def _agree(self, when: str) -> None:
        signalled = self._on_signal and preemption.heard()
        if hvd.size() == 1 and signalled:
            self.model.stop_training = True
        if hvd.size() == 1 or self._granted:
            return
        asked = tf.constant([_wishes[self.model].asked or signalled], tf.int32)
        everyone = named.allgather(asked, "hvdtools.stop").numpy().tolist()
        ranks = [rank for rank, flag in enumerate(everyone) if flag]
        if ranks:
            self._granted = self.model.__dict__[_NAME] = True
            logger.info("training stops %s: %s asked for it", when, ranks_in_words(ranks))
