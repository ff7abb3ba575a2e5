"""The ways to train that train_keras.py compares: each trains the same work on every rank."""

from __future__ import annotations

import json
import os
import time
from dataclasses import dataclass
from typing import Any, Protocol

import keras
import numpy as np
import tensorflow as tf
from colour_images import Images
from keras_model import MODELS, batches, samples
from numpy.typing import NDArray

from hvdtools.errors import HvdtoolsError
from hvdtools.topology import promised

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


class Horovod:
    """Horovod through hvdtools' adapter, and Keras' own `fit`."""

    name = "horovod"

    def __init__(self) -> None:
        # Imported here, so that --engine mwms runs where no Horovod is built.
        import horovod.tensorflow as hvd

        import hvdtools.keras as hvt
        from hvdtools.installed import require

        self._hvt = hvt
        topology = hvt.init()
        self.rank, self.size = topology.rank, topology.size
        controller = "mpi" if hvd.mpi_enabled() else "gloo"
        on_nccl = device() == "cuda" and require("tensorflow").nccl
        self.moved_by = "nccl" if on_nccl else controller

    def train(self, work: Work) -> Trained:
        model, optimizer = work.model_and_optimizer()
        optimizer = self._hvt.prepare(optimizer)
        model.compile(optimizer, LOSS, jit_compile=False)
        data = self._hvt.shard(batches(samples(work.images, work.seed), work.batch_size))
        clock = Clock(self, work, len(data))
        callbacks = [*self._hvt.callbacks(), clock]
        model.fit(data, epochs=work.epochs, shuffle=False, verbose=0, callbacks=callbacks)
        return Trained(model, len(data), clock.epoch_s)

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.stack(self._hvt.gather(values))


class Mwms:
    """tf.distribute.MultiWorkerMirroredStrategy in a loop of its own, as its tutorial has it.

    `fit` under this strategy fails on Keras 3 (METHOD.md has its error). Rank r
    listens at MASTER_ADDR:(MASTER_PORT + r).
    """

    name = "mwms"

    def __init__(self) -> None:
        place = promised(os.environ)
        if "MASTER_ADDR" not in os.environ or not os.environ.get("MASTER_PORT", "").isdigit():
            raise HvdtoolsError(
                "--engine mwms meets at MASTER_ADDR, rank r at port MASTER_PORT + r: set both, the "
                "same on every rank."
            )
        if place.local_size != place.size:
            raise HvdtoolsError("--engine mwms is set up for one machine: start all ranks there.")
        self.rank, self.size = place.rank, place.size
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        workers = [f"{address}:{port + rank}" for rank in range(self.size)]
        task = {"type": "worker", "index": self.rank}
        os.environ["TF_CONFIG"] = json.dumps({"cluster": {"worker": workers}, "task": task})
        gpus = tf.config.list_physical_devices("GPU")
        if gpus:
            mine = gpus[place.local_rank % len(gpus)]
            tf.config.set_visible_devices(mine, "GPU")
            tf.config.experimental.set_memory_growth(mine, True)
        way = "NCCL" if gpus else "RING"
        self.moved_by = "nccl" if gpus else "grpc"
        communication = tf.distribute.experimental.CommunicationOptions(
            implementation=tf.distribute.experimental.CommunicationImplementation[way]
        )
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=communication
        )

    def train(self, work: Work) -> Trained:
        strategy = self._strategy
        with strategy.scope():
            model, optimizer = work.model_and_optimizer()
            optimizer.build(model.trainable_variables)
            loss_of = keras.losses.get(LOSS)

        def step_of_a_replica(images: tf.Tensor, labels: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                losses = loss_of(labels, model(images, training=True))
                # Over the images of all replicas: their gradients are summed, not averaged.
                loss = tf.nn.compute_average_loss(losses)
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
            return loss * self.size

        step = tf.function(lambda parts: strategy.run(step_of_a_replica, args=next(parts)))
        mine = samples(work.images, work.seed).shard(self.size, self.rank)
        data = batches(mine, work.batch_size)
        dealt = strategy.distribute_datasets_from_function(lambda context: data)
        clock = Clock(self, work, len(data))
        clock.set_model(model)
        clock.on_train_begin()
        for epoch in range(work.epochs):
            parts = iter(dealt)
            for _ in range(len(data)):
                loss = step(parts)
            clock.on_epoch_end(epoch, {"loss": float(loss)})
        return Trained(model, len(data), clock.epoch_s)

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        mine = self._strategy.experimental_distribute_values_from_function(
            lambda context: tf.constant(values[np.newaxis])
        )
        return np.asarray(self._strategy.gather(mine, axis=0))


class Alone:
    """One process, Keras' own `fit`, no communication: what a single rank can do."""

    name = moved_by = "none"
    rank, size = 0, 1

    def train(self, work: Work) -> Trained:
        model, optimizer = work.model_and_optimizer()
        model.compile(optimizer, LOSS, jit_compile=False)
        data = batches(samples(work.images, work.seed), work.batch_size)
        clock = Clock(self, work, len(data))
        # The data set shuffles itself: without shuffle=False, `fit` warns that it cannot.
        model.fit(data, epochs=work.epochs, shuffle=False, verbose=0, callbacks=[clock])
        return Trained(model, len(data), clock.epoch_s)

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        return values[np.newaxis]


ENGINES: dict[str, type[Engine]] = {"horovod": Horovod, "mwms": Mwms, "none": Alone}


def device() -> str:
    """Where this rank's model lies: "cuda" or "cpu"."""
    return "cuda" if tf.config.list_logical_devices("GPU") else "cpu"
