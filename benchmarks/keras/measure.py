"""One engine's training, measured: what train_keras.py writes on a line."""

from __future__ import annotations

import argparse
import gc
import hashlib
import math
from collections.abc import Sequence

import keras
import numpy as np

from hvdtools.bench.programs.keras.color_images import Images
from hvdtools.bench.programs.keras.data import endless
from hvdtools.bench.programs.keras.memory import PeakMemory
from hvdtools.bench.programs.keras.model import MODELS
from hvdtools.bench.programs.keras.phases import phase_s
from hvdtools.bench.programs.keras.timing import Pace
from hvdtools.bench.programs.keras.workload import Engine, Workload, device
from hvdtools.bench.results.measured import PHASES, Training
from hvdtools.bench.run.interleave import StoppingRule, stopping_rule_of

TEST_BATCH = 500


def measure(
    engine: Engine, options: argparse.Namespace, images: tuple[Images, Images] | None, threads: int
) -> Training:
    """Train as the options say; the measurement, equal on every rank but for the accuracy.

    Args:
        images: To train on and to test on; None for a network that makes its own batch.
        threads: TensorFlow's, for one operation.
    """
    set_precision(options.precision)
    workload = work_of(engine, options, images)
    data = engine.part(workload)
    pace = pace_of(engine, options, options.steps or len(data))
    if engine.rank == 0:
        said = f"{engine.name} over {engine.transport}, {engine.size} rank(s): lr {workload.lr:g}"
        print(said, flush=True)
    memory = PeakMemory()
    model = engine.train(workload, endless(data), pace)
    peak_bytes = memory.grown_bytes()
    if engine.rank == 0 and options.weights:
        np.savez(options.weights, *model.get_weights())
    right = accuracy(model, images[1]) if images is not None and options.epochs else None
    in_sync = replicas_equal(engine, model)
    parameters = sum(math.prod(weight.shape) for weight in model.trainable_variables)
    allreduces_per_step = engine.allreduces_per_step(model)
    _say_end(engine, right, in_sync)
    del model
    gc.collect()  # the next one needs its memory
    engine.gather(np.zeros(1))  # as many ranks are at work as were
    blocks = np.array(pace.rank_block_s)  # (blocks, ranks)
    rank_step_s = (np.median(blocks, axis=0) / pace.steps).tolist()
    phases = phase_s(workload, endless(data), rank_step_s[engine.rank])
    ranks = engine.gather(np.array([peak_bytes, *phases], np.float64)).T.tolist()
    return Training(
        engine=engine.name,
        transport=engine.transport,
        device=device(),
        model=options.model,
        data=options.data,
        precision=options.precision,
        batch_per_rank=options.batch_size,
        threads_per_rank=threads,
        lr=workload.lr,
        parameters=parameters,
        gradient_bytes=_gradient_bytes(engine, parameters),
        allreduces_per_step=allreduces_per_step,
        steps_per_block=pace.steps,
        # The slowest rank's time, before any rate is made of it: a job is as fast as that one.
        block_s=tuple(blocks.max(1).tolist()),
        rank_step_s=tuple(rank_step_s),
        phase_s={phase: tuple(values) for phase, values in zip(PHASES, ranks[1:], strict=True)},
        peak_memory_bytes=tuple(int(value) for value in ranks[0]),
        stopped_by=pace.interleaved.stopped_by,
        accuracy=right,
        in_sync=in_sync,
    )


def set_precision(precision: str) -> None:
    """What networks and losses that are made from now on compute in."""
    keras.config.set_floatx("float64" if precision == "float64" else "float32")
    keras.config.set_dtype_policy({"bfloat16": "mixed_bfloat16"}.get(precision, precision))


def work_of(
    engine: Engine, options: argparse.Namespace, images: tuple[Images, Images] | None
) -> Workload:
    training = None if images is None else images[0]
    lr = options.lr * engine.size
    return Workload(MODELS[options.model], training, options.batch_size, lr, options.seed)


def pace_of(engine: Engine, options: argparse.Namespace, steps: int) -> Pace:
    """How long it goes on: --epochs to the number, or until the median is known."""
    rule = stopping_rule_of(options)
    if options.epochs:
        counted = options.epochs - options.warmup_epochs
        rule = StoppingRule(0, math.inf, counted, counted, options.warmup_epochs)
    samples = engine.size * options.batch_size * steps
    word = "epoch" if options.epochs else "block"

    def tell(number: int, loss: float, block_s: float) -> None:
        if engine.rank == 0:
            which = f"{word} {number + 1 + rule.warmup_blocks}"
            print(f"{which}: loss {loss:.4f}, {samples / block_s:.0f} samples/s", flush=True)

    def gather(values: Sequence[float]) -> list[list[float]]:
        rows: list[list[float]] = engine.gather(np.array(values, np.float64)).tolist()
        return rows

    return Pace(rule, steps, gather, tell)


def accuracy(model: keras.Model, test: Images) -> float:
    """The share of all test images that the model names rightly."""
    starts = range(0, len(test), TEST_BATCH)
    scores = [model(test.pixels[i : i + TEST_BATCH], training=False) for i in starts]
    return float((np.concatenate(scores).argmax(1) == test.labels).mean())


def replicas_equal(engine: Engine, model: keras.Model) -> bool | None:
    """Whether every rank holds the same trained weights, bit for bit; None if none should."""
    digest = hashlib.sha256()
    for weight in model.trainable_variables:
        digest.update(np.asarray(weight).tobytes())
    every = engine.gather(np.frombuffer(digest.digest(), np.int64))
    return bool((every == every[0]).all()) if engine.averages and engine.size > 1 else None


def _gradient_bytes(engine: Engine, parameters: int) -> int:
    """Gradients have their weights' dtype, which --precision bfloat16 leaves float32."""
    number_bytes = 8 if keras.config.floatx() == "float64" else 4
    return number_bytes * parameters if engine.averages else 0


def _say_end(engine: Engine, accuracy: float | None, in_sync: bool | None) -> None:
    if engine.rank:
        return
    tested = "trained" if accuracy is None else f"test accuracy {accuracy:.4f}"
    print(tested + {True: ", replicas equal", False: ", REPLICAS DIFFER", None: ""}[in_sync])
