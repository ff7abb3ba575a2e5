"""The images that train_keras.py trains on, all of CIFAR-10's shape. Needs no TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from hvdtools.core.errors import HvdtoolsError

SHAPE = (32, 32, 3)  # height, width, colours
CLASSES = 10
TRAIN_IMAGES = 1440  # of 1797, as in torch/digits.py
SPLIT_SEED = 0  # the split is the same whatever --seed is, so accuracies compare
# A record of CIFAR-10's binary version: a label, then the red, the green and the blue plane.
# Source: the description beside the data set, www.cs.toronto.edu/~kriz/cifar.html.
RECORD_BYTES = 1 + 32 * 32 * 3


@dataclass(frozen=True)
class Images:
    """Images (n, 32, 32, 3), each value 0 to 255, and their labels (n,), 0 to 9."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: NDArray[np.int64]) -> Images:
        return Images(self.pixels[chosen], self.labels[chosen])


def digits() -> Images:
    """Scikit-learn's 1797 handwritten digits, each pixel 4x4 and grey; a file in its package."""
    from sklearn.datasets import load_digits

    found = load_digits()
    grey = np.rint(found.images * (255 / 16)).astype(np.uint8)
    large = grey.repeat(4, axis=1).repeat(4, axis=2)
    return Images(np.repeat(large[..., np.newaxis], 3, axis=3), found.target.astype(np.int64))


def synthetic() -> Images:
    """As many images as `digits`: ten fixed patterns under noise. Needs no scikit-learn."""
    random = np.random.default_rng(SPLIT_SEED)
    labels = random.integers(CLASSES, size=1797)
    patterns = random.uniform(64, 192, (CLASSES, *SHAPE))
    noisy = patterns[labels] + random.normal(0, 48, (1797, *SHAPE))
    return Images(noisy.clip(0, 255).astype(np.uint8), labels)


def cifar10(folder: Path) -> tuple[Images, Images]:
    """The training and the test images of CIFAR-10's binary version, as unpacked.

    Raises:
        HvdtoolsError: A file is missing, or it does not hold whole records.
    """
    parts = [_read(folder / f"data_batch_{number}.bin") for number in range(1, 6)]
    training = Images(
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([part.labels for part in parts]),
    )
    return training, _read(folder / "test_batch.bin")


def _read(file: Path) -> Images:
    if not file.is_file():
        raise HvdtoolsError(
            f"There is no file {file}: name the folder cifar-10-batches-bin of CIFAR-10's binary "
            f"version, or use --data {' or '.join(DATA)}."
        )
    content = np.fromfile(file, np.uint8)
    if len(content) == 0 or len(content) % RECORD_BYTES:
        raise HvdtoolsError(
            f"{file} has {len(content)} bytes, which is no whole number of records of "
            f"{RECORD_BYTES} bytes: it was cut short, so unpack it again."
        )
    records = content.reshape(-1, RECORD_BYTES)
    if records[:, 0].max() >= CLASSES:
        raise HvdtoolsError(
            f"{file} has a label {records[:, 0].max()}, and CIFAR-10's are 0 to 9: it is of "
            "another data set, so name CIFAR-10's folder."
        )
    planes = records[:, 1:].reshape(-1, 3, 32, 32)
    # Copied into one piece: a view on planes would be gathered anew for every batch.
    pixels = np.ascontiguousarray(planes.transpose(0, 2, 3, 1))
    return Images(pixels, records[:, 0].astype(np.int64))


DATA: dict[str, Callable[[], Images]] = {"digits": digits, "synthetic": synthetic}


def load(data: str) -> tuple[Images, Images]:
    """The training and the test images of a name in DATA or of a folder."""
    if data not in DATA:
        return cifar10(Path(data))
    images = DATA[data]()
    order = np.random.default_rng(SPLIT_SEED).permutation(len(images))
    return images[order[:TRAIN_IMAGES]], images[order[TRAIN_IMAGES:]]
