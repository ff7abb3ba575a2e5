"""Writes image files in class folders, for who has no ImageNet at hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hvdtools.core.errors import HvdtoolsError

CLASSES = 10
_COARSE = 16  # pixels from one random colour to the next
_GRAIN = 16  # spread of the noise in each pixel, of 255


def make_images(folder: Path, images: int, pixels: int) -> int:
    """Write that many JPEG files of `pixels` x `pixels` into ten class folders, in turn.

    Soft blots under grain, at quality 90: half a byte a pixel, about what
    photographs have, and so about as long to decode. Flat colours would take a fraction
    of it, and pure noise a multiple.

    Returns:
        The bytes of all files.

    Raises:
        HvdtoolsError: The folder holds something already, or Pillow is missing.
    """
    try:
        from PIL import Image
    except ImportError:
        raise HvdtoolsError(
            "Images are written by Pillow, which is not installed: `python -m pip install pillow`."
        ) from None
    if images < 1 or pixels < 1:
        raise HvdtoolsError(f"{images} images of {pixels} pixels are none: give at least 1 each.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise HvdtoolsError(f"{folder} is there already: name a new or an empty folder.")
    for label in range(min(CLASSES, images)):
        (folder / f"class{label}").mkdir(parents=True)
    written_bytes = 0
    for number in range(images):
        random = np.random.default_rng(number)
        coarse = random.integers(256, size=(2 + pixels // _COARSE,) * 2 + (3,), dtype=np.uint8)
        soft = np.asarray(
            Image.fromarray(coarse).resize((pixels, pixels), Image.Resampling.BICUBIC)
        )
        grain = random.normal(0, _GRAIN, soft.shape)
        image = Image.fromarray((soft + grain).clip(0, 255).astype(np.uint8))
        file = folder / f"class{number % CLASSES}" / f"{number:07d}.jpg"
        image.save(file, quality=90)
        written_bytes += file.stat().st_size
    return written_bytes
