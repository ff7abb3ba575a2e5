"""The ways to train that train_keras.py compares: each trains the same work on every rank."""

from __future__ import annotations

import os
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from hvdtools.bench.programs.common.horovod_moves import transport
from hvdtools.bench.programs.keras.data import batches, every_size_th, own_batch, samples
from hvdtools.bench.programs.keras.strategy import Mwms
from hvdtools.bench.programs.keras.timing import Pace, fit, loop
from hvdtools.bench.programs.keras.workload import Engine, Workload, cross_entropy, device


class Hvdtools:
    """Horovod through hvdtools' adapter, and Keras' own `fit`."""

    name = "hvdtools"
    averages = True

    def __init__(self) -> None:
        # Imported here, so that --engine mwms runs where no Horovod is built.
        import horovod.tensorflow as hvd

        import hvdtools.keras as hvt

        self._hvt = hvt
        topology = hvt.init()
        self.rank, self.size = topology.rank, topology.size
        self.transport = transport(hvd, "tensorflow", on_gpu=device() == "cuda")

    def part(self, workload: Workload) -> tf.data.Dataset:
        if workload.images is None:
            return own_batch(workload, self.rank)
        return self._hvt.shard(
            batches(samples(workload.images, workload.seed), workload.batch_size)
        )

    def train(self, workload: Workload, data: tf.data.Dataset, pace: Pace) -> keras.Model:
        model, optimizer = workload.model_and_optimizer()
        model.compile(self._hvt.prepare(optimizer), cross_entropy(), jit_compile=False)
        fit(model, data, pace, self._hvt.callbacks())
        return model

    def allreduces_per_step(self, model: keras.Model) -> int | None:
        """Counted in a step's gradients traced once more, which does not run."""
        from hvdtools.tensorflow.gradients import average_gradients

        variables = model.trainable_variables
        specs = [tf.TensorSpec(v.shape, v.dtype) for v in variables]
        step = tf.function(lambda *gradients: average_gradients(gradients, variables, "counted"))
        operations = step.get_concrete_function(*specs).graph.get_operations()
        return [operation.type for operation in operations].count("HorovodAllreduce")

    def gather(self, values: NDArray[Any]) -> NDArray[Any]:
        return np.stack(self._hvt.gather(values))


class Horovod(Hvdtools):
    """Plain Horovod: its tape in a loop of one's own.

    Under Keras 3 `horovod.tensorflow.keras.DistributedOptimizer` averages nothing,
    and says nothing: each rank would train a network of its own. The job is joined,
    and values are gathered outside of what is timed, through hvdtools.
    """

    name = "horovod"

    def part(self, workload: Workload) -> tf.data.Dataset:
        return every_size_th(workload, self.rank, self.size)

    def train(self, workload: Workload, data: tf.data.Dataset, pace: Pace) -> keras.Model:
        import horovod.tensorflow as hvd

        model, optimizer = workload.model_and_optimizer()
        loss_of = cross_entropy()
        optimizer.build(model.trainable_variables)
        # Horovod knows TensorFlow's variables, not Keras' own around them.
        weights = [weight.value for weight in model.trainable_variables]
        state = [variable.value for variable in (*model.weights, *optimizer.variables)]
        hvd.broadcast_variables(state, root_rank=0)

        @tf.function  # type: ignore[untyped-decorator]
        def step(parts: Any) -> Any:
            inputs, targets = next(parts)
            with tf.GradientTape() as tape:
                loss = loss_of(targets, model(inputs, training=True))
            gradients = hvd.DistributedGradientTape(tape).gradient(loss, weights)
            optimizer.apply(gradients, model.trainable_variables)
            return loss

        loop(step, iter(data), pace)
        return model

    def allreduces_per_step(self, model: keras.Model) -> int | None:
        return None  # Horovod fuses them as they come


class NoComm(Hvdtools):
    """Keras' own `fit` on each rank's part, and nothing between the ranks while it is timed."""

    name = "no_comm"
    averages = False

    def __init__(self) -> None:
        # Horovod's thread meets the other ranks' once a millisecond, whether or not there is
        # something to send. Here it would cost time of those who are said to send nothing.
        os.environ["HOROVOD_CYCLE_TIME"] = "50"
        super().__init__()
        self.transport = "none"

    def train(self, workload: Workload, data: tf.data.Dataset, pace: Pace) -> keras.Model:
        model, optimizer = workload.model_and_optimizer()
        model.compile(optimizer, cross_entropy(), jit_compile=False)
        fit(model, data, pace, [])
        return model

    def allreduces_per_step(self, model: keras.Model) -> int | None:
        return 0


ENGINES: dict[str, type[Engine]] = {
    "hvdtools": Hvdtools,
    "horovod": Horovod,
    "mwms": Mwms,
    "no_comm": NoComm,
}
