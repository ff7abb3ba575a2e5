"""What `hvdtools.keras.prepare` costs on a single rank, as a share of a training step.

    OMP_NUM_THREADS=1 python benchmarks/keras_prepare_cost.py

Trains train_keras.py's model through `fit` in turns: as it is, and prepared and
with `hvt.callbacks()`. Who begins changes in every round, so that a drift of the
machine falls on both. Prints one line: the median and the quartiles over rounds
of a plain step's time, and of what a prepared one takes more in the same round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

from keras_start import bound_threads

# isort: split
import keras
import numpy as np
import tensorflow as tf
from colour_images import load
from keras_model import cnn, cross_entropy

import hvdtools.keras as hvt


class Stopwatch(keras.callbacks.Callback):  # type: ignore[misc]
    """The wall time of the last epoch, without what `fit` does before and after it, in seconds.

    The last callback of its list, so that what the others do at an epoch's end counts.
    """

    epoch_s = 0.0

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._start_s = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        np.asarray(self.model.trainable_variables[0])  # waits for a GPU's last update
        self.epoch_s = time.perf_counter() - self._start_s


def trainer(data: tf.data.Dataset, *, prepared: bool) -> Callable[[], float]:
    """A model's turn: one epoch through `fit`; the mean time of its steps, in seconds."""
    keras.utils.set_random_seed(1)
    model, optimizer = cnn(), keras.optimizers.Adam(1e-3)
    optimizer = hvt.prepare(optimizer) if prepared else optimizer
    model.compile(optimizer, cross_entropy(), jit_compile=False)
    stopwatch = Stopwatch()

    def turn() -> float:
        callbacks = hvt.callbacks() if prepared else []
        model.fit(data, shuffle=False, verbose=0, callbacks=[*callbacks, stopwatch])
        return stopwatch.epoch_s / len(data)

    return turn


def quartiles(values: list[float], unit: str, scale: float) -> str:
    low, middle, high = statistics.quantiles([value * scale for value in values], n=4)
    return f"{middle:.2f} {unit} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--steps", type=int, default=50, help="in each turn")
    options = parser.parse_args()
    if options.rounds < 2:
        parser.error("--rounds below 2 have no quartiles")
    threads = bound_threads()
    if hvt.init().size > 1:
        parser.error("start it on one rank: prepare() is measured, not what ranks tell each other")
    images, _ = load("synthetic")
    batch = images[np.arange(options.batch_size)]
    # One batch again and again: nothing is spent on the images, so the share is the largest.
    data = tf.data.Dataset.from_tensors((batch.pixels, batch.labels)).repeat(options.steps)
    turns = {name: trainer(data, prepared=name == "prepared") for name in ("plain", "prepared")}
    for turn in turns.values():
        turn()  # traces the step, and is not counted
    taken_s: dict[str, list[float]] = {name: [] for name in turns}
    for number in range(options.rounds):
        for name in list(turns) if number % 2 else list(turns)[::-1]:
            taken_s[name].append(turns[name]())
    plain_s, prepared_s = taken_s["plain"], taken_s["prepared"]
    more = [b / a - 1 for a, b in zip(plain_s, prepared_s, strict=True)]
    print(
        f"{options.rounds} rounds of {options.steps} steps, batch {options.batch_size}, {threads} "
        f"thread(s): plain {quartiles(plain_s, 'ms a step', 1e3)}, prepare() takes "
        f"{quartiles(more, '% more', 100)}"
    )


if __name__ == "__main__":
    main()
