"""The assignment's net: 13,322 parameters, seven convolutions, no fully connected layer."""

import torch.nn as nn
import torch.nn.functional as F


class Net(nn.Module):
    """CNN of the assignment: images (N, 1, 28, 28) to log-probabilities (N, 10).

    Layers and state_dict names are the assignment's. Two things differ, neither in the result:
    ReLU runs after max-pooling, not before (both are monotone, so they commute, and ReLU then
    sees a quarter of the pixels), and log_softmax names its dimension.
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
        # contiguous: in channels_last, batch norm of only 8 channels is slow on two threads, which
        # then write to the same cache lines. Changes nothing where the layout is the default.
        x = F.relu(self.BatchNorm1(self.conv1(x).contiguous()))  # (N, 8, 28, 28)
        x = F.relu(self.pool1(self.BatchNorm2(self.conv2(x))))  # (N, 16, 14, 14)
        x = F.relu(self.BatchNorm3(self.conv3(x)))  # (N, 16, 14, 14)
        x = F.relu(self.pool2(self.BatchNorm4(self.conv4(x))))  # (N, 16, 7, 7)
        x = F.relu(self.BatchNorm5(self.conv5(x)))  # (N, 16, 5, 5)
        x = F.relu(self.conv6(x))  # (N, 32, 3, 3)
        x = self.conv7(x)  # (N, 10, 3, 3)
        x = x.mean((2, 3))  # (N, 10)
        return F.log_softmax(x, dim=1)


def count_parameters(net: nn.Module) -> int:
    """Parameters of `net`, frozen ones included, each tensor counted once."""
    return sum(p.numel() for p in net.parameters())
