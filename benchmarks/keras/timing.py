"""Times the blocks of a training of train_keras.py, and says when there are enough."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import tensorflow as tf

from hvdtools.bench.run.interleave import Gather, InterleavedBlocks, StoppingRule, why_stop


def wait_for_device() -> None:
    """Until this rank's GPU has done what it was given; a clock read earlier would lie.

    What TensorFlow computes there is queued, one after another: a last number can be
    read when all before it is done. (Its own `sync_devices` fails under a strategy of
    several processes: it asks for the others' devices, too.)
    """
    tf.fill([1], 0.0).numpy()


class Pace:
    """One engine's turns, for a loop that cannot be called block by block: that of `fit`.

    It does what `interleave.run_interleaved` does. A block begins with `begin`, when all
    ranks are there, and ends with `end`, when this rank's device is done.

    Args:
        rule: When it is over.
        steps: Of each block.
        gather: Hands every rank's values to every rank; outside what is timed.
        tell: What is done with each block's number, loss and slowest rank's
            seconds; blocks that are not counted have numbers below 0.
    """

    def __init__(
        self,
        rule: StoppingRule,
        steps: int,
        gather: Gather,
        tell: Callable[[int, float, float], None],
    ) -> None:
        self.steps = steps
        self.interleaved = InterleavedBlocks({"": []})
        self.most_blocks = rule.warmup_blocks + rule.max_blocks
        self._rule, self._gather, self._tell = rule, gather, tell
        self._number = -rule.warmup_blocks
        self._begun_s = 0.0

    @property
    def rank_block_s(self) -> Sequence[Sequence[float]]:
        """Block -> rank -> seconds, of the blocks that are counted."""
        return self.interleaved.rank_block_s[""]

    def begin(self) -> None:
        self._gather([0.0])  # a rank that is early waits for the others
        self._start_s = time.perf_counter()
        if self._number <= 0:
            self._begun_s = self._start_s  # a first block compiles and allocates

    def end(self, loss: Callable[[], float]) -> bool:
        """Is it over? The same answer on every rank."""
        wait_for_device()
        now_s = time.perf_counter()
        gathered = self._gather([now_s - self._start_s, now_s - self._begun_s])
        block_s = [row[0] for row in gathered]
        self._tell(self._number, loss(), max(block_s))
        self._number += 1
        if self._number <= 0:
            return False
        self.interleaved.rank_block_s[""].append(block_s)
        elapsed_s = max(row[1] for row in gathered)
        why = why_stop(self.interleaved, self._rule, self._number, elapsed_s)
        self.interleaved.stopped_by = why or "blocks"
        return why is not None or self._number == self._rule.max_blocks


class Begin(keras.callbacks.Callback):  # type: ignore[misc]
    """Begins a block with each epoch of `fit`. The first callback of its list."""

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._pace.begin()


class End(keras.callbacks.Callback):  # type: ignore[misc]
    """Ends a block with each epoch of `fit`.

    The last callback of its list, so that whatever `fit` and the others do
    between the steps and at an epoch's end counts.
    """

    def __init__(self, pace: Pace) -> None:
        super().__init__()
        self._pace = pace

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        if self._pace.end(lambda: float((logs or {})["loss"])):
            # All ranks say so at once. A plain assignment would be a wish to hvdtools, which
            # stops when the ranks have talked about it, in the middle of the next epoch.
            self.model.__dict__["stop_training"] = True


def fit(model: keras.Model, data: tf.data.Dataset, pace: Pace, callbacks: Sequence[Any]) -> None:
    """Keras' own `fit`: a block is an epoch of so many steps."""
    model.fit(
        data,
        epochs=pace.most_blocks,
        steps_per_epoch=pace.steps,
        # The data set shuffles itself: without this, `fit` warns that it cannot.
        shuffle=False,
        verbose=0,
        callbacks=[Begin(pace), *callbacks, End(pace)],
    )


def loop(step: Callable[[Any], Any], parts: Any, pace: Pace) -> None:
    """A loop of one's own; `step` takes the next batch from the iterator and returns the loss."""
    over = False
    while not over:
        pace.begin()
        for _ in range(pace.steps):
            loss = step(parts)
        over = pace.end(partial(float, loss))
