"""The nets: the assignment's, the same made for speed, that of `sprint`, and smaller ones."""

import math
from functools import partial
from itertools import pairwise, zip_longest

import torch
import torch.nn as nn
import torch.nn.functional as F

from .errors import MnistLibError, ParameterError, as_seed, check, told
from .recipe import LEAN, WIDTHS, Recipe, check_recipe


class Net(nn.Module):
    """CNN of the assignment, as it prints it: images (N, 1, 28, 28) to log-probabilities (N, 10).

    13,322 parameters, seven convolutions, no fully connected layer.
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
    """The same net, made for speed: the same weights, and the same numbers but for rounding.

    ReLU runs after max-pooling: both are monotone, so they commute, and ReLU then sees a quarter
    of the pixels. A bias that a batch norm would subtract again is not added (`conv_norm`). The
    layout is that of the CPU's faster kernels. With `crop` below 28 the net looks at the middle
    `crop` pixels square of the images; the weights are the same.
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

    Four neighbouring pixels become four channels first, so that every convolution works on a
    quarter of the pixels or fewer, and none on a single channel, which oneDNN does slowly.
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


class SmallNet(nn.Module):
    """A net of seven convolutions and any widths: images (N, 1, 28, 28) to log-probabilities.

    The assignment's order of convolution, batch norm, pooling and ReLU, and its averages in the
    end; one pooling instead of two, so that more of the layers see small strokes. All convolutions
    but the first are separable: 3 x 3 on each channel alone, then 1 x 1 across them, for a fifth of
    the weights (Chollet 2017). None has a bias, which batch norm would subtract again.
    """

    def __init__(self, widths: tuple[int, ...], crop: int = 28):
        super().__init__()
        self.crop = crop
        self.convs = nn.ModuleList([nn.Conv2d(1, widths[0], 3, padding=1, bias=False)])
        for number, (before, after) in enumerate(pairwise(widths), 2):
            padding = 1 if number == 2 else 0  # up to the pooling the maps keep their size
            depth = nn.Conv2d(before, before, 3, padding=padding, groups=before, bias=False)
            self.convs.append(nn.Sequential(depth, nn.Conv2d(before, after, 1, bias=False)))
        self.convs.append(nn.Conv2d(widths[-1], 10, 1))
        self.norms = nn.ModuleList(map(nn.BatchNorm2d, widths))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x):  # (N, 1, 28, 28); the sizes below are those of crop 28
        conv1, conv2, *convs = self.convs
        norm1, norm2, *norms = self.norms
        x = norm1(conv1(middle(x, self.crop)))  # (N, w1, 28, 28)
        x = self.pool(norm2(conv2(for_cpu(F.relu(x)))))  # (N, w2, 14, 14)
        for conv, norm in zip_longest(convs, norms, fillvalue=nn.Identity()):  # no norm: the head
            x = norm(conv(F.relu(x)))  # (N, w3, 12, 12) and so on, down to (N, 10, 4, 4)
        x = x.mean((2, 3))  # (N, 10)
        return F.log_softmax(x, dim=1)


class ShiftNorm(nn.BatchNorm2d):
    """Batch norm that shifts each channel and does not scale it."""

    def __init__(self, channels: int):
        super().__init__(channels, affine=False)
        self.bias = nn.Parameter(torch.zeros(channels))


class LeanNet(SmallNet):
    """A `SmallNet` of fewer parameters: no head, and no scale in its batch norms but the last.

    The last separable convolution gives the ten scores, so the last width must be 10. A scale
    before a ReLU is one parameter too many: the weights of the next convolution can hold it, and
    those of the one before its sign. Raises ParameterError for another last width.
    """

    def __init__(self, widths: tuple[int, ...], crop: int = 28):
        check("the last of widths", widths[-1], widths[-1] == 10, "10, a channel a class")
        super().__init__(widths, crop)
        del self.convs[-1]
        self.norms = nn.ModuleList([*map(ShiftNorm, widths[:-1]), self.norms[-1]])


class Views(nn.Module):
    """A net that, in evaluation, answers with the mean of its probabilities over four views.

    Test-time augmentation (Krizhevsky, Sutskever and Hinton 2012). The views are corners of the
    recipe's augmentation: shifted by its `shift` to the right or left and down or up, and turned by
    its `rotation`, one way for two and the other for two. No parameter is added. In training it is
    the `net` itself; in evaluation it takes four times as long.
    """

    def __init__(self, net: nn.Module, recipe: Recipe):
        super().__init__()
        self.module = net  # named as DataParallel names it
        maps = []
        for right, down in ((1, 1), (1, -1), (-1, 1), (-1, -1)):
            angle, unit = math.radians(recipe.rotation * right * down), recipe.shift / 14
            cos, sin, x, y = math.cos(angle), math.sin(angle), unit * right, unit * down
            # From output to input, so every motion is inverted. Unit: half an image's side.
            maps.append([[cos, sin, -cos * x - sin * y], [-sin, cos, sin * x - cos * y]])
        self.register_buffer("maps", torch.tensor(maps), persistent=False)

    def forward(self, x):  # (N, 1, 28, 28)
        if self.training:
            return self.module(x)
        grids = F.affine_grid(self.maps, (len(self.maps), *x.shape[1:]), align_corners=False)
        grids = grids.unsqueeze(1).expand(-1, x.shape[0], -1, -1, -1)  # (4, N, 28, 28, 2)
        # The rim goes on beyond the image: it is background, whatever that is.
        views = [F.grid_sample(x, g, padding_mode="border", align_corners=False) for g in grids]
        answers = torch.stack([self.module(view) for view in views])  # (4, N, 10)
        return answers.logsumexp(0) - math.log(len(answers))


