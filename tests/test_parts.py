"""The parts of training: the moving average of the weights, and who the hardest images are."""

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

from mnist_lib import augment, evaluate, get_recipe, infer, make_net, random_affine, set_seed, train
from mnist_lib.training import HardExamples, WeightAverage, make_optimizer, make_scheduler
from mnist_lib.training import training_loss as loss_of

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


def test_the_losses_that_are_kept():
    """None, if all images are trained on; then no net is asked for any, either."""
    output = torch.zeros(1, 10, requires_grad=True).log_softmax(dim=1)
    for recipe, kept in ((QUARTER, 3), (get_recipe("assignment"), 0)):
        examples = HardExamples(3, recipe, torch.device("cpu"))
        examples.update(torch.tensor([0]), output, torch.tensor([0]))
        assert examples.state_dict()["losses"].numel() == kept
        assert not examples.losses.requires_grad
    examples.score_unseen(2, None, None)  # it asks no net
    assert sorted(examples.order(9, torch.Generator()).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("recipe", [QUARTER, HALF_UNSEEN])
def test_training_takes_the_hardest(digits, recipe):
    """As this loop does: a loss is that of an image's last step or, if unseen, the average's."""
    part, losses, epochs = digits.take(500), torch.full((500,), torch.inf), []
    images, labels = part.train_images, part.train_labels
    set_seed(0)
    net, generator = make_net(recipe), torch.Generator().manual_seed(0)
    optimizer, average = make_optimizer(net, recipe), WeightAverage(net, recipe.averaging)
    # The rate falls to the very end.
    scheduler = make_scheduler(optimizer, recipe, sum(recipe.epoch_steps(500)))
    for epoch in range(1, recipe.epochs + 1):
        if epoch == 1:
            order = torch.randperm(500, generator=generator)[: round(500 * recipe.first)]
        else:
            unseen = losses.isinf().nonzero().squeeze(1)
            if len(unseen):
                output = infer(average.net, images[unseen])
                losses[unseen] = F.nll_loss(output, labels[unseen], reduction="none")
            order = losses.topk(125).indices[torch.randperm(125, generator=generator)]
        moves, right = random_affine(len(order), recipe, generator), 0
        net.train()
        for batch, move in zip(order.split(64), moves.split(64), strict=True):
            optimizer.zero_grad()
            output = net(augment(images[batch], move, recipe))
            loss_of(output, labels[batch], recipe).backward()
            optimizer.step()
            scheduler.step()
            average.update()
            losses[batch] = F.nll_loss(output.detach(), labels[batch], reduction="none")
            right += (output.argmax(dim=1) == labels[batch]).sum().item()
        epochs.append((len(order.split(64)), right, *evaluate(average.net, part)))
    set_seed(0)
    trained = make_net(recipe)
    history = train(trained, part, recipe, verbose=False)
    assert [(e.batches, e.train_correct, e.test_loss, e.correct) for e in history] == epochs
    for name, tensor in trained.state_dict().items():
        assert torch.equal(tensor, average.net.state_dict()[name])


def test_tied_weights_are_averaged_once():
    net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    net[1].weight = net[0].weight
    nn.init.zeros_(net[0].weight)
    average = WeightAverage(net, decay=0.9)
    nn.init.ones_(net[0].weight)
    average.update()
    assert torch.allclose(average.net[0].weight, torch.full((2, 2), 1 - 2 / 11))
    assert average.net[0].weight is average.net[1].weight
