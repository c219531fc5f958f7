"""The net against a literal restatement of the assignment's class and its printed table."""

import re

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import mnist_lib
from mnist_lib import LayerError, layer_table

# The assignment's table: layer, output shape, parameters. (Its last column is wrong in part.)
TABLE = """
            Conv2d-1     ->       [-1, 8, 28, 28]      ->        80     -> 3
       BatchNorm2d-2     ->       [-1, 8, 28, 28]       ->       16     -> 3
            Conv2d-3     ->      [-1, 16, 28, 28]       ->    1,168     -> 5
       BatchNorm2d-4     ->      [-1, 16, 28, 28]       ->       32     -> 5
         MaxPool2d-5     ->      [-1, 16, 14, 14]       ->        0     -> 10
            Conv2d-6     ->      [-1, 16, 14, 14]       ->    2,320     -> 12
       BatchNorm2d-7     ->      [-1, 16, 14, 14]       ->       32     -> 12
            Conv2d-8     ->      [-1, 16, 14, 14]       ->    2,320     -> 14
       BatchNorm2d-9     ->      [-1, 16, 14, 14]       ->       32     -> 14
        MaxPool2d-10     ->        [-1, 16, 7, 7]       ->        0     -> 28
           Conv2d-11     ->        [-1, 16, 5, 5]       ->    2,320     -> 30
      BatchNorm2d-12     ->        [-1, 16, 5, 5]       ->       32     -> 30
           Conv2d-13     ->        [-1, 32, 3, 3]       ->    4,640     -> 32
           Conv2d-14     ->        [-1, 10, 3, 3]       ->      330     -> 32
"""


class AssignmentNet(nn.Module):
    """The assignment's class, letter by letter but for log_softmax's dimension."""

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

    def forward(self, x):
        x = self.pool1(F.relu(self.BatchNorm2(self.conv2(F.relu(self.BatchNorm1(self.conv1(x)))))))
        x = self.pool2(F.relu(self.BatchNorm4(self.conv4(F.relu(self.BatchNorm3(self.conv3(x)))))))
        x = F.relu(self.conv6(F.relu(self.BatchNorm5(self.conv5(x)))))
        x = self.conv7(x)
        x = F.adaptive_avg_pool2d(x, (1, 1))
        x = x.view(-1, 10)
        return F.log_softmax(x, dim=1)


@pytest.fixture
def pair():
    """The assignment's net with random weights and statistics, and ours loaded from it."""
    torch.manual_seed(0)
    literal, ours = AssignmentNet(), mnist_lib.Net()
    for module in literal.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
    assert ours.load_state_dict(literal.state_dict()).missing_keys == []
    return literal, ours


def test_state_dict_names_and_parameter_count():
    net = mnist_lib.Net()
    assert list(net.state_dict()) == list(AssignmentNet().state_dict())
    assert mnist_lib.count_parameters(net) == 13_322


