"""What the benchmarks' PyTorch programs are fed: digits, image files, texts, noise."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from hvdtools.bench.programs.common.bad_sample import BadSample
from hvdtools.bench.programs.torch import data as torch_data
from hvdtools.bench.programs.torch import models as torch_models
from hvdtools.bench.programs.torch.data import FixedBatch, dealt, for_ever, on_device
from hvdtools.bench.programs.torch.text import Windows
from hvdtools.core.errors import HvdtoolsError

CPU = torch.device("cpu")
F32 = torch.float32


def make(reads: str, data: object, batch: int = 2, workers: int = 0, **more: Any) -> Any:
    """The training data, in float32 on the CPU, with seed 1."""
    return torch_data.make(reads, str(data), batch, CPU, F32, workers, 1, **more).training


# -- names -------------------------------------------------------------------


@pytest.mark.parametrize("reads", torch_models.READS)
def test_unknown_data_lists_the_known(reads: str) -> None:
    known = torch_models.names(reads)
    with pytest.raises(HvdtoolsError, match="Unknown data 'cats'") as error:
        make(reads, "cats")
    listed = str(error.value).rpartition("choose one of ")[2]
    assert set(known) <= set(listed.rstrip(".").split(", "))
    assert ("the path" in listed) == (reads not in ("digits", "vectors"))
    for name in known:
        assert next(iter(make(reads, name)))


def test_an_unknown_kind_of_input_lists_the_known() -> None:
    with pytest.raises(HvdtoolsError, match="Unknown kind of input 'sound': choose one of bytes"):
        torch_models.names("sound")


def test_a_file_is_no_folder_and_a_folder_no_text(tmp_path: Path) -> None:
    (tmp_path / "README").write_text("no class")
    with pytest.raises(HvdtoolsError, match="the path of a folder of class folders"):
        make("images", tmp_path / "README")
    with pytest.raises(HvdtoolsError, match="the path of a file"):
        make("bytes", tmp_path)


# -- in memory ---------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "synthetic"])
def test_digits_are_split_the_same_way_always(name: str) -> None:
    data = torch_data.make("digits", name, 45, CPU, torch.float64, 3, 1)
    images, labels = data.test
    assert images.shape == (357, 1, 8, 8) and images.dtype == torch.float64
    assert len(data.training) == 32 and data.training.num_workers == 0
    batches = list(data.training)
    assert all(batch.shape == (45, 1, 8, 8) for batch, _ in batches)
    trained = torch.cat([batch for batch, _ in batches])
    assert (
        len({image.numpy().tobytes() for image in trained} & {i.numpy().tobytes() for i in images})
        == 0
    )
    other = torch_data.make("digits", name, 45, CPU, torch.float64, 0, 2)
    assert torch.equal(other.test[0], images) and torch.equal(other.test[1], labels)
    assert not torch.equal(next(iter(other.training))[1], batches[0][1])


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("PIL", "PIL.Image", "sklearn", "sklearn.datasets"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(HvdtoolsError, match=r"Pillow, which is not installed: .* install pillow"):
        make("images", tmp_path)
    with pytest.raises(HvdtoolsError, match="scikit-learn, which is not installed"):
        make("digits", "digits")


@pytest.mark.parametrize(
    ("reads", "shape", "classes"),
    [("images", (3, 224, 224), 1000), ("vectors", (1024,), 1024), ("bytes", (128,), 256)],
)
def test_a_fixed_batch_never_changes(reads: str, shape: tuple[int, ...], classes: int) -> None:
    training = make(reads, "synthetic", 5)
    assert isinstance(training, FixedBatch) and training.batch_size == 5
    first, second = (batch for batch, _ in zip(for_ever(training), range(2), strict=False))
    assert first[0] is second[0] and first[1] is second[1]
    assert first[0].shape == (5, *shape) and int(first[1].max()) < classes
    assert torch.equal(make(reads, "synthetic", 5).inputs, training.inputs)
    other = torch_data.make(reads, "synthetic", 5, CPU, torch.float64, 0, 2).training
    assert not torch.equal(other.inputs.float(), training.inputs.float())
    assert other.inputs.dtype == (torch.int64 if reads == "bytes" else torch.float64)


# -- texts -------------------------------------------------------------------


def test_a_text_is_read_once_in_an_epoch(tmp_path: Path) -> None:
    text = bytes(range(256)) * 2
    (tmp_path / "text").write_bytes(text)
    loader = make("bytes", tmp_path / "text", 1, workers=2, sequence=10)
    begun = []
    for inputs, targets in loader:
        assert inputs.shape == targets.shape == (1, 10) and inputs.dtype == torch.int64
        assert torch.equal(inputs[0, 1:], targets[0, :-1])
        window = bytes([*inputs[0].tolist(), int(targets[0, -1])])
        assert window in text
        begun.append(text.index(window))
    assert len(begun) == 51  # (512 - 1) // 10
    assert begun != sorted(begun) and {place % 2 for place in begun} == {0}


def test_a_bin_file_holds_16_bit_tokens(tmp_path: Path) -> None:
    file = tmp_path / "text.bin"
    np.array([1, 256, 50256, 7], "<u2").tofile(file)
    assert file.read_bytes()[:4] == b"\x01\x00\x00\x01"
    ((inputs, targets),) = make("tokens", file, 1, sequence=3)
    assert inputs.tolist() == [[1, 256, 50256]] and targets.tolist() == [[256, 50256, 7]]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_token_that_the_model_does_not_know_is_named(tmp_path: Path, workers: int) -> None:
    for reads, token in (("bytes", 256), ("tokens", 50257)):
        file = tmp_path / "text.bin"
        np.array([1, token, 2], "<u2").tofile(file)
        with pytest.raises(BadSample) as error:
            list(make(reads, file, 1, workers, sequence=2))
        assert str(error.value).startswith(f"{file} has a token {token}, and the model knows 0 to")


def test_texts_and_sequences_of_a_wrong_length(tmp_path: Path) -> None:
    file = tmp_path / "text"
    for size in (0, 1, 10):
        file.write_bytes(b"x" * size)
        with pytest.raises(
            HvdtoolsError, match=f"has {size} tokens, too few for one sequence of 10"
        ):
            make("bytes", file, sequence=10)
    file.write_bytes(b"x" * 11)
    assert len(Windows(file, 10, 256)) == 1
    for data in ("synthetic", file):
        for reads, sequence in (("bytes", 257), ("tokens", 1025), ("bytes", 0)):
            with pytest.raises(HvdtoolsError, match=f"sequence of {sequence} tokens is not what"):
                make(reads, data, sequence=sequence)
    with pytest.raises(HvdtoolsError, match="reads images has no sequence length"):
        make("images", "synthetic", sequence=4)


def test_a_text_is_sent_to_a_loading_process_without_its_content(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"x" * 100_000)
    loader = make("bytes", tmp_path / "text", 2, workers=1)
    next(iter(loader))
    assert len(pickle.dumps(loader.dataset)) < 2000


# -- for all -----------------------------------------------------------------


@pytest.fixture(name="numbers")
def _numbers(tmp_path: Path) -> DataLoader[Any]:
    """A loader of windows that begin with 0, 2, 4 to 22."""
    (tmp_path / "numbers").write_bytes(bytes(range(25)))
    return make("bytes", tmp_path / "numbers", 2, sequence=2)  # type: ignore[no-any-return]


def begins(batches: Iterator[Any]) -> list[int]:
    return [int(begin) // 2 for inputs, _ in batches for begin in inputs[:, 0]]


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_share_all_samples(numbers: DataLoader[Any], ranks: int) -> None:
    parts = [dealt(numbers, rank, ranks, seed=1) for rank in range(ranks)]
    dealt_out = [begins(iter(part)) for part in parts]
    assert sorted(chain.from_iterable(dealt_out)) == list(range(12))
    assert len({len(part) for part in dealt_out}) == 1


def test_epoch_after_epoch_each_in_another_order(numbers: DataLoader[Any]) -> None:
    batches = for_ever(dealt(numbers, 0, 1, seed=1))
    epochs = [begins(next(batches) for _ in range(6)) for _ in range(3)]
    assert all(sorted(epoch) == list(range(12)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2]


def test_data_too_few_for_a_batch_on_each_rank_do_not_spin(numbers: DataLoader[Any]) -> None:
    with pytest.raises(HvdtoolsError, match="less than a batch of 2"):
        next(for_ever(dealt(numbers, 0, 7, seed=1)))


def test_images_are_laid_out_as_asked() -> None:
    batch = make("images", "synthetic", 2)
    inputs, targets = on_device((batch.inputs, batch.targets), CPU, channels_last=True)
    assert inputs.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(inputs, batch.inputs) and torch.equal(targets, batch.targets)
    assert on_device((batch.inputs, batch.targets), CPU)[0].is_contiguous()
