"""The colors of the page have enough contrast, and color-blind readers can tell them apart."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray

from hvdtools.bench.report.palette import MARKS, PAGE, PHASES, mark_of
from hvdtools.bench.suite.engines import FAMILIES, as_it_ran

Floats = NDArray[np.float64]

# Machado, Oliveira and Fernandes, "A Physiologically-based Model for Simulation of Color Vision
# Deficiency", IEEE Trans. Vis. Comput. Graph. 15(6), 2009, table 1, severity 1; on linear RGB.
VISIONS = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = np.array([0.9505, 1.0, 1.089])


def linear(color: str) -> Floats:
    values = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)]) / 255
    return np.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """As WCAG 2.2 defines it."""
    light = sorted(float(linear(color) @ [0.2126, 0.7152, 0.0722]) for color in (one, other))
    return (light[1] + 0.05) / (light[0] + 0.05)


def lab(rgb: Floats) -> Floats:
    """CIELAB of linear RGB; a distance of 2.3 is just noticeable."""
    xyz = _XYZ @ np.clip(rgb, 0, 1) / _WHITE
    curved = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = curved
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def distance(one: str, other: str, vision: str) -> float:
    seen = [lab(VISIONS[vision] @ linear(color)) for color in (one, other)]
    return float(np.linalg.norm(seen[0] - seen[1]))


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_a_contrast_of_4_5_and_a_mark_of_3(dark: bool) -> None:
    for name in ("ink", "soft", "accent", "alarm"):
        for ground in ("paper", "panel"):
            assert contrast(PAGE[name][dark], PAGE[ground][dark]) >= 4.5, (name, ground)
    for name, pair in (MARKS | PHASES).items():
        assert contrast(pair[dark], PAGE["panel"][dark]) >= 3, name


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("vision", VISIONS)
def test_color_blind_readers_can_tell_engines_apart(vision: str, dark: bool) -> None:
    for name, family in FAMILIES.items():
        ran = [as_it_ran(name, each, known.transport) for each, known in family.engines.items()]
        marks = [mark_of(engine) for engine in ran]
        assert len({mark.shape for mark in marks}) == len(marks)  # shapes differ, too
        for one, other in itertools.combinations(marks, 2):
            colors = [MARKS[mark.name][dark] for mark in (one, other)]
            assert distance(*colors, vision) > 10, (one, other)


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("vision", VISIONS)
def test_color_blind_readers_can_tell_neighboring_phases_apart(vision: str, dark: bool) -> None:
    for one, other in itertools.pairwise(PHASES):
        assert distance(PHASES[one][dark], PHASES[other][dark], vision) > 7, (one, other)


def test_an_engine_has_the_same_color_with_every_transport() -> None:
    assert mark_of("ddp-gloo").name == mark_of("ddp-nccl").name == mark_of("ddp").name
    assert mark_of("hvdtools-mpi+nccl").name == "hvdtools-mpi"
    assert mark_of("hvdtools-mpi+nccl").hollow and not mark_of("hvdtools-mpi").hollow
    for family in FAMILIES.values():
        for engine in family.engines:
            mark_of(engine)