@pytest.mark.parametrize("training", [True, False])
def test_outputs_are_the_assignments(pair, training):
    images = torch.randn(16, 1, 28, 28)
    literal, ours = (net.train(training)(images) for net in pair)
    assert ours.shape == (16, 10)
    torch.testing.assert_close(ours, literal, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(ours.exp().sum(dim=1), torch.ones(16))


def test_running_statistics_are_the_assignments(pair):
    images = torch.randn(16, 1, 28, 28)
    for net in pair:
        for _ in range(3):
            net.train()(images)
    literal, ours = (net.state_dict() for net in pair)
    for name, tensor in literal.items():
        torch.testing.assert_close(ours[name], tensor, rtol=1e-4, atol=1e-5, msg=name)


@pytest.mark.parametrize("name", ["logged", "fast", "sprint"])
def test_crop_looks_at_the_middle_only(name):
    recipe = mnist_lib.get_recipe(name, crop=24)
    net = mnist_lib.make_net(recipe).eval()
    images = torch.randn(4, 1, 28, 28)
    rim = images.clone()
    rim[..., 2:26, 2:26] = 0
    inner = images[..., 2:26, 2:26]
    assert torch.equal(net(images), net(images - rim))
    assert torch.equal(net(images), net(inner)), "already cropped, as augment gives them"
    assert not torch.equal(net(images), mnist_lib.make_net(recipe).eval()(images))


@pytest.mark.parametrize("name", mnist_lib.RECIPES)
def test_every_recipes_net_is_in_the_budget(name):
    net = mnist_lib.make_net(mnist_lib.get_recipe(name))
    assert mnist_lib.count_parameters(net) < 20_000
    assert net(torch.randn(2, 1, 28, 28)).exp().sum(dim=1).tolist() == pytest.approx([1, 1])
    assert isinstance(net, mnist_lib.Net) is (name != "sprint"), "the others: the assignment's"


@pytest.mark.parametrize("name", mnist_lib.RECIPES)
def test_layer_table_of_every_recipes_net(name):
    recipe = mnist_lib.get_recipe(name)
    table = layer_table(mnist_lib.make_net(recipe))
    assert table.parameters == mnist_lib.count_parameters(mnist_lib.make_net(recipe))
    side = recipe.crop // table[0].jump
    assert table[0].output_shape[1:] == (side, side)


def test_layer_table_of_the_sprint_net():
    table = layer_table(mnist_lib.SprintNet(crop=24), (1, 24, 24))
    by_hand = {"fold": (2, 2), "conv1": (6, 2), "conv2": (10, 2), "pool": (12, 4), "conv3": (20, 4)}
    fields = {row.name: (row.receptive_field, row.jump) for row in table}
    assert {name: fields[name] for name in by_hand} == by_hand
    assert table.parameters == 15_066


def test_gradients_are_the_assignments(pair):
    images, labels = torch.randn(16, 1, 28, 28), torch.arange(16) % 10
    for net in pair:
        F.nll_loss(net(images), labels).backward()
    literal, ours = (dict(net.named_parameters()) for net in pair)
    idle = {f"conv{number}.bias" for number in range(1, 6)}
    for name, parameter in ours.items():
        expected = literal[name].grad
        if name in idle:  # before batch norm: zero, up to rounding, and not computed
            assert parameter.grad is None
            assert expected.abs().max() < 1e-6
        else:
            torch.testing.assert_close(parameter.grad, expected, rtol=1e-4, atol=1e-5, msg=name)
            assert expected.abs().max() > 0


def test_layer_table_is_the_assignments_row_by_row():
    row = re.compile(r"(\w+)-\d+ +-> +\[-1, ([\d, ]+)\] +-> +([\d,]+)")
    expected = [match.groups() for match in row.finditer(TABLE)]
    assert len(expected) == 14
    table = layer_table(mnist_lib.Net())
    for layer, (kind, shape, parameters) in zip(table, expected, strict=True):
        assert layer.kind == kind
        assert layer.output_shape == tuple(int(size) for size in shape.split(", "))
        assert layer.parameters == int(parameters.replace(",", ""))
    assert table.parameters == 13_322


def test_receptive_fields_by_hand():
    table = layer_table(mnist_lib.Net())
    assert [layer.receptive_field for layer in table] == [
        *(3, 3, 5, 5, 6),
        *(10, 10, 14, 14, 16),
        *(24, 24, 32, 32),
    ]
    assert [layer.jump for layer in table] == [1] * 4 + [2] * 5 + [4] * 5


def test_receptive_fields_are_what_a_gradient_reaches():
    """Pixels that one output in the middle depends on, with every path open."""
    net = mnist_lib.Net(crop=128).eval()
    net.pool1, net.pool2 = nn.AvgPool2d(2, 2), nn.AvgPool2d(2, 2)  # max hides all but one path
    for parameter in net.parameters():
        nn.init.constant_(parameter, 0.1)
    table = layer_table(net, (1, 128, 128))
    outputs = {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda _, __, out, name=name: outputs.update({name: out}))
    image = torch.ones(1, 1, 128, 128, requires_grad=True)
    net(image)
    for layer in table:
        output = outputs[layer.name]
        middle = output.shape[-1] // 2
        (gradient,) = torch.autograd.grad(output[0, 0, middle, middle], image, retain_graph=True)
        reached = torch.nonzero(gradient[0, 0])
        height, width = (reached.max(dim=0).values - reached.min(dim=0).values + 1).tolist()
        assert height == width == layer.receptive_field, layer.name


def test_layer_table_of_another_net():
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
    assert net.training, "the table is made on a copy"


@pytest.mark.parametrize(
    ("net", "message"),
    [
        (nn.Sequential(nn.Conv2d(1, 1, (3, 1))), r"'0' has a kernel_size of \(3, 1\)"),
        (nn.Sequential(nn.ConvTranspose2d(1, 1, 3)), "'0' is a ConvTranspose2d"),
        (nn.Sequential(nn.AdaptiveAvgPool2d(5)), "pools 28 pixels to 5"),
    ],
)
def test_layer_table_refuses_what_it_cannot_compute(net, message):
    with pytest.raises(LayerError, match=message):
        layer_table(net)


def test_layer_table_notices_a_functional_pooling():
    class Pooling(mnist_lib.Net):
        def forward(self, x):
            return self.conv2(F.max_pool2d(self.conv1(x), 2))

    with pytest.raises(LayerError, match=r"'conv2' gets \(14, 14\).*'?\(28, 28\)"):
        layer_table(Pooling())


def test_table_prints_its_total():
    lines = str(layer_table(mnist_lib.Net())).splitlines()
    assert lines[0].split() == [
        "layer",
        "kind",
        "output",
        "shape",
        "parameters",
        "receptive",
        "field",
        "jump",
    ]
    assert lines[2].split() == ["conv1", "Conv2d", "8", "x", "28", "x", "28", "80", "3", "1"]
    assert lines[-1].split() == ["total", "13,322"]
