"""The nets agree with the assignment's table and with each other, and look at their crop."""

import re
from itertools import pairwise

import numpy
import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F
import torch.nn.utils.prune
from torchsummary import summary

from mnist_lib import RECIPES, FastNet, LeanNet, Net, ParameterError, SmallNet, get_recipe
from mnist_lib.augment import augment, normalize
from mnist_lib.evaluation import count_parameters, unwrapped
from mnist_lib.figures.layers import layer_table
from mnist_lib.net import conv_norm, set_seed
from mnist_lib.nets import LEAN, WIDTHS, FoldedNet
from mnist_lib.recipe import make_net
from mnist_lib.runs.folder import load_weights, save_run
from tests.test_history import make

# The assignment's table: layer, output shape, parameters, receptive field (wrong in part).
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
# Of each layer: class, output shape, parameters, receptive field.
ROWS = re.findall(r"(\w+)-\d+ +-> +\[-1, ([\d, ]+)\] +-> +([\d,]+) +-> (\d+)", TABLE)
NAMES = (
    "conv1 BatchNorm1 conv2 BatchNorm2 pool1 conv3 BatchNorm3 conv4 BatchNorm4 pool2 "
    "conv5 BatchNorm5 conv6 conv7"
)


def test_net_is_the_assignments_table_row_by_row():
    table = layer_table(Net())
    assert " ".join(layer.name for layer in table) == NAMES
    for layer, (kind, shape, parameters, _) in zip(table, ROWS, strict=True):
        assert layer.kind == kind
        assert layer.output_shape == tuple(map(int, shape.split(", ")))
        assert layer.parameters == int(parameters.replace(",", ""))
    assert table.parameters == count_parameters(Net()) == 13_322
    assert list(FastNet().state_dict()) == list(Net().state_dict())


@pytest.mark.parametrize("training", [True, False])
def test_fast_net_is_the_assignments_net(training):
    """The outputs are equal, and after several steps the weights and statistics are, too."""
    torch.manual_seed(0)
    nets = literal, fast = Net().double(), FastNet().double()
    for norm in literal.modules():
        if isinstance(norm, nn.BatchNorm2d):
            for tensor in (norm.weight, norm.bias, norm.running_mean):
                nn.init.normal_(tensor)
            nn.init.uniform_(norm.running_var, 0.5, 2)
    fast.load_state_dict(literal.state_dict())
    optimizers = [torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9) for net in nets]
    # Batch norm subtracts these biases again, so their gradient is not computed.
    idle = {f"conv{number}.bias" for number in range(1, 6)} if training else set()
    for _ in range(4):
        images, labels = torch.randn(16, 1, 28, 28).double(), torch.randint(10, (16,))
        theirs, ours = outputs = [net.train(training)(images) for net in nets]
        torch.testing.assert_close(ours, theirs)
        torch.testing.assert_close(ours.exp().sum(dim=1), torch.ones(16).double())
        for optimizer, output in zip(optimizers, outputs, strict=True):
            optimizer.zero_grad()
            F.nll_loss(output, labels).backward()
            optimizer.step()
        assert {name for name, p in fast.named_parameters() if p.grad is None} == idle
    for name, tensor in literal.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], tensor, msg=name)


@pytest.mark.parametrize("name", ["assignment", "fast", "faster", "small", "tiny"])
def test_crop_looks_at_the_middle_only(name):
    net = make_net(get_recipe(name, crop=24, views=1)).eval()
    images = torch.randn(4, 1, 28, 28)
    inner, rim = images[..., 2:26, 2:26], images.clone()
    rim[..., 2:26, 2:26] = 0
    assert torch.equal(net(images), net(images - rim))
    assert torch.equal(net(images), net(inner)), "already cropped, as augment gives them"
    whole = make_net(get_recipe(name, crop=28, views=1)).eval()
    whole.load_state_dict(net.state_dict())
    assert not torch.equal(net(images), whole(images))


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipes_net_is_in_the_budget(name):
    recipe = get_recipe(name)
    net = make_net(recipe)
    table = layer_table(net)
    assert table.parameters == count_parameters(net) < 20_000
    side = recipe.crop // table[0].jump
    assert table[0].output_shape[1:] == (side, side)
    assert net(torch.randn(2, 1, 28, 28)).exp().sum(dim=1).tolist() == pytest.approx([1, 1])
    kinds = dict.fromkeys(("small", "views"), SmallNet)
    kinds |= {"faster": FoldedNet, "tiny": LeanNet}
    assert type(unwrapped(net)) is kinds.get(name, FastNet)


@pytest.mark.parametrize("name", WIDTHS | LEAN)
def test_a_small_net_row_by_row(name):
    """A separable convolution has 9 weights per channel and one per pair of channels."""
    w = (WIDTHS | LEAN)[name]
    separable = [9 * before + before * after for before, after in pairwise(w)]
    norms = [2 * width for width in w] if name in WIDTHS else [*w[:-1], 2 * w[-1]]
    table = layer_table(make_net(get_recipe("small", net=name)), (1, 28, 28))
    rows = {layer.name: layer for layer in table}
    convs = ["convs.0", *(f"convs.{number}.1" for number in range(1, 7))]
    fields, sides = [3, 5, 10, 14, 18, 22, 26], [28, 28, 12, 10, 8, 6, 4]
    for number, (conv, field, side) in enumerate(zip(convs, fields, sides, strict=True)):
        assert rows[conv].output_shape == (w[number], side, side)
        assert rows[conv].receptive_field == field
        assert rows[f"norms.{number}"].parameters == norms[number]
        depth = rows[f"convs.{number}.0"].parameters if number else 0
        assert depth + rows[conv].parameters == (separable[number - 1] if number else 9 * w[0])
    if name in LEAN:
        assert w[-1] == 10
        assert table[-1].name == "norms.6"
    else:
        assert rows["convs.7"].output_shape == (10, 4, 4)
        assert rows["convs.7"].parameters == 10 * w[-1] + 10
    assert f"p{table.parameters}" == name, "its name says how many parameters it has"


