"""What `hvdtools.keras.prepare` costs on a single rank, as a share of a training step.

    OMP_NUM_THREADS=1 python benchmarks/studies/keras_prepare_cost.py

Trains train_keras.py's model through `fit` in turns: as it is, and prepared and
with `hvt.callbacks()`. Who begins changes in every round, so that a drift of the
machine falls on both. Prints one line: the median and the quartiles over repeats
of a plain step's time, and of what a prepared one takes more in the same round.

TensorFlow is imported where it is used, so that neither --help nor a wrong option waits for it.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from hvdtools.bench.programs.keras.color_images import load
from hvdtools.bench.programs.keras.environment import set_environment
from hvdtools.bench.programs.keras.model import MODELS

if TYPE_CHECKING:
    import tensorflow as tf


def trainer(data: tf.data.Dataset, *, prepared: bool) -> Callable[[], float]:
    """A model's turn: one epoch through `fit`; the mean time of its steps, in seconds.

    That is the wall time without what `fit` does before and after the epoch.
    """
    import keras

    import hvdtools.keras as hvt
    from hvdtools.bench.programs.keras.workload import cross_entropy

    keras.utils.set_random_seed(1)
    cnn = MODELS["cnn"]
    model, optimizer = cnn.make(), cnn.optimizer(1e-3)
    optimizer = hvt.prepare(optimizer) if prepared else optimizer
    model.compile(optimizer, cross_entropy(), jit_compile=False)
    begun_s = ended_s = 0.0

    def begin(logs: object) -> None:
        nonlocal begun_s
        begun_s = time.perf_counter()

    def end(epoch: int, logs: object) -> None:
        nonlocal ended_s
        np.asarray(model.trainable_variables[0])  # waits for a GPU's last update
        ended_s = time.perf_counter()

    # The last callback of its list, so that what the others do at an epoch's end counts.
    stopwatch = keras.callbacks.LambdaCallback(on_train_begin=begin, on_epoch_end=end)

    def turn() -> float:
        callbacks = hvt.callbacks() if prepared else []
        model.fit(data, shuffle=False, verbose=0, callbacks=[*callbacks, stopwatch])
        return (ended_s - begun_s) / len(data)

    return turn


def quartiles(values: list[float], unit: str, scale: float) -> str:
    low, middle, high = statistics.quantiles([value * scale for value in values], n=4)
    return f"{middle:.2f} {unit} ({low:.2f} to {high:.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=50, help="in each turn")
    options = parser.parse_args()
    if options.repeats < 2:
        parser.error("--repeats below 2 have no quartiles")
    threads = set_environment()
    import tensorflow as tf

    import hvdtools.keras as hvt

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
    for number in range(options.repeats):
        for name in list(turns) if number % 2 else list(turns)[::-1]:
            taken_s[name].append(turns[name]())
    plain_s, prepared_s = taken_s["plain"], taken_s["prepared"]
    more = [b / a - 1 for a, b in zip(plain_s, prepared_s, strict=True)]
    print(
        f"{options.repeats} repeats of {options.steps} steps, batch {options.batch_size}, "
        f"{threads} thread(s): plain {quartiles(plain_s, 'ms a step', 1e3)}, prepare() takes "
        f"{quartiles(more, '% more', 100)}"
    )


if __name__ == "__main__":
    main()
