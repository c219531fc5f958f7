"""The assignment's net, letter by letter, and the same net made for speed; others are in nets."""

import torch
import torch.nn as nn
import torch.nn.functional as F

from .base.errors import as_seed


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
    # FastNet and SmallNet do this after batch norm 1: on few channels, threads share cache lines.
    return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x


def conv_norm(conv: nn.Conv2d, norm: nn.BatchNorm2d, x: torch.Tensor) -> torch.Tensor:
    """`norm(conv(x))`, in training without the bias."""
    hooks = (conv._forward_hooks, conv._forward_pre_hooks)
    hooks += (conv._backward_hooks, conv._backward_pre_hooks)
    usual = isinstance(norm, nn.BatchNorm2d) and norm.momentum and norm.track_running_stats
    if not (norm.training and usual) or conv.bias is None or any(hooks):
        return norm(conv(x))
    # Batch norm subtracts the bias again. The bias's gradient is zero up to rounding, yet costs
    # oneDNN nearly as much as the weights'. Only the running mean, for evaluation, needs the bias.
    x = norm(conv._conv_forward(x, conv.weight, None))
    # .data hides this from autograd, which saved the running mean but never reads it in training.
    norm.running_mean.data.add_(conv.bias.data, alpha=norm.momentum)
    return x