@pytest.mark.parametrize("crop", [24, 28])
def test_views_are_corners_of_the_augmentation(sample, crop):
    """`augment` makes the same views; the net averages their probabilities."""
    recipe = get_recipe("views", net="assignment", crop=crop)
    images = sample.test_images[:20]
    net = make_net(recipe).eval()
    answers = []
    for turn, right, down in ((1, 1, 1), (-1, 1, -1), (-1, -1, 1), (1, -1, -1)):
        moves = torch.tensor([[turn, 0.0, right, down]]).expand(len(images), 4)
        answers.append(net.module(augment(images, moves, recipe)).exp())
    assert torch.allclose(net(normalize(images)).exp(), sum(answers) / 4, atol=1e-5)
    assert not torch.allclose(answers[0], answers[1], atol=1e-5)


def test_a_net_of_views_is_the_net_itself_in_training_and_on_file(tmp_path, sample):
    recipe, images = get_recipe("views", epochs=1), normalize(sample.test_images[:20])
    net, history = make_net(recipe), make(9950)
    assert torch.equal(net(images), net.module(images))
    save_run(tmp_path, history, net)
    plain = load_weights(make_net(get_recipe("views", views=1)), tmp_path).eval()
    again = load_weights(make_net(recipe), tmp_path).eval()
    assert torch.equal(plain(images), net.module.eval()(images))
    assert torch.equal(again(images), net.eval()(images))
    assert layer_table(net).parameters == count_parameters(net) == 7942


@pytest.mark.usefixtures("my_nets")
def test_a_net_of_your_own_is_imported_where_it_is_typed():
    before = torch.get_rng_state()
    recipe = get_recipe("fast", net="my_nets:TinyNet")
    assert torch.equal(torch.get_rng_state(), before)
    assert count_parameters(make_net(recipe)) == 7850
    assert make_net(get_recipe("fast", "net=my_nets:FastNet")).crop == 24
    for net, said in (
        ("my_nets.TinyNet", "net my_nets.TinyNet: did you mean 'my_nets:TinyNet'$"),
        ("my_netz:TinyNet", r"^net my_netz:TinyNet, .* must be a class .* got ModuleNotFoundError"),
        ("my_nets:TinyNt", r"got AttributeError\(.*'TinyNt'"),
        ("torch.nn:Linear", r"without arguments, got TypeError\(.* missing 2 required"),
        ("os:getcwd", "makes a torch.nn.Module without arguments, got '/"),
        ("broken:TinyNet", r"got SystemExit\(.*\)$"),
        ("a:b:c", "net must be one of assignment, .* such as my_nets:TinyNet, got 'a:b:c'"),
    ):
        with pytest.raises(ParameterError, match=said):
            get_recipe("fast", net=net)


def test_a_lean_net_has_a_channel_a_class():
    with pytest.raises(ParameterError, match=r"the last of widths must be 10, .*, got 9"):
        LeanNet((5, 8, 9))


def test_forward_hooks_see_every_layer_in_training_too(capsys):
    summary(make_net(get_recipe("fast")), (1, 28, 28), device="cpu")
    assert "Total params: 13,322" in capsys.readouterr().out


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(8, 16, 3, padding=2, dilation=2),
        nn.Conv2d(8, 16, 3, padding=1, padding_mode="reflect"),
        nn.Conv2d(8, 16, 3, padding=1, groups=8),
        nn.Conv2d(8, 16, 3, padding=1, bias=False),
        nn.utils.prune.l1_unstructured(nn.Conv2d(8, 16, 3, padding=1), "weight", 0.5),
    ],
)
def test_another_convolution_trains_as_it_is(conv):
    norm, x = nn.BatchNorm2d(16), torch.randn(4, 8, 9, 9)
    output, expected = conv_norm(conv, norm, x), nn.BatchNorm2d(16)(conv(x))
    torch.testing.assert_close(output, expected)
    output.square().sum().backward()
    assert all(part.grad is not None for name, part in conv.named_parameters() if name != "bias")


@pytest.mark.parametrize(
    "norm",
    [
        nn.GroupNorm(4, 8),
        nn.Identity(),
        nn.BatchNorm2d(8, momentum=None),
        nn.BatchNorm2d(8, track_running_stats=False),
    ],
)
def test_another_norm_trains_as_it_is(norm):
    net = FastNet()
    net.BatchNorm1 = norm
    assert net(torch.randn(2, 1, 28, 28)).requires_grad


def test_backward_hooks_see_every_convolution_in_training():
    net, seen = FastNet(), []
    for name in ("conv1", "conv2"):
        getattr(net, name).register_full_backward_hook(lambda *_, name=name: seen.append(name))
    net(torch.randn(2, 1, 28, 28, requires_grad=True)).sum().backward()
    assert seen == ["conv2", "conv1"]


def test_parameters_are_counted_once_frozen_or_not():
    layer = nn.Linear(3, 2).requires_grad_(False)
    assert count_parameters(nn.Sequential(layer, layer)) == 8


def test_a_seed_makes_the_weights():
    def weights(seed):
        set_seed(seed)
        return Net().conv1.weight

    assert torch.equal(weights(1), weights(numpy.int64(1)))
    assert torch.equal(weights(0), weights(None))
    assert not torch.equal(weights(1), weights(2))
    for seed in (-1, 1.5, "one", True, 2**63):
        with pytest.raises(ParameterError, match="seed must be a whole number from 0"):
            set_seed(seed)
