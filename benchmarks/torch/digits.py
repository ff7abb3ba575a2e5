"""Small images that lie on the device, so that loading them costs next to nothing."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.data import Dataset

from hvdtools.core.errors import HvdtoolsError

TRAIN_IMAGES = 1440  # of digits' 1797: divides evenly over 1, 2, 3, 4, 6 and 8 ranks
SPLIT_SEED = 0  # the split is the same whatever --seed is, so accuracies compare
CLASSES = 10


def digits() -> tuple[Tensor, Tensor]:
    """Scikit-learn's 1797 handwritten digits, (1797, 1, 8, 8) in 0..1; a file in its package."""
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise HvdtoolsError(
            "The digits come with scikit-learn, which is not installed: `python -m pip install "
            "scikit-learn`, or use synthetic data."
        ) from None
    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(found.target)


def synthetic() -> tuple[Tensor, Tensor]:
    """As many images as `digits`: ten fixed patterns under noise. Needs no scikit-learn."""
    random = torch.Generator().manual_seed(SPLIT_SEED)
    labels = torch.randint(CLASSES, (1797,), generator=random)
    patterns = torch.rand(CLASSES, 1, 8, 8, generator=random)
    return patterns[labels] + 0.3 * torch.randn(1797, 1, 8, 8, generator=random), labels


class Images(Dataset[tuple[Tensor, Tensor]]):
    """Images and labels that lie on the device, indexed by whole batches."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        # One gather a batch; the loader's own way is one indexing an image.
        chosen = torch.tensor(indices, device=self.images.device)
        return self.images[chosen], self.labels[chosen]


def split(
    data: tuple[Tensor, Tensor], device: torch.device, dtype: torch.dtype
) -> tuple[Images, tuple[Tensor, Tensor]]:
    """The training and the test images, on the device."""
    images, labels = data[0].to(device, dtype), data[1].to(device)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    train, test = order[:TRAIN_IMAGES].to(device), order[TRAIN_IMAGES:].to(device)
    return Images(images[train], labels[train]), (images[test], labels[test])
