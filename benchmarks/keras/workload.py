"""What the engines of train_keras.py train, and what they have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import keras
import tensorflow as tf
from numpy.typing import NDArray

from hvdtools.bench.programs.keras.color_images import Images
from hvdtools.bench.programs.keras.model import Model
from hvdtools.bench.programs.keras.timing import Pace


@dataclass(frozen=True)
class Workload:
    """What is trained: the same for every engine.

    Attributes:
        model: The network, not built yet.
        images: The training images of all ranks together; None for a network
            that makes its own batch.
        batch_size: Samples a rank and a step.
        lr: The learning rate of the whole job.
        seed: Start weights and order hang on it alone.
    """

    model: Model
    images: Images | None
    batch_size: int
    lr: float
    seed: int

    def model_and_optimizer(self) -> tuple[keras.Model, keras.Optimizer]:
        """The same start weights wherever it is called."""
        keras.utils.set_random_seed(self.seed)
        return self.model.make(), self.model.optimizer(self.lr)


class Engine(Protocol):
    """What keeps the replicas equal.

    Attributes:
        name: As --engine has it.
        transport: What carries the gradients.
        averages: False where every rank trains a network of its own.
        rank, size: Of this process; of the job.
    """

    name: str
    transport: str
    averages: bool
    rank: int
    size: int

    def part(self, workload: Workload) -> tf.data.Dataset:
        """This rank's batches of one pass, equally many on every rank."""

    def train(self, workload: Workload, data: tf.data.Dataset, pace: Pace) -> keras.Model:
        """Train on this rank's endless `data` in blocks of `pace.steps`, until `pace` says stop."""

    def allreduces_per_step(self, model: keras.Model) -> int | None:
        """All-reduces of a step; None where nobody says."""

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        """(k,) on each rank -> (size, k) on every rank, row r from rank r."""


def cross_entropy(reduction: str | None = "sum_over_batch_size") -> keras.Loss:
    """Of targets (B,) or (B, T) and scores (B, C) or (B, T, V), in nats.

    Worked out in float32, or in float64 where the network is.

    Args:
        reduction: None for one a target instead of their mean.
    """
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)


def device() -> str:
    """Where this rank's model lies: "cuda" or "cpu"."""
    return "cuda" if tf.config.list_logical_devices("GPU") else "cpu"
