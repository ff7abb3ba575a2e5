"""Image files in class folders, as the benchmarks read them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from hvdtools.bench.programs.common.bad_sample import BadSample
from hvdtools.bench.programs.torch import data as torch_data
from hvdtools.bench.programs.torch.data import dealt
from hvdtools.bench.programs.torch.image_folder import ImageFolder, random_box
from hvdtools.core.errors import HvdtoolsError

COLOURS = {"a": (255, 0, 0), "b": (0, 128, 255), "c": (10, 20, 30)}


def load(folder: Path, batch: int = 2, workers: int = 0) -> Any:
    """A loader of the folder, in float32 for the CPU."""
    wanted = (batch, torch.device("cpu"), torch.float32, workers, 1)
    return torch_data.make("images", str(folder), *wanted).training


def save(file: Path, colour: tuple[int, int, int], size: tuple[int, int] = (40, 30)) -> Path:
    file.parent.mkdir(exist_ok=True)
    Image.new("RGB", size, colour).save(file)
    return file


@pytest.fixture(name="folder")
def _folder(tmp_path: Path) -> Path:
    """Three classes, each of one colour, with four images, and what is no image."""
    for name, colour in COLOURS.items():
        for number in range(3):
            save(tmp_path / name / f"{number}.png", colour)
        save(tmp_path / name / "LAST.JPG", colour)
        (tmp_path / name / "notes.txt").write_text("no image")
    (tmp_path / "README").write_text("no class")
    return tmp_path


@pytest.mark.parametrize("workers", [0, 2])
def test_each_image_comes_with_its_class(folder: Path, workers: int) -> None:
    loader = load(folder, 4, workers)
    labels = []
    mean, spread = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    for images, batch_labels in loader:
        assert images.shape == (4, 3, 224, 224) and images.dtype == torch.float32
        for image, label in zip(images, batch_labels, strict=True):
            colour = torch.tensor(list(COLOURS.values())[int(label)])
            expected = (colour / 255 - mean) / spread
            off = (image - expected.view(3, 1, 1)).abs().max()
            assert off < 0.02 / 0.22  # a JPEG is off by a few of 255
            labels.append(int(label))
    assert sorted(labels) == sorted([0, 1, 2] * 4)


def test_any_kind_of_image_gets_three_colours(tmp_path: Path) -> None:
    for mode in ("L", "P", "CMYK", "RGBA", "1", "I;16"):
        suffix = "jpg" if mode == "CMYK" else "png"
        (tmp_path / "x").mkdir(exist_ok=True)
        Image.new(mode, (5, 9)).save(tmp_path / "x" / f"{mode.replace(';', '')}.{suffix}")
    dataset = ImageFolder(tmp_path, torch.float64)
    assert len(dataset) == 6
    for number in range(6):
        assert dataset[number][0].shape == (3, 224, 224)
        assert dataset[number][0].dtype == torch.float64


def test_a_part_of_an_image_lies_within_it_and_is_as_large_as_said() -> None:
    torch.manual_seed(0)
    for width, height in ((1, 1), (1, 500), (500, 1), (3, 2), (640, 480)):
        for _ in range(200):
            left, top, right, bottom = random_box(width, height)
            assert 0 <= left < right <= width and 0 <= top < bottom <= height
    boxes = np.array([random_box(600, 600) for _ in range(2000)])
    wide, high = (boxes[:, 2:] - boxes[:, :2]).T
    areas = wide * high / 600**2
    assert areas.min() > 0.075 and areas.max() <= 1
    ratios = wide / high
    assert ratios.min() > 0.74 and ratios.max() < 1.35
    # Uniform areas, but for those close to 1 which no longer fit with every ratio.
    assert abs((areas < 0.3).mean() / (areas < 0.52).mean() - 0.5) < 0.05
    assert boxes[:, 0].min() < 10 and boxes[:, 2].max() > 590  # both ends are seen


def test_every_second_image_is_mirrored(tmp_path: Path) -> None:
    image = Image.new("L", (64, 64))
    image.paste(255, (32, 0, 64, 64))
    (tmp_path / "x").mkdir()
    image.save(tmp_path / "x" / "0.png")
    torch.manual_seed(0)
    dataset = ImageFolder(tmp_path, torch.float32)
    cuts = [dataset[0][0][0] for _ in range(200)]
    whole = [cut for cut in cuts if cut[:, 0].mean() != cut[:, -1].mean()]
    mirrored = sum(bool(cut[:, 0].mean() > cut[:, -1].mean()) for cut in whole)
    assert len(whole) > 80 and abs(mirrored / len(whole) - 0.5) < 0.15


def test_an_image_is_cut_anew_in_each_epoch_and_on_each_rank(tmp_path: Path) -> None:
    ramp = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(8, 0))
    for number in range(2):
        (tmp_path / "x").mkdir(exist_ok=True)
        ramp.save(tmp_path / "x" / f"{number}.png")
    loader = load(tmp_path, 1, workers=1)
    cuts = []
    for rank in range(2):
        part = dealt(loader, rank, 2, seed=1)
        cuts += [next(iter(part))[0].numpy().tobytes() for _ in range(2)]
    assert len(set(cuts)) == 4


def truncated(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("name", ["0.png", "LAST.JPG"])
@pytest.mark.parametrize(
    "harm", [truncated, lambda file: file.write_bytes(b""), lambda file: file.unlink()]
)
def test_a_broken_image_is_named(folder: Path, name: str, harm: Any, workers: int) -> None:
    loader = load(folder, 1, workers)
    harm(folder / "b" / name)
    with pytest.raises(BadSample) as error:
        list(loader)
    said = str(error.value)
    assert said.startswith(f"{folder}/b/{name} cannot be read as an image (")
    assert said.endswith("): remove it.") and "\n" not in said


def test_folders_without_images_or_with_too_many_classes(tmp_path: Path) -> None:
    for name in ("empty", "flat", "many"):
        (tmp_path / name).mkdir()
    save(tmp_path / "flat" / "0.png", (0, 0, 0))
    for number in range(1001):
        (tmp_path / "many" / str(number)).mkdir()
    save(tmp_path / "many" / "0" / "0.png", (0, 0, 0))
    for name in ("empty", "flat"):
        with pytest.raises(HvdtoolsError, match=f"no image in .*{name}: name a folder that holds"):
            load(tmp_path / name)
    with pytest.raises(HvdtoolsError, match="1001 class folders and the models name 1000"):
        load(tmp_path / "many")
