"""What the engines of train_keras.py train, and how they are timed."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
from colour_images import Images
from keras_model import MODELS
from numpy.typing import NDArray

LOSS = "sparse_categorical_crossentropy"


@dataclass(frozen=True)
class Work:
    """What is trained: the same for every engine.

    Attributes:
        model: A name in MODELS.
        images: The training images of all ranks together.
        batch_size: Images a rank and a step.
        lr: Adam's learning rate, that of the whole job.
        epochs: With those that are not counted.
        seed: Start weights and order hang on it alone.
    """

    model: str
    images: Images
    batch_size: int
    lr: float
    epochs: int
    seed: int

    def model_and_optimizer(self) -> tuple[keras.Model, keras.Optimizer]:
        """The same start weights wherever it is called."""
        keras.utils.set_random_seed(self.seed)
        return MODELS[self.model](), keras.optimizers.Adam(self.lr)


@dataclass(frozen=True)
class Trained:
    """A trained model, and this rank's wall time of each epoch's `steps` steps, in seconds."""

    model: keras.Model
    steps: int
    epoch_s: list[float]


class Engine(Protocol):
    """What keeps the replicas equal. `moved_by` names what carries the gradients."""

    name: str
    moved_by: str
    rank: int
    size: int

    def train(self, work: Work) -> Trained:
        """Train this rank's part, with equally many steps on every rank."""

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        """(k,) on each rank -> (size, k) on every rank, row r from rank r."""


class Clock(keras.callbacks.Callback):  # type: ignore[misc]
    """Times each epoch on this rank, and says a line of it on rank 0.

    A time is from one epoch's end to the next one's. The clock is the last
    callback of its list, so what `fit` and the other callbacks do between the
    steps counts. A loop of one's own calls it likewise, after `set_model`.
    """

    def __init__(self, engine: Engine, work: Work, steps: int) -> None:
        super().__init__()
        self.epoch_s: list[float] = []
        self._speaks, self._epochs = engine.rank == 0, work.epochs
        self._samples = engine.size * work.batch_size * steps

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._last_s = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        # The first layer's weights are updated last. Reading them waits for a GPU that is still
        # at work; a clock read earlier would lie.
        np.asarray(self.model.trainable_variables[0])
        now_s = time.perf_counter()
        self.epoch_s.append(now_s - self._last_s)
        self._last_s = now_s
        if self._speaks:
            loss, rate = (logs or {})["loss"], self._samples / self.epoch_s[-1]
            said = f"epoch {epoch + 1}/{self._epochs}: loss {loss:.4f}, {rate:.0f} samples/s"
            print(said, flush=True)