def make_net(recipe: Recipe) -> nn.Module:
    """The recipe's net, with the random weights that `set_seed` makes reproducible.

    Raises ParameterError if `recipe` is no Recipe.
    """
    check_recipe(recipe)
    nets = {"assignment": FastNet, "sprint": SprintNet}
    nets |= {name: partial(SmallNet, widths) for name, widths in WIDTHS.items()}
    nets |= {name: partial(LeanNet, widths) for name, widths in LEAN.items()}
    net = nets[recipe.net](crop=recipe.crop)
    return net if recipe.views == 1 else Views(net, recipe)


def set_seed(seed: int | None) -> int:
    """Seed torch's random numbers, from which a new net's weights are drawn; the seed, 0 for None.

    Raises ParameterError unless `seed` is a whole number from 0 to 2**63 - 1.
    """
    seed = as_seed(seed)
    torch.manual_seed(seed)
    return seed


def middle(x: torch.Tensor, size: int) -> torch.Tensor:
    """The middle `size` pixels square of images (N, C, H, W); smaller ones whole. Contiguous."""
    margin = max(0, (x.shape[-1] - size) // 2)
    return x[..., margin : margin + size, margin : margin + size].contiguous()


def for_cpu(x: torch.Tensor) -> torch.Tensor:
    """`x`, if on the CPU, in the layout of oneDNN's faster convolutions.

    Not for the first layer's output: in this layout, batch norm of as few as 8 channels is slow,
    since two threads then write to the same cache lines.
    """
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """`norm(conv(x))`, in training without the work of the bias.

    Batch norm subtracts the mean, and the bias with it. So the output and the other gradients do
    not depend on the bias, and its own gradient is zero but for rounding; oneDNN takes nearly as
    long for it as for the weights'. Only the running mean, which evaluation uses, needs the bias.
    """
    if not norm.training:
        return norm(conv(x))
    x = norm(F.conv2d(x, conv.weight, stride=conv.stride, padding=conv.padding))
    # data: the backward pass holds on to the running mean, though it never reads it in training.
    norm.running_mean.data.add_(conv.bias.data, alpha=norm.momentum)
    return x


def check_net(net) -> None:
    """Raise ParameterError unless `net` is a module with parameters."""
    if isinstance(net, type) and issubclass(net, nn.Module):
        raise ParameterError(f"net is the class {net.__name__}: make one, {net.__name__}()")
    holds = isinstance(net, nn.Module) and any(True for _ in net.parameters())
    if not holds:
        raise ParameterError(f"net must be a torch.nn.Module with parameters, got {told(net)}")
    if any(isinstance(p, nn.parameter.UninitializedParameter) for p in net.parameters()):
        raise ParameterError("net has lazy layers without a shape yet: call it on a batch first")


def unwrapped(net: nn.Module) -> nn.Module:
    """The net inside Views, DataParallel and torch.compile."""
    wrappers = (Views, nn.DataParallel, nn.parallel.DistributedDataParallel)
    while isinstance(net, wrappers) or hasattr(net, "_orig_mod"):
        net = net.module if isinstance(net, wrappers) else net._orig_mod
    return net


def crop_of(net: nn.Module, default: int = 28) -> int:
    """The side of the middle of an image that `net` looks at, in pixels, if it says so."""
    return getattr(unwrapped(net), "crop", default)


def device_of(net: nn.Module) -> torch.device:
    """Where the net's first parameter is. Raises ParameterError if `net` is none."""
    check_net(net)
    return next(net.parameters()).device


def output_of(net: nn.Module, inputs: torch.Tensor, shape: tuple[int, ...]):
    """`net(inputs)`. Raises ParameterError, naming the `shape`, if the net cannot take them."""
    try:
        return net(inputs)
    except MnistLibError:
        raise
    except (RuntimeError, ValueError, TypeError) as error:
        said = str(error).strip().partition("\n")[0]
        raise ParameterError(f"net cannot take images of shape {shape}: {said}") from error


def count_parameters(net: nn.Module) -> int:
    """Parameters of `net`, frozen ones included, each tensor counted once.

    Raises ParameterError if `net` is no module with parameters.
    """
    check_net(net)
    return sum(p.numel() for p in net.parameters())
