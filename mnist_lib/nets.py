"""Other nets, faster and smaller ones; every net by its name; and your own by its import path."""

import inspect
import os
import pkgutil
import re
import sys
from functools import partial
from itertools import pairwise

import torch
import torch.nn as nn
import torch.nn.functional as F

from .base.errors import check
from .net import FastNet, for_cpu, middle


class FoldedNet(nn.Module):
    """CNN of the recipe `faster`: images (N, 1, 28, 28) to log-probabilities (N, 10).

    Four neighbouring pixels become four channels first, so every convolution works on a quarter
    of the pixels or fewer, and none on a single channel, where oneDNN is slow. Its widths are
    multiples of 16, which oneDNN's kernels fill. 17,226 parameters.
    """

    def __init__(self, crop: int = 28, widths: tuple[int, ...] = (16, 16, 32, 32), padded: int = 2):
        super().__init__()
        self.crop, self.depth = crop, len(widths)
        self.fold, self.pool = nn.PixelUnshuffle(2), nn.MaxPool2d(2)
        for number, (before, after) in enumerate(pairwise((4, *widths)), 1):
            conv = nn.Conv2d(before, after, 3, padding=int(number <= padded), bias=False)
            self.add_module(f"conv{number}", conv)
            self.add_module(f"norm{number}", nn.BatchNorm2d(after))
        self.linear = nn.Linear(widths[-1], 10)

    def forward(self, x):  # (N, 1, 28, 28); the sizes below are those of crop 24
        x = for_cpu(self.fold(middle(x, self.crop)))  # (N, 4, 12, 12)
        for number in range(1, self.depth + 1):  # (N, 16, 12, 12), then 6 x 6, 4 x 4, 2 x 2
            x = getattr(self, f"norm{number}")(getattr(self, f"conv{number}")(x))
            x = F.relu(self.pool(x) if number == 2 else x)
        return F.log_softmax(self.linear(x.mean((2, 3))), dim=1)  # (N, 10)


class SprintNet(FoldedNet):
    """The net of the records of `sprint`, which `faster` has replaced: 15,066 parameters."""

    def __init__(self, crop: int = 28):
        super().__init__(crop, widths=(16, 24, 48), padded=1)


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

    A scale before a ReLU is one parameter too many: the next convolution's weights can hold its
    size, and those of the previous one its sign. The last of `widths` must be 10.
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

# Every net that a recipe can name: called with `crop`, it makes one. A new class joins them here.
NETS = {
    "assignment": FastNet,
    "sprint": SprintNet,
    "folded": FoldedNet,
    **{name: partial(LeanNet, widths) for name, widths in LEAN.items()},
    **{name: partial(SmallNet, widths) for name, widths in WIDTHS.items()},
}
IMPORT_PATH = re.compile(r"\w+(\.\w+)*:\w+")
NET_NAMES = f"one of {', '.join(NETS)}, or the import path of your own, such as my_nets:TinyNet"


def import_net(path: str) -> None:
    """Add your own net to NETS: a class or function, called with `crop` if it takes that.

    An import runs code: do this with what a user types, never with what a file says.
    """
    if ":" not in path:  # one of this library
        return
    if (here := os.getcwd()) not in sys.path:  # as in a worker of Dask
        sys.path.append(here)
    try:
        with torch.random.fork_rng(devices=[]):
            own = pkgutil.resolve_name(path)
            make = own if "crop" in inspect.signature(own).parameters else lambda crop: own()
            net = make(crop=28)
    except (Exception, SystemExit) as error:  # an import can raise anything
        net = error
    expected = "a class or function that makes a torch.nn.Module without arguments"
    check(f"net {path}, imported in {here},", net, isinstance(net, nn.Module), expected)
    NETS[path] = make
