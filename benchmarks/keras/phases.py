"""Where a step's time goes, found by difference once a training has been timed.

A compiled step has no boundaries to put a clock at. So three functions are
compiled, each of which does what the one before does and one thing more: the
forward pass, the gradients too, the optimizer's update too. METHOD.md says what
this measures and what not.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise
from statistics import median
from typing import Any

import tensorflow as tf

from hvdtools.bench.programs.keras.timing import wait_for_device
from hvdtools.bench.programs.keras.workload import Workload, cross_entropy
from hvdtools.bench.results.measured import PHASES

MOST_ROUNDS, FEWEST_ROUNDS, ROUNDS_S = 15, 3, 2.0
MOST_BATCHES, FEWEST_BATCHES, BATCHES_S = 50, 3, 1.0
_CALLS_S = 0.05  # a clock is read after at least so many seconds, or one call


def phase_s(workload: Workload, data: tf.data.Dataset, step_s: float) -> tuple[float, ...]:
    """Seconds of this rank's step in the order of PHASES, which add up to it.

    Waiting for input, the forward pass and the optimizer's update are measured on
    a new network that the rank trains alone. All else is the backward pass: the
    averaging that it waits for, and what the loop does between the steps. It is 0, and
    the sum too long, where a busy machine made the others longer than the step was.

    Args:
        data: This rank's endless batches.
        step_s: The time of a step while the engine was timed.
    """
    forward, gradients, step = _functions(workload)
    parts = iter(data)
    forward_s, _, optimizer_s = _nested(next(parts), forward, gradients, step)
    input_s = _waited(parts, step)
    rest_s = max(0.0, step_s - input_s - forward_s - optimizer_s)
    found = {
        "input": input_s,
        "forward": forward_s,
        "backward": rest_s,
        "optimizer": optimizer_s,
    }
    return tuple(found[phase] for phase in PHASES)


def _functions(workload: Workload) -> tuple[Callable[..., Any], ...]:
    model, optimizer = workload.model_and_optimizer()
    loss_of, variables = cross_entropy(), model.trainable_variables
    optimizer.build(variables)

    def forward(inputs: Any, targets: Any) -> Any:
        return loss_of(targets, model(inputs, training=True))

    def gradients(inputs: Any, targets: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = forward(inputs, targets)
        return tape.gradient(loss, variables)  # what is not returned would not be worked out

    def step(inputs: Any, targets: Any) -> None:
        optimizer.apply(gradients(inputs, targets), variables)

    return tuple(tf.function(function) for function in (forward, gradients, step))


def _nested(batch: Any, *functions: Callable[..., Any]) -> list[float]:
    """What each function takes more than the one before it: the median over rounds, in seconds.

    A difference that noise made negative is 0.
    """
    for function in functions:
        _call_s(function, batch, 1)  # traces and allocates
    calls = max(1, round(_CALLS_S / _call_s(functions[0], batch, 1)))
    rounds: list[list[float]] = []
    begun_s = time.perf_counter()
    while _goes_on(len(rounds), begun_s, FEWEST_ROUNDS, MOST_ROUNDS, ROUNDS_S):
        # Forwards and backwards, so that a slow minute of the machine falls on all alike.
        order = list(enumerate(functions))[:: 1 if len(rounds) % 2 else -1]
        taken_s = {place: _call_s(function, batch, calls) for place, function in order}
        values = [0.0, *(taken_s[place] for place in range(len(functions)))]
        rounds.append([more - less for less, more in pairwise(values)])
    return [max(0.0, median(column)) for column in zip(*rounds, strict=True)]


def _call_s(function: Callable[..., Any], batch: Any, calls: int) -> float:
    """The mean time of so many calls."""
    wait_for_device()
    start_s = time.perf_counter()
    for _ in range(calls):
        function(*batch)
    wait_for_device()
    return (time.perf_counter() - start_s) / calls


def _waited(parts: Any, step: Callable[..., Any]) -> float:
    """How long a step waits for its batch, the median; others are made while it computes."""
    waits_s: list[float] = []
    begun_s = time.perf_counter()
    while _goes_on(len(waits_s), begun_s, FEWEST_BATCHES, MOST_BATCHES, BATCHES_S):
        start_s = time.perf_counter()
        batch = next(parts)
        waits_s.append(time.perf_counter() - start_s)
        step(*batch)
        wait_for_device()
    return median(waits_s)


def _goes_on(done: int, begun_s: float, fewest: int, most: int, limit_s: float) -> bool:
    return done < fewest or (done < most and time.perf_counter() - begun_s < limit_s)
