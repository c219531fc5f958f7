"""The nets: the assignment's, the same net made for speed, and smaller ones.

A new net is a class that takes `crop`, and an entry in NETS.
"""

from functools import partial
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F

from .base.errors import as_seed, check


class Net(nn.Module):
    """The assignment's CNN: images (N, 1, 28, 28) to log-probabilities (N, 10).

    Layer by layer under its own names; 13,322 parameters, and no fully connected layer.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 8, 3, padding=1)
        self.BatchNorm1 = nn.BatchNorm2d(8)
        self.conv2 = nn.Conv2d(8, 16, 3, padding=1)
        self.BatchNorm2 = nn.BatchNorm2d(16)
        self.pool1 = nn.MaxPool2d(2, 2)
        self.conv3 = nn.Conv2d(16, 16, 3, padding=1)
        self.BatchNorm3 = nn.BatchNorm2d(16)
        self.conv4 = nn.Conv2d(16, 16, 3, padding=1)
        self.BatchNorm4 = nn.BatchNorm2d(16)
        self.pool2 = nn.MaxPool2d(2, 2)
        self.conv5 = nn.Conv2d(16, 16, 3)
        self.BatchNorm5 = nn.BatchNorm2d(16)
        self.conv6 = nn.Conv2d(16, 32, 3)
        self.conv7 = nn.Conv2d(32, 10, 1)

    def forward(self, x):  # (N, 1, 28, 28)
        x = self.pool1(F.relu(self.BatchNorm2(self.conv2(F.relu(self.BatchNorm1(self.conv1(x)))))))
        x = self.pool2(F.relu(self.BatchNorm4(self.conv4(F.relu(self.BatchNorm3(self.conv3(x)))))))
        x = F.relu(self.conv6(F.relu(self.BatchNorm5(self.conv5(x)))))  # (N, 32, 3, 3)
        x = self.conv7(x)  # (N, 10, 3, 3)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        x = x.view(-1, 10)
        return F.log_softmax(x, dim=1)  # the assignment leaves the dimension to torch


class FastNet(Net):
    """The same net made for speed, for any recipe: same weights, same numbers up to rounding.

    ReLU runs after max-pooling: both are monotone, so they commute, and ReLU then sees a quarter
    of the pixels. A bias that batch norm would subtract again is not added (`conv_norm`). The
    memory layout suits the CPU's faster kernels. With `crop` below 28 the net looks at the middle
    `crop` x `crop` pixels; the weights are the same.
    """

    def __init__(self, crop: int = 28):
        super().__init__()
        self.crop = crop

    def forward(self, x):  # (N, 1, 28, 28); the sizes below are those of crop 28
        x = conv_norm(self.conv1, self.BatchNorm1, middle(x, self.crop))
        x = F.relu(for_cpu(x))  # (N, 8, 28, 28)
        x = F.relu(self.pool1(conv_norm(self.conv2, self.BatchNorm2, x)))  # (N, 16, 14, 14)
        x = F.relu(conv_norm(self.conv3, self.BatchNorm3, x))  # (N, 16, 14, 14)
        x = F.relu(self.pool2(conv_norm(self.conv4, self.BatchNorm4, x)))  # (N, 16, 7, 7)
        x = F.relu(conv_norm(self.conv5, self.BatchNorm5, x))  # (N, 16, 5, 5)
        x = F.relu(self.conv6(x))  # (N, 32, 3, 3)
        x = self.conv7(x)  # (N, 10, 3, 3)
        x = x.mean((2, 3))  # (N, 10)
        return F.log_softmax(x, dim=1)


class SprintNet(nn.Module):
    """CNN of the recipe `sprint`: images (N, 1, 28, 28) to log-probabilities (N, 10).

    Four neighbouring pixels become four channels first, so every convolution works on a quarter
    of the pixels or fewer, and none on a single channel, where oneDNN is slow.
    """

    def __init__(self, crop: int = 28):
        super().__init__()
        self.crop = crop
        self.fold = nn.PixelUnshuffle(2)
        self.conv1 = nn.Conv2d(4, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 24, 3, bias=False)
        self.norm2 = nn.BatchNorm2d(24)
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(24, 48, 3, bias=False)
        self.norm3 = nn.BatchNorm2d(48)
        self.linear = nn.Linear(48, 10)

    def forward(self, x):  # (N, 1, 28, 28); the sizes below are those of crop 20
        x = for_cpu(self.fold(middle(x, self.crop)))  # (N, 4, 10, 10)
        x = F.relu(self.norm1(self.conv1(x)))  # (N, 16, 10, 10)
        x = F.relu(self.pool(self.norm2(self.conv2(x))))  # (N, 24, 4, 4)
        x = F.relu(self.norm3(self.conv3(x)))  # (N, 48, 2, 2)
        x = self.linear(x.mean((2, 3)))  # (N, 10)
        return F.log_softmax(x, dim=1)


class FoldedNet(nn.Module):
    """CNN of the recipe `faster`: images (N, 1, 28, 28) to log-probabilities (N, 10).

    Folds pixels into channels, as SprintNet does, and is one convolution deeper. All widths are
    multiples of 16, which oneDNN's kernels fill. 17,226 parameters.
    """

    def __init__(self, crop: int = 28):
        super().__init__()
        self.crop = crop
        self.fold = nn.PixelUnshuffle(2)
        self.conv1 = nn.Conv2d(4, 16, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(16)
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(16, 32, 3, bias=False)
        self.norm3 = nn.BatchNorm2d(32)
        self.conv4 = nn.Conv2d(32, 32, 3, bias=False)
        self.norm4 = nn.BatchNorm2d(32)
        self.linear = nn.Linear(32, 10)

    def forward(self, x):  # (N, 1, 28, 28); the sizes below are those of crop 24
        x = for_cpu(self.fold(middle(x, self.crop)))  # (N, 4, 12, 12)
        x = F.relu(self.norm1(self.conv1(x)))  # (N, 16, 12, 12)
        x = F.relu(self.pool(self.norm2(self.conv2(x))))  # (N, 16, 6, 6)
        x = F.relu(self.norm3(self.conv3(x)))  # (N, 32, 4, 4)
        x = F.relu(self.norm4(self.conv4(x)))  # (N, 32, 2, 2)
        x = self.linear(x.mean((2, 3)))  # (N, 10)
        return F.log_softmax(x, dim=1)


class SmallNet(nn.Module):
    """A net of one convolution per width: images (N, 1, 28, 28) to log-probabilities (N, 10).

    The order of layers and the final average are FastNet's; one pooling instead of two, so more
    layers see small strokes. After the first, convolutions are separable: 3 x 3 on each channel
    alone, then 1 x 1 across channels, for a fifth of the weights (Chollet 2017). They have no bias,
    which batch norm would subtract again. The `head`, 1 x 1 with a bias, gives the ten scores.
    """

    def __init__(
        self, widths: tuple[int, ...], crop: int = 28, head: bool = True, norm=nn.BatchNorm2d
    ):
        super().__init__()
        self.crop = crop
        self.convs = nn.ModuleList([nn.Conv2d(1, widths[0], 3, padding=1, bias=False)])
        for number, (before, after) in enumerate(pairwise(widths), 2):
            padding = 1 if number == 2 else 0  # the maps keep their size up to the pooling
            depth = nn.Conv2d(before, before, 3, padding=padding, groups=before, bias=False)
            self.convs.append(nn.Sequential(depth, nn.Conv2d(before, after, 1, bias=False)))
        self.norms = nn.ModuleList([*map(norm, widths[:-1]), nn.BatchNorm2d(widths[-1])])
        if head:
            self.convs.append(nn.Conv2d(widths[-1], 10, 1))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):  # (N, 1, 28, 28); the sizes below are those of crop 28
        conv1, conv2, *convs = self.convs
        norm1, norm2, *norms = self.norms
        x = norm1(conv1(middle(x, self.crop)))  # (N, w1, 28, 28)
        x = self.pool(norm2(conv2(for_cpu(F.relu(x)))))  # (N, w2, 14, 14)
        for conv, norm in zip(convs, norms, strict=False):
            x = norm(conv(F.relu(x)))  # (N, w3, 12, 12) and so on, down to (N, w7, 4, 4)
        if len(convs) > len(norms):  # the head
            x = convs[-1](F.relu(x))  # (N, 10, 4, 4)
        x = x.mean((2, 3))  # (N, 10)
        return F.log_softmax(x, dim=1)


class ShiftNorm(nn.BatchNorm2d):
    """Batch norm that shifts each channel and does not scale it."""

    def __init__(self, channels: int):
        super().__init__(channels, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels))


class LeanNet(SmallNet):
    """A `SmallNet` of fewer parameters: no head, and no scale in its batch norms but the last.

    A scale before a ReLU is one parameter too many: the weights of the next convolution can hold
    it, and those of the one before its sign. The last of `widths` must be 10.
    """

    def __init__(self, widths: tuple[int, ...], crop: int = 28):
        check("the last of widths", widths[-1], widths[-1] == 10, "10, one channel per class")
        super().__init__(widths, crop, head=False, norm=ShiftNorm)


# The small nets: the channels of each convolution. A name gives the number of parameters.
WIDTHS = {
    "p998": (4, 7, 7, 8, 8, 9, 10),
    "p1990": (8, 12, 12, 12, 12, 14, 17),
    "p2976": (8, 16, 16, 16, 16, 18, 24),
    "p4006": (10, 20, 20, 20, 20, 20, 28),
    "p4992": (10, 22, 24, 24, 24, 24, 28),
    "p7942": (12, 28, 32, 32, 32, 32, 38),
}
LEAN = {"p1000": (5, 8, 9, 9, 9, 9, 10)}

# Every net that a recipe can name: called with `crop`, it makes one.
NETS = {
    "assignment": FastNet,
    "sprint": SprintNet,
    "folded": FoldedNet,
    **{name: partial(LeanNet, widths) for name, widths in LEAN.items()},
    **{name: partial(SmallNet, widths) for name, widths in WIDTHS.items()},
}


def set_seed(seed: int | None) -> int:
    """Seed torch, which draws a new net's weights; returns the seed, 0 for None."""
    seed = as_seed(seed)
    torch.manual_seed(seed)
    return seed


def middle(x: torch.Tensor, size: int) -> torch.Tensor:
    """The middle `size` x `size` pixels of images (N, C, H, W), contiguous; smaller ones whole."""
    margin = max(0, (x.shape[-1] - size) // 2)
    return x[..., margin : margin + size, margin : margin + size].contiguous()


def for_cpu(x: torch.Tensor) -> torch.Tensor:
    """`x` in the memory layout of oneDNN's faster convolutions, if it is on the CPU."""
    # Only after the first batch norm: on its 8 channels, two threads would write to one cache line.
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """`norm(conv(x))`, in training without the bias."""
    if not norm.training:
        return norm(conv(x))
    # Batch norm subtracts the mean and with it the bias: neither the output nor any other gradient
    # depends on it, and its own gradient is zero up to rounding, yet takes oneDNN nearly as long as
    # the weights'. Only the running mean, which evaluation uses, needs the bias.
    x = norm(F.conv2d(x, conv.weight, stride=conv.stride, padding=conv.padding))
    # .data: the backward pass saves the running mean, though training never reads it.
    norm.running_mean.data.add_(conv.bias.data, alpha=norm.momentum)
    return x
