"""The nets of bench_training.py as somebody writes them in PyTorch: its own modules, optimizer and loss.

Modules stand in the order of the prototxts' layers, so that parameters can be copied one by one.
"""

from __future__ import annotations

from typing import Any

import torch
from nets.googlenet import MODULES, SIDE_LOSSES
from torch import nn

__all__ = ["NETS", "PlainTraining"]

IN_PLACE = True


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2, 2), nn.Conv2d(20, 50, 5), nn.MaxPool2d(2, 2), nn.Flatten(),
        nn.Linear(800, 500), nn.ReLU(IN_PLACE), nn.Linear(500, 10),
    )  # fmt: skip


def cifar10_quick() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 32, 5, padding=2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.ReLU(IN_PLACE),
        nn.Conv2d(32, 32, 5, padding=2), nn.ReLU(IN_PLACE), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(32, 64, 5, padding=2), nn.ReLU(IN_PLACE), nn.AvgPool2d(3, 2, ceil_mode=True),
        nn.Flatten(), nn.Linear(1024, 64), nn.Linear(64, 10),
    )  # fmt: skip


def caffenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4), nn.ReLU(IN_PLACE), nn.MaxPool2d(3, 2), nn.LocalResponseNorm(5),
        nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU(IN_PLACE), nn.MaxPool2d(3, 2), nn.LocalResponseNorm(5),
        nn.Conv2d(256, 384, 3, padding=1), nn.ReLU(IN_PLACE),
        nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU(IN_PLACE),
        nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU(IN_PLACE), nn.MaxPool2d(3, 2), nn.Flatten(),
        nn.Linear(9216, 4096), nn.ReLU(IN_PLACE), nn.Dropout(0.5),
        nn.Linear(4096, 4096), nn.ReLU(IN_PLACE), nn.Dropout(0.5), nn.Linear(4096, 1000),
    )  # fmt: skip


class GoogLeNet(nn.Module):
    """Scores, and in training those of the two inner classifiers before them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            *conv(3, 64, 7, stride=2, padding=3), pool(2), nn.LocalResponseNorm(5),
            *conv(64, 64, 1), *conv(64, 192, 3, padding=1), nn.LocalResponseNorm(5), pool(2),
        )  # fmt: skip
        self.stages = nn.ModuleDict()
        channels = 192
        for name, widths in MODULES.items():
            self.stages[name] = Inception(channels, widths)
            channels = widths[0] + widths[2] + widths[4] + widths[5]
            if name in SIDE_LOSSES:
                self.stages[SIDE_LOSSES[name]] = side_classifier(channels)
        self.head = nn.Sequential(nn.AvgPool2d(7, 1), nn.Flatten(), nn.Dropout(0.4), nn.Linear(1024, 1000))
        self.pool = pool(2)

    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        x, scores = self.stem(x), []
        for name, stage in self.stages.items():
            if name in MODULES:
                x = stage(x)
            else:
                scores.append(stage(x))
            if name in ("3b", "4e"):
                x = self.pool(x)
        return [*scores, self.head(x)]


class Inception(nn.Module):
    """Four branches, joined along the channels."""

    def __init__(self, channels: int, widths: tuple[int, int, int, int, int, int]) -> None:
        super().__init__()
        one, three_reduce, three, five_reduce, five, projection = widths
        self.branches = nn.ModuleList(
            [
                nn.Sequential(*conv(channels, one, 1)),
                nn.Sequential(*conv(channels, three_reduce, 1), *conv(three_reduce, three, 3, padding=1)),
                nn.Sequential(*conv(channels, five_reduce, 1), *conv(five_reduce, five, 5, padding=2)),
                nn.Sequential(pool(1, padding=1), *conv(channels, projection, 1)),
            ]
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


def conv(channels: int, num_output: int, kernel: int, **convolution: int) -> tuple[nn.Module, nn.Module]:
    """A convolution and its ReLU."""
    return nn.Conv2d(channels, num_output, kernel, **convolution), nn.ReLU(IN_PLACE)


def pool(stride: int, padding: int = 0) -> nn.Module:
    """3 x 3 max pooling."""
    return nn.MaxPool2d(3, stride, padding, ceil_mode=True)


def side_classifier(channels: int) -> nn.Module:
    """A small classifier on an inner module."""
    return nn.Sequential(
        nn.AvgPool2d(5, 3, ceil_mode=True), *conv(channels, 128, 1), nn.Flatten(),
        nn.Linear(2048, 1024), nn.ReLU(IN_PLACE), nn.Dropout(0.7), nn.Linear(1024, 1000),
    )  # fmt: skip


NETS = {"lenet": lenet, "cifar10_quick": cifar10_quick, "caffenet": caffenet, "googlenet": GoogLeNet}


class PlainTraining:
    """A net and its optimizer.

    Args:
        name: of NETS.
        parameters: arrays to begin with, in the order of the prototxt.
        images, labels: the batch that each step takes.
        layout: torch.contiguous_format or torch.channels_last, of parameters and images.
        sgd: rate, momentum and decay, as torch.optim.SGD calls them.
    """

    def __init__(self, name: str, parameters: Any, images: Any, labels: Any, layout: Any, **sgd: float) -> None:
        self.net = NETS[name]()
        with torch.no_grad():
            for parameter, values in zip(self.net.parameters(), parameters, strict=True):
                parameter.copy_(torch.from_numpy(values))
        self.net = self.net.to(memory_format=layout)
        self.images = torch.from_numpy(images).contiguous(memory_format=layout)
        self.labels = torch.from_numpy(labels).long()
        self.optimizer = torch.optim.SGD(self.net.parameters(), **sgd)

    def step(self) -> float:
        """One iteration; returns the loss before it."""
        self.optimizer.zero_grad()
        scores = self.net(self.images)
        loss = nn.functional.cross_entropy
        if isinstance(scores, list):
            *sides, last = scores
            total = loss(last, self.labels) + sum(0.3 * loss(side, self.labels) for side in sides)
        else:
            total = loss(scores, self.labels)
        total.backward()
        self.optimizer.step()
        return float(total.detach())
