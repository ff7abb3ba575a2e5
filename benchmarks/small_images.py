"""What train_torch.py trains: small images and the networks that read them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, DistributedSampler

TRAIN_IMAGES = 1440  # of digits' 1797: divides evenly over 1, 2, 3, 4, 6 and 8 ranks
SPLIT_SEED = 0  # the split is the same whatever --seed is, so accuracies compare
CLASSES = 10

Batch = tuple[Tensor, Tensor]
Loader = DataLoader[Batch]


def cnn() -> nn.Module:
    """Images of 1x8x8 -> 10 classes; 151 000 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
        nn.ReLU(),
        nn.Linear(128, CLASSES),
    )


def digits() -> Batch:
    """Scikit-learn's 1797 handwritten digits, (1797, 1, 8, 8) in 0..1; a file in its package."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.tensor(found.images, dtype=torch.float32).unsqueeze(1) / 16
    return images, torch.tensor(found.target)


def synthetic() -> Batch:
    """As many images as `digits`: ten fixed patterns under noise. Needs no scikit-learn."""
    random = torch.Generator().manual_seed(SPLIT_SEED)
    labels = torch.randint(CLASSES, (1797,), generator=random)
    patterns = torch.rand(CLASSES, 1, 8, 8, generator=random)
    return patterns[labels] + 0.3 * torch.randn(1797, 1, 8, 8, generator=random), labels


MODELS = {"cnn": cnn}
DATA = {"digits": digits, "synthetic": synthetic}


class Images(Dataset[Batch]):
    """Images and labels that lie on the device, indexed by whole batches."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.images, self.labels = images, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitems__(self, indices: list[int]) -> Batch:
        # One gather a batch; the loader's own way is one indexing an image.
        chosen = torch.tensor(indices, device=self.images.device)
        return self.images[chosen], self.labels[chosen]


def as_is(batch: Any) -> Any:
    """The collation of what is a batch already."""
    return batch


def batches(
    images: Images, batch_size: int, part: DistributedSampler[Batch] | None = None
) -> Loader:
    """Batches of equal size, reshuffled each epoch, of all images or of one part of them."""
    return DataLoader(
        images,
        batch_size,
        sampler=part,
        shuffle=None if part else True,
        drop_last=True,
        collate_fn=as_is,
    )


def split(
    data: Batch, device: torch.device, dtype: torch.dtype = torch.float32
) -> tuple[Images, Images]:
    """The training and the test images, on the device."""
    images, labels = data[0].to(device, dtype), data[1].to(device)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SPLIT_SEED))
    train, test = order[:TRAIN_IMAGES].to(device), order[TRAIN_IMAGES:].to(device)
    return Images(images[train], labels[train]), Images(images[test], labels[test])
