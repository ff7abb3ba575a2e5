"""The yardstick of train_keras.py: TensorFlow's own strategy for several processes."""

from __future__ import annotations

import json
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras_model import batches, samples
from keras_work import LOSS, Clock, Trained, Work
from numpy.typing import NDArray

from hvdtools.errors import HvdtoolsError
from hvdtools.topology import promised


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
