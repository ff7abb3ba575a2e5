"""The networks that train_keras.py trains, each with what it reads and its usual optimizer.

Programs read the names here before they import Keras, so this imports it only where a network or an
optimizer is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hvdtools.bench.programs.common.gpt_shapes import GPT_124M, GPT_350M, GPT_MINI, Shape
from hvdtools.bench.programs.keras.color_images import CLASSES, SHAPE

if TYPE_CHECKING:
    import keras

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
            trains on the images of `color_images`.
    """

    make: Callable[[], keras.Model]
    optimizer: Callable[[float], keras.Optimizer]
    batch: MakeBatch | None = None


def cnn() -> keras.Model:
    """The usual first network for CIFAR-10: 122 570 weights."""
    from keras import Input, Sequential, layers

    return Sequential(
        [
            Input(SHAPE, dtype="uint8"),
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
    return _application("ResNet50")


def vgg16() -> keras.Model:
    """Keras' own VGG-16 on 224x224 pixels: 138 357 544 weights, most of them in one layer."""
    return _application("VGG16")


def _application(name: str) -> keras.Model:
    import keras

    make: Callable[..., keras.Model] = getattr(keras.applications, name)
    pixels = keras.Input(IMAGENET_SHAPE, dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels)
    return make(weights=None, input_tensor=scaled, classifier_activation=None)


def _pictures(random: np.random.Generator, samples: int) -> Batch:
    """Pixels (samples, 224, 224, 3), 0 to 255, and their classes."""
    pixels = random.integers(256, size=(samples, *IMAGENET_SHAPE), dtype=np.uint8)
    return pixels, random.integers(IMAGENET_CLASSES, size=samples)


def _sgd(lr: float) -> keras.Optimizer:
    """As the papers of VGG and ResNet have it."""
    from keras.optimizers import SGD

    return SGD(lr, momentum=0.9)


def _adam(lr: float) -> keras.Optimizer:
    from keras.optimizers import Adam

    return Adam(lr)


def _adamw(lr: float) -> keras.Optimizer:
    """AdamW with the constants of GPT-3 (arXiv:2005.14165, appendix B).

    Matrices decay; biases and the scales of LayerNorm do not.
    """
    from keras.optimizers import AdamW

    optimizer = AdamW(lr, weight_decay=0.1, beta_2=0.95)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def _gpt(shape: Shape) -> Model:
    def make() -> keras.Model:
        from hvdtools.bench.programs.keras.gpt import gpt

        return gpt(shape)

    def texts(random: np.random.Generator, samples: int) -> Batch:
        """Tokens (samples, longest), and the one that follows each."""
        tokens = random.integers(shape.vocabulary, size=(samples, shape.longest + 1))
        return tokens[:, :-1].astype(np.int32), tokens[:, 1:].astype(np.int32)

    return Model(make, _adamw, texts)


MODELS = {
    "cnn": Model(cnn, _adam),
    "resnet50": Model(resnet50, _sgd, _pictures),
    "vgg16": Model(vgg16, _sgd, _pictures),
    "gpt-mini": _gpt(GPT_MINI),
    "gpt-124m": _gpt(GPT_124M),
    "gpt-350m": _gpt(GPT_350M),
}
