"""What train_keras.py trains: the network, and the data set that feeds it."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf
from colour_images import CLASSES, SHAPE, Images


def cnn() -> keras.Model:
    """The usual first network for CIFAR-10: 122 570 weights."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input(SHAPE, dtype="uint8"),
            layers.Rescaling(1 / 255),
            layers.Conv2D(32, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(64, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(64, activation="relu"),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )


MODELS: dict[str, Callable[[], keras.Model]] = {"cnn": cnn}


def samples(images: Images, seed: int) -> tf.data.Dataset:
    """One image and its label after another, in an order that is new in each epoch.

    The order hangs on the seed alone, so all ranks have the same one to deal from.
    """
    held = tf.data.Dataset.from_tensor_slices((images.pixels, images.labels))
    return held.shuffle(len(images), seed=seed)


def batches(held: tf.data.Dataset, batch_size: int) -> tf.data.Dataset:
    """Whole batches; what is left over is dropped, so every rank has equally many."""
    return held.batch(batch_size, drop_remainder=True).prefetch(tf.data.AUTOTUNE)
