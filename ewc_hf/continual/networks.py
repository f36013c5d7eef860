"""The two networks of Kutalev & Lapina 2021 (arXiv 2109.10021), section 2."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise

from torch import Tensor, nn


class Perceptron(nn.Sequential):
    """Fully connected layers with leaky ReLU between them; the paper's are 784-300-150-10."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        layers: dict[str, nn.Module] = {"flatten": nn.Flatten()}
        for number, (inputs, outputs) in enumerate(pairwise(sizes), 1):
            layers |= {f"layer{number}": nn.Linear(inputs, outputs), f"relu{number}": nn.LeakyReLU()}
        layers.popitem()
        super().__init__(OrderedDict(layers))

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, [B, classes], of pictures, [B, H, W]."""
        return super().forward(images)


class ConvNet(nn.Module):
    """Three convolutions with batch normalization, and a linear layer.

    Args:
        side: of the square pictures, in pixels; the paper's are 28.
        channels: of the convolutions; the paper's are 64, 128 and 256.
        num_classes: how many there are.
    """

    def __init__(self, side: int = 28, channels: tuple[int, int, int] = (64, 128, 256), num_classes: int = 10) -> None:
        super().__init__()
        first, second, third = channels
        kernel = 5 if side >= 28 else 3
        left = (side - kernel + 1) // 2 - 4
        self.convolutions = nn.Sequential(
            OrderedDict(
                conv1=nn.Conv2d(1, first, kernel), norm1=nn.BatchNorm2d(first), relu1=nn.LeakyReLU(),
                pool=nn.MaxPool2d(2),
                conv2=nn.Conv2d(first, second, 3), norm2=nn.BatchNorm2d(second), relu2=nn.LeakyReLU(),
                conv3=nn.Conv2d(second, third, 3), norm3=nn.BatchNorm2d(third), relu3=nn.LeakyReLU(),
            )
        )  # fmt: skip
        self.classifier = nn.Linear(third * left * left, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits, [B, classes], of pictures, [B, H, W]."""
        return self.classifier(self.convolutions(images[:, None]).flatten(1))
