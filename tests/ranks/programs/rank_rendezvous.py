"""Run in every rank, under any launcher: join, train, and compare with one process.

    rank_rendezvous.py [torch] [tensorflow]

Prints one line of JSON: the topology, Horovod's variables and the largest difference of the
weights from those of one process on the combined batch.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

import numpy as np

STEPS, BATCH, FEATURES, RATE = 4, 3, 5, 0.1


def data(step: int, rank: int) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng([step, rank])
    return random.normal(size=(BATCH, FEATURES)), random.normal(size=(BATCH, 1))


def train_reference(size: int) -> np.ndarray:
    """Weights after SGD steps on the combined batch, for a mean squared error."""
    weights = np.ones((FEATURES, 1))
    for step in range(STEPS):
        parts = [data(step, rank) for rank in range(size)]
        x, y = (np.concatenate(part) for part in zip(*parts, strict=True))
        weights -= RATE * 2 * x.T @ (x @ weights - y) / len(x)
    return weights


def with_torch() -> tuple[Any, np.ndarray]:
    import torch

    import hvdtools.torch as hvt

    topology = hvt.init()
    model = torch.nn.Linear(FEATURES, 1, bias=False, dtype=torch.float64)
    with torch.no_grad():
        model.weight.fill_(1.0)
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE)
    hvt.prepare(model, optimizer)
    for step in range(STEPS):
        x, y = map(torch.from_numpy, data(step, topology.rank))
        optimizer.zero_grad()
        torch.nn.functional.mse_loss(model(x), y).backward()
        optimizer.step()
    ranks = [int(part) for part in hvt.gather(torch.tensor(topology.rank))]
    assert ranks == list(range(topology.size)), ranks
    return topology, model.weight.detach().numpy().T


def with_tensorflow() -> tuple[Any, np.ndarray]:
    import tensorflow as tf

    import hvdtools.tensorflow as hvt

    topology = hvt.init()
    weights = tf.Variable(tf.ones((FEATURES, 1), tf.float64))
    hvt.broadcast_variables([weights])
    for step in range(STEPS):
        x, y = data(step, topology.rank)
        with hvt.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(tf.matmul(x, weights) - y))
        weights.assign_sub(RATE * tape.gradient(loss, [weights])[0])
    return topology, weights.numpy()


ADAPTERS = {"torch": with_torch, "tensorflow": with_tensorflow}
SHOWN = ("HOROVOD_HOSTNAME", "HOROVOD_CROSS_RANK", "HOROVOD_CROSS_SIZE", "HOROVOD_GLOO_IFACE")


def main(arguments: list[str]) -> None:
    chosen = [name for name in ADAPTERS if name in arguments] or ["torch"]
    for name in chosen:
        topology, weights = ADAPTERS[name]()
        seen = {
            "adapter": name,
            **dataclasses.asdict(topology),
            **{variable: os.environ.get(variable) for variable in SHOWN},
            "difference": float(np.abs(weights - train_reference(topology.size)).max()),
        }
        # In one write: launchers interleave the output of ranks.
        sys.stdout.write(f"SEEN {json.dumps(seen)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
