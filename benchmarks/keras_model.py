"""The networks that train_keras.py trains, each with what it reads and its usual optimizer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from colour_images import CLASSES, SHAPE
from gpt_shapes import GPT_124M, GPT_350M, GPT_MINI, Shape
from keras_gpt import gpt
from numpy.typing import NDArray

IMAGENET_SHAPE, IMAGENET_CLASSES = (224, 224, 3), 1000

Batch = tuple[NDArray[Any], NDArray[Any]]
# (random numbers, samples) -> inputs and targets, each with one row a sample
MakeBatch = Callable[[np.random.Generator, int], Batch]


@dataclass(frozen=True)
class Model:
    """A network of the benchmarks.

    Attributes:
        make: Builds it from Keras' random numbers.
        optimizer: Makes its optimizer from a learning rate.
        batch: Makes the random batch that it trains on; None for a network that
            trains on the images of `colour_images`.
    """

    make: Callable[[], keras.Model]
    optimizer: Callable[[float], keras.Optimizer]
    batch: MakeBatch | None = None


def cross_entropy(reduction: str | None = "sum_over_batch_size") -> keras.Loss:
    """Of targets (B,) or (B, T) and scores (B, C) or (B, T, V), in nats.

    Worked out in float32, or in float64 where the network is.

    Args:
        reduction: None for one a target instead of their mean.
    """
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction=reduction)


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
            layers.Dense(CLASSES),
        ]
    )


def resnet50() -> keras.Model:
    """Keras' own ResNet-50 on 224x224 pixels: 25 583 592 trained weights."""
    return _application(keras.applications.ResNet50)


def vgg16() -> keras.Model:
    """Keras' own VGG-16 on 224x224 pixels: 138 357 544 weights, most of them in one layer."""
    return _application(keras.applications.VGG16)


def _application(make: Callable[..., keras.Model]) -> keras.Model:
    pixels = keras.Input(IMAGENET_SHAPE, dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    return make(weights=None, input_tensor=scaled, classifier_activation=None)


def _pictures(random: np.random.Generator, samples: int) -> Batch:
    """Pixels (samples, 224, 224, 3), 0 to 255, and their classes."""
    pixels = random.integers(256, size=(samples, *IMAGENET_SHAPE), dtype=np.uint8)
    return pixels, random.integers(IMAGENET_CLASSES, size=samples)


def _sgd(lr: float) -> keras.Optimizer:
    """As the papers of VGG and ResNet have it."""
    return keras.optimizers.SGD(lr, momentum=0.9)


def _adamw(lr: float) -> keras.Optimizer:
    """AdamW with the constants of GPT-3 (arXiv:2005.14165, appendix B).

    Matrices decay; biases and the scales of LayerNorm do not.
    """
    optimizer = keras.optimizers.AdamW(lr, weight_decay=0.1, beta_2=0.95)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _gpt(shape: Shape) -> Model:
    def texts(random: np.random.Generator, samples: int) -> Batch:
        """Tokens (samples, longest), and the one that follows each."""
        tokens = random.integers(shape.vocabulary, size=(samples, shape.longest + 1))
        return tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32)

    return Model(lambda: gpt(shape), _adamw, texts)


MODELS = {
    "cnn": Model(cnn, keras.optimizers.Adam),
    "resnet50": Model(resnet50, _sgd, _pictures),
    "vgg16": Model(vgg16, _sgd, _pictures),
    "gpt-mini": _gpt(GPT_MINI),
    "gpt-124m": _gpt(GPT_124M),
    "gpt-350m": _gpt(GPT_350M),
}
