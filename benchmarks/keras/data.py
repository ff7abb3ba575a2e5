"""The data sets that feed train_keras.py's networks: batches of one rank's part."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from hvdtools.bench.programs.keras.color_images import Images
from hvdtools.bench.programs.keras.workload import Workload


def samples(images: Images, seed: int) -> tf.data.Dataset:
    """One image and its label after another, in an order that is new in each epoch.

    The order hangs on the seed alone, so all ranks have the same one to deal from.
    """
    held = tf.data.Dataset.from_tensor_slices((images.pixels, images.labels))
    return held.shuffle(len(images), seed=seed)


def batches(held: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Whole batches; what is left over is dropped, so every rank has equally many."""
    return held.batch(batch_size, drop_remainder=True)


def every_size_th(workload: Workload, rank: int, size: int) -> tf.data.Dataset:
    """The rank's batches of one pass: of every size-th image, or one of its own."""
    if workload.images is None:
        return own_batch(workload, rank)
    return batches(samples(workload.images, workload.seed).shard(size, rank), workload.batch_size)


def own_batch(workload: Workload, rank: int) -> tf.data.Dataset:
    """A single random batch, another on each rank."""
    assert workload.model.batch is not None
    random = np.random.default_rng([workload.seed, rank])
    return tf.data.Dataset.from_tensors(workload.model.batch(random, workload.batch_size))


def endless(part: tf.data.Dataset) -> tf.data.Dataset:
    """The batches again and again, made ready while the ones before are trained on."""
    return part.repeat().prefetch(tf.data.AUTOTUNE)
