"""Image files in class folders, as ImageNet's training set is usually unpacked."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from hvdtools.bench.programs.common.bad_sample import BadSample
from hvdtools.core.errors import HvdtoolsError

if TYPE_CHECKING:
    from PIL.Image import Image

SIDE = 224
CLASSES = 1000  # of the models that read images
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
# Of ImageNet's colours in 0..1: what the usual recipe takes off and divides by.
_MEAN = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
_SPREAD = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
# The part of an image that is kept: of its area, and width over height. Source: Szegedy et al.,
# Going Deeper with Convolutions, arXiv:1409.4842, section 6.
_AREAS = (0.08, 1.0)
_RATIOS = (3 / 4, 4 / 3)


class ImageFolder(Dataset[tuple[Tensor, int]]):
    """The images in FOLDER/CLASS/NAME.jpg and such, each cut, scaled and mirrored at random.

    A sample is the image, (3, 224, 224) with mean 0 and spread 1 over ImageNet, and
    the number of its class among the folder names in order.

    Args:
        folder: Holds a folder for each class, at most 1000.
        dtype: Of the images.

    Raises:
        HvdtoolsError: Pillow is missing, or there are no images or too many classes.
    """

    def __init__(self, folder: Path, dtype: torch.dtype) -> None:
        _require_pillow()
        self.dtype = dtype
        self.classes = sorted(path.name for path in folder.iterdir() if path.is_dir())
        found = [
            (os.fsencode(file), label)
            for label, name in enumerate(self.classes)
            for file in sorted((folder / name).iterdir())
            if file.suffix.lower() in SUFFIXES
        ]
        if not found:
            raise HvdtoolsError(
                f"There is no image in {folder}: name a folder that holds a folder of "
                f"{', '.join(SUFFIXES)} files for each class."
            )
        if len(self.classes) > CLASSES:
            raise HvdtoolsError(
                f"{folder} holds {len(self.classes)} class folders and the models name "
                f"{CLASSES} classes: leave some out."
            )
        # Arrays: touching a million objects of a list would copy them into every loading process.
        self._files = np.array([file for file, _ in found])
        self._labels = np.array([label for _, label in found])

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, number: int) -> tuple[Tensor, int]:
        """Raises `BadSample` for a file that is no whole image."""
        from PIL import Image

        file = os.fsdecode(bytes(self._files[number]))
        try:
            with Image.open(file) as image:
                pixels = _cut(image.convert("RGB"))
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            # What Pillow raises for broken files, by format (a broken PNG is a SyntaxError).
            said = str(error).replace("\n", " ")
            raise BadSample(f"{file} cannot be read as an image ({said}): remove it.") from None
        return normalised(pixels).to(self.dtype), int(self._labels[number])


def normalised(pixels: Tensor) -> Tensor:
    """(height, width, 3) of 0 to 255 -> (3, height, width) with mean 0 and spread 1."""
    planes = pixels.permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
    return planes.div_(255).sub_(_MEAN).div_(_SPREAD)


def _cut(image: Image) -> Tensor:
    """A random part of the image, scaled to SIDE x SIDE and mirrored every second time."""
    from PIL.Image import Resampling, Transpose

    scaled = image.resize((SIDE, SIDE), Resampling.BILINEAR, box=random_box(*image.size))
    if torch.rand(()) < 0.5:
        scaled = scaled.transpose(Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(scaled))


def random_box(width: int, height: int) -> tuple[int, int, int, int]:
    """Left, top, right and bottom of a random part; the largest middle one if ten do not fit."""
    for _ in range(10):
        area = width * height * torch.empty(()).uniform_(*_AREAS).item()
        log_ratio = torch.empty(()).uniform_(math.log(_RATIOS[0]), math.log(_RATIOS[1])).item()
        wide = round(math.sqrt(area * math.exp(log_ratio)))
        high = round(math.sqrt(area / math.exp(log_ratio)))
        if 0 < wide <= width and 0 < high <= height:
            left = int(torch.randint(width - wide + 1, ()))
            top = int(torch.randint(height - high + 1, ()))
            return left, top, left + wide, top + high
    wide = min(width, max(1, round(height * _RATIOS[1])))
    high = min(height, max(1, round(width / _RATIOS[0])))
    left, top = (width - wide) // 2, (height - high) // 2
    return left, top, left + wide, top + high


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401
    except ImportError:
        raise HvdtoolsError(
            "Images are decoded by Pillow, which is not installed: `python -m pip install pillow`."
        ) from None
