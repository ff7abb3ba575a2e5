"""Networks for images: a small one for digits, and VGG-16 and ResNet-50 as in their papers.

The parameters have the names, the order and the shapes of torchvision's, so that
its trained weights load.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

IMAGENET_CLASSES = 1000
# Convolutions of each of VGG-16's five parts: arXiv:1409.1556, table 1, column D.
_VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
# Blocks and inner channels of each of ResNet-50's four parts: arXiv:1512.03385, table 1.
_RESNET50 = ((3, 64), (4, 128), (6, 256), (3, 512))
_WIDENED = 4  # a block's output has so many times its inner channels


def cnn() -> nn.Module:
    """Images of 1x8x8 -> 10 classes; 151 306 weights."""
    return nn.Sequential(
        nn.Conv2d(1, 32, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )


class Vgg16(nn.Module):
    """Images of 3x224x224 -> 1000 classes; 138 357 544 weights, most of them in one layer."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(*_vgg_layers())
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, 4096),
            nn.ReLU(inplace=True),
            nn.Dropout(0.5),
            nn.Linear(4096, IMAGENET_CLASSES),
        )
        _begin(self)

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return scores


def _vgg_layers() -> Iterator[nn.Module]:
    channels = 3
    for part in _VGG16:
        for wider in part:
            yield nn.Conv2d(channels, wider, 3, padding=1)
            yield nn.ReLU(inplace=True)
            channels = wider
        yield nn.MaxPool2d(2)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions beside a shortcut; the stride is in the 3x3 (version 1.5)."""

    def __init__(self, channels: int, inner: int, stride: int) -> None:
        super().__init__()
        outer = _WIDENED * inner
        self.conv1 = nn.Conv2d(channels, inner, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outer, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or channels != outer:
            shortcut = nn.Conv2d(channels, outer, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outer))

    def forward(self, images: Tensor) -> Tensor:
        inner = self.relu(self.bn1(self.conv1(images)))
        inner = self.relu(self.bn2(self.conv2(inner)))
        shortcut = images if self.downsample is None else self.downsample(images)
        joined: Tensor = self.relu(self.bn3(self.conv3(inner)) + shortcut)
        return joined


class ResNet50(nn.Module):
    """Images of 3x224x224 -> 1000 classes; 25 557 032 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, padding=1)
        channels = 64
        for number, (blocks, inner) in enumerate(_RESNET50, start=1):
            first = Bottleneck(channels, inner, stride=1 if number == 1 else 2)
            channels = _WIDENED * inner
            rest = [Bottleneck(channels, inner, stride=1) for _ in range(blocks - 1)]
            self.add_module(f"layer{number}", nn.Sequential(first, *rest))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, IMAGENET_CLASSES)
        _begin(self)

    def forward(self, images: Tensor) -> Tensor:
        signal = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for number in range(1, len(_RESNET50) + 1):
            signal = self.get_submodule(f"layer{number}")(signal)
        scores: Tensor = self.fc(self.avgpool(signal).flatten(1))
        return scores


def _begin(network: nn.Module) -> None:
    """Random weights before training: He's scale (arXiv:1502.01852), small ones for the scores."""
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def vgg16() -> nn.Module:
    return Vgg16()


def resnet50() -> nn.Module:
    return ResNet50()
