"""Receptive fields: by hand, and what is refused. `test_inside` compares them with gradients."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.nn.utils import parametrizations, prune

from mnist_lib import Net, ParameterError, layer_table
from mnist_lib.nets import SprintNet
from tests.test_net import ROWS


def test_the_sprint_net_by_hand():
    table = layer_table(SprintNet(crop=24), (1, 24, 24))
    by_hand = {"fold": (2, 2), "conv1": (6, 2), "conv2": (10, 2), "pool": (12, 4), "conv3": (20, 4)}
    fields = {row.name: (row.receptive_field, row.jump) for row in table}
    assert {name: fields[name] for name in by_hand} == by_hand
    assert table.parameters == 15_066


def test_the_assignments_net_by_hand():
    fields = [3, 3, 5, 5, 6, 10, 10, 14, 14, 16, 24, 24, 32, 32]
    for side, last in ((28, 3), (128, 28)):
        table = layer_table(Net(), (1, side, side))
        assert [layer.receptive_field for layer in table] == fields
        assert [layer.jump for layer in table] == [1] * 4 + [2] * 5 + [4] * 5
        assert table[-1].output_shape == (10, last, last)


def test_another_net():
    net = nn.Sequential(
        nn.Conv2d(1, 4, 5, stride=2, dilation=2),  # effective kernel 9: 28 -> 10
        nn.ReLU(),
        nn.AvgPool2d(3, stride=1),  # 10 -> 8
        nn.AdaptiveMaxPool2d(4),  # 2 x 2
        nn.Dropout(0.1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )
    table = layer_table(net)
    assert [layer.receptive_field for layer in table] == [9, 9, 13, 15, 15, 15, 27]
    assert [layer.jump for layer in table][:5] == [2, 2, 2, 4, 4]
    assert table[-1].output_shape == (10,)
    assert "assignment" not in str(table)
    assert net.training, "the table is made on a copy"


class Shaped(nn.Module):
    """Convolutions that keep the size, and more; a function says which way the data takes."""

    def __init__(self, forward):
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 1, 3, padding=1), nn.Conv2d(1, 1, 5, padding=2)
        self.three, self.relu = nn.Conv2d(1, 1, 3, padding=1), nn.ReLU(inplace=True)
        self.pool, self.pad = nn.MaxPool2d(2, return_indices=True), nn.ZeroPad2d(1)
        self.linear, self.scale = nn.Linear(1, 10), nn.Parameter(torch.ones(1))
        self.way = forward

    def forward(self, x):
        return self.way(self, x)


def test_a_layer_that_is_called_thrice_has_its_parameters_once():
    def thrice(net, x):
        return net.relu(net.one(F.relu(net.one(net.one(x)), inplace=True)))

    table = layer_table(Shaped(thrice))
    assert [layer.receptive_field for layer in table] == [3, 5, 7, 7]
    assert [layer.parameters for layer in table] == [10, 0, 0, 0]


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_data_that_autograd_cannot_follow_and_pooling_that_a_linear_layer_sees(mode):
    def forward(net, x):
        x = net.two(input=net.one(net.pad(net.pool(x)[0])).detach())
        return net.linear(F.max_pool2d(x, 2).amax((2, 3)))

    with mode():
        table = layer_table(Shaped(forward))
    rows = {layer.name: (layer.receptive_field, layer.jump) for layer in table}
    by_hand = {"pool": (2, 2), "pad": (2, 2), "one": (6, 2), "two": (14, 2)}
    assert rows == by_hand | {"linear": (14 + 15 * 2, 32)}  # one adds no padding of its own


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (torch.jit.script, "not supported on ScriptModules"),
        (lambda net: prune.identity(net[0], "weight"), "graph leaves"),
        (lambda net: nn.utils.weight_norm(net[0]), "graph leaves"),
        (lambda net: parametrizations.spectral_norm(net[0]), "a _SpectralNorm, of unknown"),
    ],
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_net_whose_layers_are_no_longer_torchs_is_refused(change, reason):
    net = nn.Sequential(nn.Conv2d(1, 1, 3))
    changed = change(net)
    with pytest.raises(ParameterError, match=reason):
        layer_table(changed if isinstance(changed, torch.jit.ScriptModule) else net)


PATHS, MOVED = "more than one path", "does not get the last output as it is: pixels are lost"
OUTSIDE = "output .*: it also uses a parameter of no layer, or other images"


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, (3, 1))), r"'0' has a kernel_size of \(3, 1\)"),
        (nn.Sequential(nn.ConvTranspose2d(1, 1, 3)), "'0' is a ConvTranspose2d"),
        (nn.Sequential(nn.Conv2d(1, 1, 1), nn.AdaptiveAvgPool2d(5)), "pools 28 pixels to 5"),
        (Shaped(lambda net, x: net.two(F.max_pool2d(net.one(x), 2))), f"'two' {MOVED}"),
        (Shaped(lambda net, x: net.two(F.max_pool2d(net.one(x), 3, 1, 1))), f"'two' {MOVED}"),
        (Shaped(lambda net, x: net.two(F.pad(net.one(x), (1, 1, 1, 1)))), f"'two' {MOVED}"),
        (Shaped(lambda net, x: net.one(x[..., ::2, ::2])), f"'one' {MOVED}"),
        (Shaped(lambda net, x: net.linear(net.one(x)[:, :, 13, 13])), f"'linear' {MOVED}"),
        (Shaped(lambda net, x: net.linear(net.one(x)[..., :9].mean((2, 3)))), f"'linear' {MOVED}"),
        (Shaped(lambda net, x: net.one(x) * net.scale), OUTSIDE),
        (Shaped(lambda net, x: F.conv2d(net.one(x), net.two.weight)), OUTSIDE),
        (Shaped(lambda net, x: (net.one(x), 1)), "output must be one tensor"),
        (Shaped(lambda net, x: x), "calls no layer"),
        (Shaped(lambda net, x: net.three(net.one(x) + net.two(x))), f"'two' .*{PATHS}"),
        (Shaped(lambda net, x: net.three(x + net.one(x))), f"'three' .*{PATHS}"),
        (Shaped(lambda net, x: x + net.one(x)), f"output .*{PATHS}"),
        (Shaped(lambda net, x: net.two(net.relu(net.one(x)) + x)), f"'two' .*{PATHS}"),
        (nn.Sequential(nn.Conv2d(3, 1, 3)), r"cannot take images of shape \(1, 28, 28\): Given"),
        (nn.Flatten(), "net must be a torch.nn.Module with parameters"),
    ],
)
def test_what_cannot_be_computed_is_refused(net, message):
    with pytest.raises(ParameterError, match=message):
        layer_table(net)


def test_the_printed_table_marks_where_the_assignments_is_off():
    lines = str(layer_table(Net())).splitlines()
    assert " ".join(lines[2].split()) == "conv1, Conv2d 8 x 28 x 28 80 3 3"
    assert lines[-1].split() == ["total", "13,322"]
    for line, layer, (*_, printed) in zip(lines[2:-1], layer_table(Net()), ROWS, strict=True):
        off = "" if int(printed) == layer.receptive_field else "*"
        assert line.split()[-2:] == [str(layer.receptive_field), printed + off]
