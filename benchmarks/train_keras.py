"""Train a small network of Keras on every rank, and measure it.

By hand, in any launcher:

    hvdtools launch -n 2 -- python benchmarks/train_keras.py --engine horovod --data digits

What makes it a Horovod job are four calls, all in the class `Horovod` of
keras_engines.py: `hvt.init()`, `hvt.prepare(optimizer)`, `hvt.shard(data)` and
`hvt.callbacks(...)`. The class `Mwms` in keras_strategy.py does the same with TensorFlow's own
MultiWorkerMirroredStrategy, the yardstick, and `Alone` does nothing.

`--data` may be a folder with CIFAR-10's own binary files. Rank 0 prints a line
an epoch and, with --result, appends one JSON line with the raw times. METHOD.md
says what is timed and why.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path
from typing import Any

from keras_start import bound_threads

# isort: split
import keras
import numpy as np
from colour_images import DATA, Images, load
from keras_engines import ENGINES, device
from keras_model import MODELS
from keras_work import Engine, Work

from hvdtools.errors import HvdtoolsError

DTYPES = ("float32", "float64")
TEST_BATCH = 500


def accuracy(model: keras.Model, test: Images) -> float:
    """The share of all test images that the model names rightly."""
    starts = range(0, len(test), TEST_BATCH)
    scores = [model(test.pixels[i : i + TEST_BATCH], training=False) for i in starts]
    return float((np.concatenate(scores).argmax(1) == test.labels).mean())


def replicas_equal(engine: Engine, model: keras.Model) -> bool | None:
    """Whether every rank holds the same weights, bit for bit; None for a single rank."""
    digest = hashlib.sha256()
    for weight in model.get_weights():
        digest.update(weight.tobytes())
    every = engine.gather(np.frombuffer(digest.digest(), np.int64))
    return None if engine.size == 1 else bool((every == every[0]).all())


def measure(
    engine: Engine, options: argparse.Namespace, data: tuple[Images, Images], threads: int
) -> dict[str, Any]:
    """Train as the options say; the measurement, equal on every rank but for the accuracy."""
    training, test = data
    keras.config.set_floatx(options.dtype)
    lr = options.lr * engine.size
    if engine.rank == 0:
        print(f"{engine.name} over {engine.moved_by}, {engine.size} rank(s): lr {lr:g}", flush=True)
    if len(training) < options.batch_size * engine.size:
        raise HvdtoolsError(
            f"{engine.size} batches of {options.batch_size} are more than the {len(training)} "
            "training images: give a smaller --batch-size."
        )
    work = Work(options.model, training, options.batch_size, lr, options.epochs, options.seed)
    trained = engine.train(work)
    # The slowest rank's time, before any rate is made of it: a job is as fast as that one.
    slowest_s = engine.gather(np.array(trained.epoch_s)).max(0).tolist()
    if engine.rank == 0 and options.weights:
        np.savez(options.weights, *trained.model.get_weights())
    return {
        "engine": engine.name,
        "moved_by": engine.moved_by,
        "device": device(),
        "ranks": engine.size,
        "threads_per_rank": threads,
        "batch_per_rank": options.batch_size,
        "lr": lr,
        "steps_per_block": trained.steps,
        "block_s": slowest_s[options.warmup_epochs :],
        "accuracy": accuracy(trained.model, test),
        "in_sync": replicas_equal(engine, trained.model),
    }


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train a small Keras network on every rank.")
    parser.add_argument("--engine", choices=sorted(ENGINES), default="horovod")
    parser.add_argument("--model", choices=sorted(MODELS), default="cnn")
    parser.add_argument("--data", default="digits", help=f"{', '.join(DATA)} or CIFAR-10's folder")
    parser.add_argument("--epochs", type=int, default=12, help="of training, warm-up and all")
    parser.add_argument("--warmup-epochs", type=int, default=2, help="first ones, not counted")
    parser.add_argument("--batch-size", type=int, default=64, help="images a rank and a step")
    parser.add_argument("--lr", type=float, default=1e-3, help="of one rank; times the ranks")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument("--weights", type=Path, help="rank 0 saves the trained weights there, .npz")
    parser.add_argument("--result", type=Path, help="rank 0 appends one JSON line to this file")
    options = parser.parse_args(arguments)
    if options.batch_size < 1:
        parser.error(f"--batch-size {options.batch_size} trains nothing: give at least 1")
    if not 0 <= options.warmup_epochs < options.epochs:
        parser.error("--warmup-epochs leaves no epoch to count: give more --epochs")
    if options.data not in DATA and not Path(options.data).is_dir():
        parser.error(f"--data {options.data} is neither {', '.join(DATA)} nor a folder")
    return options


def main(arguments: list[str] | None = None) -> None:
    options = parse(arguments)
    try:
        data = load(options.data)
        threads = bound_threads()
        engine = ENGINES[options.engine]()
        measured = measure(engine, options, data, threads)
    except HvdtoolsError as error:
        print(f"train_keras: {error}", file=sys.stderr)
        sys.exit(2)
    if engine.rank == 0 and options.result:
        with options.result.open("a") as file:
            file.write(json.dumps(measured) + "\n")
    if engine.rank == 0:
        known = {True: ", replicas equal", False: ", REPLICAS DIFFER", None: ""}
        said = f"test accuracy {measured['accuracy']:.4f}{known[measured['in_sync']]}"
        print(said, flush=True)


if __name__ == "__main__":
    main()
