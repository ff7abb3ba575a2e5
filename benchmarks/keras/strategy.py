"""The baseline of train_keras.py: TensorFlow's own strategy for several processes."""

from __future__ import annotations

import json
import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from hvdtools.bench.programs.keras.data import every_size_th
from hvdtools.bench.programs.keras.timing import Pace, loop
from hvdtools.bench.programs.keras.workload import Workload, cross_entropy
from hvdtools.core.topology import read_launch_environment


class Mwms:
    """tf.distribute.MultiWorkerMirroredStrategy in a loop of its own, as its tutorial has it.

    `fit` under this strategy fails on Keras 3 (METHOD.md has its error). Rank r
    listens at MASTER_ADDR:(MASTER_PORT + r), as `start.check_meeting_point` has seen.
    """

    name = "mwms"
    averages = True

    def __init__(self) -> None:
        place = read_launch_environment(os.environ)
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
        self.transport = "nccl" if gpus else "grpc"
        communication = tf.distribute.experimental.CommunicationOptions(
            implementation=tf.distribute.experimental.CommunicationImplementation[way]
        )
        self._strategy = tf.distribute.MultiWorkerMirroredStrategy(
            communication_options=communication
        )

        def of_a_replica(row: tf.Tensor) -> tf.Tensor:
            # A copy, which has a device: the strategy asks where to put the result.
            return tf.distribute.get_replica_context().all_gather(tf.identity(row), axis=0)

        # Traced once for a shape; the strategy's own `gather` is traced anew in every call.
        self._gathered = tf.function(lambda row: self._strategy.run(of_a_replica, args=(row,)))

    def part(self, workload: Workload) -> tf.data.Dataset:
        return every_size_th(workload, self.rank, self.size)

    def train(self, workload: Workload, data: tf.data.Dataset, pace: Pace) -> keras.Model:
        strategy = self._strategy
        with strategy.scope():
            model, optimizer = workload.model_and_optimizer()
            # Keras' own mean under a strategy divides by a float32 number of replicas.
            loss_of = cross_entropy(reduction=None)
            optimizer.build(model.trainable_variables)

        def step_of_a_replica(inputs: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
            with tf.GradientTape() as tape:
                losses = loss_of(targets, model(inputs, training=True))
                # Over the samples of all replicas: their gradients are summed, not averaged.
                loss = tf.reduce_mean(losses) / self.size
            variables = model.trainable_variables
            optimizer.apply(tape.gradient(loss, variables), variables)
            return loss * self.size

        step = tf.function(lambda parts: strategy.run(step_of_a_replica, args=next(parts)))
        dealt = strategy.distribute_datasets_from_function(lambda context: data)
        loop(step, iter(dealt), pace)
        return model

    def allreduces_per_step(self, model: keras.Model) -> int | None:
        return None  # the strategy packs them as it likes

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.asarray(self._gathered(tf.constant(values[np.newaxis])))
