"""The ways to train that train_keras.py compares: each trains the same work on every rank."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf
from keras_model import batches, samples
from keras_strategy import Mwms
from keras_work import LOSS, Clock, Engine, Trained, Work
from numpy.typing import NDArray


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
