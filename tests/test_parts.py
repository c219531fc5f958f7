"""The parts of training: the moving average of the weights, and who the hardest images are."""

import pytest
import torch
import torch.nn as nn

from mnist_lib import get_recipe, make_net, set_seed, train, training
from mnist_lib.training import HardExamples, WeightAverage

CPU = torch.device("cpu")
QUARTER = get_recipe("fast", epochs=4, first=1.0, hardest=0.25)
HALF_UNSEEN = get_recipe("fast", epochs=3, first=0.5, hardest=0.25)


def small_net(value):
    """All its weights and running statistics are `value`."""
    net = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    for tensor in net.state_dict().values():
        tensor.fill_(value)
    return net


def test_the_average_is_the_weighted_sum():
    """Over more than 8 steps: the early ones' smaller share and the decay are both seen."""
    net, expected = small_net(10.0), 10.0
    average = WeightAverage(net, decay=0.5)
    for steps, value in enumerate([1.0, 2.0, -3.0, 4.0, 0.5, 7.0, 7.0, 7.0, 7.0], 1):
        net.load_state_dict(small_net(value).state_dict())
        average.update()
        keep = min(0.5, (1 + steps) / (10 + steps))
        expected = keep * expected + (1 - keep) * value
        for name, tensor in average.net.state_dict().items():
            if tensor.is_floating_point():
                assert tensor.flatten().tolist() == pytest.approx([expected] * tensor.numel()), name


@pytest.mark.parametrize("decay", [0, 0.9])
def test_the_net_itself_is_left_alone(decay):
    net = small_net(1.0)
    average = WeightAverage(net, decay)
    average.update()
    assert (average.net is net) is (not decay)
    assert {1.0} == {x for tensor in net.state_dict().values() for x in tensor.flatten().tolist()}


def certain(probabilities):
    """Log-probabilities (N, 10) that give label 0 these probabilities."""
    rows = [[p] + 9 * [(1 - p) / 9] for p in probabilities]
    return torch.tensor(rows, requires_grad=True).log()


def order(examples, epoch):
    return examples.order(epoch, torch.Generator().manual_seed(0)).tolist()


def test_the_hardest_are_chosen_and_come_back():
    examples = HardExamples(4, get_recipe("fast", first=1.0, hardest=0.5), CPU)
    labels = torch.zeros(4, dtype=torch.long)
    examples.update(torch.tensor([3, 1]), certain([0.9, 0.1]), labels[:2])
    examples.update(torch.tensor([0, 2]), certain([0.2, 0.5]), labels[:2])
    assert examples.losses.exp().tolist() == pytest.approx([1 / 0.2, 1 / 0.1, 1 / 0.5, 1 / 0.9])
    assert sorted(order(examples, 2)) == [0, 1]
    examples.update(torch.tensor([0, 1]), certain([0.99, 0.6]), labels[:2])
    assert sorted(order(examples, 3)) == [1, 2], "2 was left out and is harder now"
    assert not examples.losses.requires_grad


def test_order_is_shuffled_from_the_generator():
    examples = HardExamples(1000, QUARTER, CPU)
    examples.losses = torch.linspace(0, 1, 1000)
    assert order(examples, 2) == order(examples, 2) != sorted(order(examples, 2))
    assert sorted(order(examples, 2)) == list(range(750, 1000))


def test_if_all_are_trained_on_nothing_is_kept():
    examples = HardExamples(3, get_recipe("assignment"), CPU)
    examples.update(torch.tensor([0]), certain([0.5]), torch.tensor([0]))
    assert len(examples.unseen(2)) == 0, "none is asked of any net"
    assert examples.state_dict()["losses"].numel() == 0
    assert sorted(order(examples, 9)) == [0, 1, 2]


@pytest.mark.parametrize("recipe", [QUARTER, HALF_UNSEEN])
def test_training_takes_the_hardest(digits, monkeypatch, recipe):
    """Its calls played again: an image's loss is its last step's or, if unseen, the average's."""
    set_seed(0)
    calls, part, net = [], digits.take(500), make_net(recipe)

    def watch(owner, name):
        function = getattr(owner, name)

        def watched(*args):
            calls.append((name, args, function(*args)))
            return calls[-1][2]

        monkeypatch.setattr(owner, name, watched)

    for name in ("order", "update"):
        watch(HardExamples, name)
    for name in ("augment", "infer", "evaluate", "make_scheduler"):
        watch(training, name)
    history = train(net, part, recipe, verbose=False)
    losses, right = torch.full((500,), torch.inf), []
    for name, args, result in calls:
        if name == "order":
            if right:
                assert len(result) == 125 == (losses >= losses[result].min()).sum()
            else:
                shuffled = torch.randperm(500, generator=torch.Generator().manual_seed(0))
                assert torch.equal(result, shuffled[: round(500 * recipe.first)])
            batches = iter(result.split(64))
            right.append(0)
        elif name == "augment":
            batch = next(batches)
            assert torch.equal(args[0], part.train_images[batch])
        elif name == "evaluate":
            tested = args[0]
        elif name == "infer":
            batch = losses.isinf().nonzero().squeeze(1)
            assert args[0] is tested is not net
            assert torch.equal(args[1], part.train_images[batch])
        elif name == "make_scheduler":
            assert args[2] == sum(recipe.epoch_steps(500)), "the rate falls to the very end"
        else:
            assert torch.equal(args[1], batch)
            output, labels = args[2].detach(), part.train_labels[batch]
            losses[batch] = -output[range(len(batch)), labels]
            right[-1] += (output.argmax(dim=1) == labels).sum().item() * (len(batch) <= 64)
    assert [epoch.batches for epoch in history] == recipe.epoch_steps(500)
    assert [epoch.train_correct for epoch in history] == right


def test_tied_weights_are_averaged_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    nn.init.zeros_(net[0].weight)
    average = WeightAverage(net, decay=0.9)
    nn.init.ones_(net[0].weight)
    average.update()
    assert torch.allclose(average.net[0].weight, torch.full((2, 2), 1 - 2 / 11))
    assert average.net[0].weight is average.net[1].weight
