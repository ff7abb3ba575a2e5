"""What train_torch.py trains on, by what a model reads and the name of the data."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from hvdtools.bench.programs.torch import digits as digits_data
from hvdtools.bench.programs.torch.image_folder import CLASSES, SIDE, ImageFolder
from hvdtools.bench.programs.torch.mlp import WIDTH
from hvdtools.bench.programs.torch.models import check_data, names
from hvdtools.bench.programs.torch.text import Windows
from hvdtools.core.errors import HvdtoolsError

Batch = tuple[Tensor, Tensor]
Loader = DataLoader[Batch]
# What a model reads -> (different tokens, tokens of the longest text, of a text if nothing is said)
TEXTS = {"bytes": (256, 256, 128), "tokens": (50257, 1024, 1024)}


@dataclass(frozen=True)
class FixedBatch:
    """One batch that lies on the device and is handed out for ever: loading costs nothing.

    Attributes:
        inputs, targets: As many of each as a batch has samples.
    """

    inputs: Tensor
    targets: Tensor

    @property
    def batch_size(self) -> int:
        return len(self.targets)

    def __iter__(self) -> Iterator[Batch]:
        return itertools.repeat((self.inputs, self.targets))


@dataclass(frozen=True)
class Data:
    """What is trained on, and tested on.

    Attributes:
        training: All ranks' samples in batches of one rank, which an engine shards;
            or one batch for ever. Batches of files lie on the CPU, see `on_device`.
        test: Inputs and targets on the device; None without a test set.
    """

    training: Loader | FixedBatch
    test: Batch | None


def make(
    reads: str,
    data: str,
    batch_size: int,
    device: torch.device,
    dtype: torch.dtype,
    workers: int,
    seed: int,
    sequence: int | None = None,
) -> Data:
    """The data with this name, or in the file or folder with this path.

    Args:
        reads: What the model reads, one of `models.READS`.
        data: One of `names(reads)`; for images also a folder of class folders, for
            texts also a file.
        batch_size: Samples that one rank gets in a step.
        device: Where training computes.
        dtype: Of images and vectors. Tokens and labels are int64.
        workers: Loading processes of each rank, for files; what lies on the device has none.
        seed: Of the order and of synthetic samples.
        sequence: Tokens of a text; None for 128 ("bytes") or 1024 ("tokens").

    Raises:
        HvdtoolsError: There is no such data, or it cannot be read.
    """
    if sequence is not None and reads not in TEXTS:
        raise HvdtoolsError(f"A model that reads {reads} has no sequence length: leave it out.")
    check_data(reads, data)
    if data not in names(reads):
        dataset = _of_files(reads, data, dtype, sequence)
        return Data(_loader(dataset, batch_size, workers, seed, device.type == "cuda"), None)
    if reads == "digits":
        found = digits_data.digits() if data == "digits" else digits_data.synthetic()
        images, test = digits_data.split(found, device, dtype)
        return Data(_loader(images, batch_size, 0, seed, False, collate_fn=_as_is), test)
    inputs, targets = _synthetic(reads, batch_size, sequence, seed)
    if inputs.is_floating_point():
        inputs = inputs.to(dtype)
    return Data(FixedBatch(inputs.to(device), targets.to(device)), None)


def _of_files(reads: str, data: str, dtype: torch.dtype, sequence: int | None) -> Dataset[Any]:
    if reads == "images":
        return ImageFolder(Path(data), dtype)
    return Windows(Path(data), _tokens_in_sample(reads, sequence), TEXTS[reads][0])


def _tokens_in_sample(reads: str, sequence: int | None) -> int:
    _, longest, usual = TEXTS[reads]
    tokens = usual if sequence is None else sequence
    if not 1 <= tokens <= longest:
        raise HvdtoolsError(
            f"A sequence of {tokens} tokens is not what the model reads: give 1 to {longest}."
        )
    return tokens


def _synthetic(reads: str, batch_size: int, sequence: int | None, seed: int) -> Batch:
    """Noise of the right shape, on the CPU: the same on every device."""
    random = torch.Generator().manual_seed(seed)
    if reads in TEXTS:
        tokens = _tokens_in_sample(reads, sequence)
        text = torch.randint(TEXTS[reads][0], (batch_size, tokens + 1), generator=random)
        return text[:, :-1].contiguous(), text[:, 1:].contiguous()
    shape, classes = ((3, SIDE, SIDE), CLASSES) if reads == "images" else ((WIDTH,), WIDTH)
    inputs = torch.randn(batch_size, *shape, generator=random)
    return inputs, torch.randint(classes, (batch_size,), generator=random)


def _as_is(batch: Any) -> Any:
    """The collation of what is a batch already."""
    return batch


def _loader(
    dataset: Dataset[Any],
    batch_size: int,
    workers: int,
    seed: int,
    pin_memory: bool,
    collate_fn: Callable[[Any], Any] | None = None,
) -> Loader:
    """Batches of equal size, reshuffled in each epoch."""
    return DataLoader(
        dataset,
        batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,  # an epoch begins without starting them anew
        pin_memory=pin_memory,
        collate_fn=collate_fn,
        generator=torch.Generator().manual_seed(seed),
    )


def dealt(loader: Loader, rank: int, ranks: int, seed: int) -> Loader:
    """This rank's part of the loader, by PyTorch's own sampler: for who has no engine to shard.

    What does not divide by the ranks is left out. Call `sampler.set_epoch` before each epoch.
    """
    part: DistributedSampler[Batch] = DistributedSampler(
        loader.dataset, ranks, rank, seed=seed, drop_last=True
    )
    return DataLoader(
        loader.dataset,
        loader.batch_size,
        sampler=part,
        drop_last=True,
        num_workers=loader.num_workers,
        persistent_workers=loader.persistent_workers,
        pin_memory=loader.pin_memory,
        collate_fn=loader.collate_fn,
        # The loading processes draw from it how to cut an image: not alike on all ranks.
        generator=torch.Generator().manual_seed(seed + rank),
    )


def for_ever(training: Loader | FixedBatch) -> Iterator[Batch]:
    """Batch after batch; when an epoch has ended the next begins, and the wait is the caller's.

    Raises:
        HvdtoolsError: A whole epoch is too short for one batch.
    """
    for epoch in itertools.count():
        if isinstance(training, DataLoader) and isinstance(training.sampler, DistributedSampler):
            training.sampler.set_epoch(epoch)
        batch = None
        for batch in training:
            yield batch
        if batch is None:
            raise HvdtoolsError(
                f"A rank's part of the data is less than a batch of {training.batch_size}: bring "
                "more data, or use a smaller batch or fewer ranks."
            )


def on_device(batch: Batch, device: torch.device, *, channels_last: bool = False) -> Batch:
    """The batch where training computes; the host does not wait for a copy of pinned memory."""
    inputs, targets = (tensor.to(device, non_blocking=True) for tensor in batch)
    if channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    return inputs, targets
