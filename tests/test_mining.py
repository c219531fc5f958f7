"""Hard example mining: who is chosen, what is known of each image, and what that costs others."""

import math

import pytest
import torch

import mnist_lib
from mnist_lib import get_recipe, infer, training
from mnist_lib.augment import augment
from mnist_lib.mining import HardExamples

from .test_training import run

CPU = torch.device("cpu")
QUARTER = get_recipe("fast", epochs=4, batch_size=64, first=1.0, hardest=0.25)
HALF_UNSEEN = get_recipe("fast", epochs=3, batch_size=64, first=0.5, hardest=0.25)


def certain(probabilities):
    """Log-probabilities (N, 10) that give label 0 these probabilities."""
    rest = [(1 - p) / 9 for p in probabilities]
    rows = [[p] + 9 * [r] for p, r in zip(probabilities, rest, strict=True)]
    return torch.tensor(rows, requires_grad=True).log()


def order(examples, epoch):
    return examples.order(epoch, torch.Generator().manual_seed(0)).tolist()


def test_the_hardest_are_chosen_and_come_back():
    examples = HardExamples(4, get_recipe("fast", first=1.0, hardest=0.5), CPU)
    labels = torch.zeros(4, dtype=torch.long)
    assert sorted(order(examples, 1)) == [0, 1, 2, 3]
    examples.update(torch.tensor([3, 1]), certain([0.9, 0.1]), labels[:2])
    examples.update(torch.tensor([0, 2]), certain([0.2, 0.5]), labels[:2])
    known = [-math.log(p) for p in (0.2, 0.1, 0.5, 0.9)]
    assert examples.losses.tolist() == pytest.approx(known)
    assert sorted(order(examples, 2)) == [0, 1]
    examples.update(torch.tensor([0, 1]), certain([0.99, 0.6]), labels[:2])
    assert sorted(order(examples, 3)) == [1, 2], "2 was left out and is harder now"
    assert not examples.losses.requires_grad


def test_the_loss_is_that_of_the_label():
    examples = HardExamples(2, QUARTER, CPU)
    examples.update(torch.tensor([1]), certain([0.1]), torch.tensor([7]))
    assert examples.losses.tolist() == [math.inf, pytest.approx(-math.log(0.1))]
    assert examples.unseen(1).tolist() == [], "of the first epoch no loss is asked"
    assert examples.unseen(2).tolist() == [0]


def test_order_is_shuffled_from_the_generator():
    examples = HardExamples(1000, QUARTER, CPU)
    examples.losses = torch.linspace(0, 1, 1000)
    assert order(examples, 2) == order(examples, 2) != sorted(order(examples, 2))
    assert sorted(order(examples, 2)) == list(range(750, 1000))


def test_where_all_are_trained_on_nothing_is_kept():
    examples = HardExamples(3, get_recipe("logged"), CPU)
    examples.update(torch.tensor([0]), certain([0.5]), torch.tensor([0]))
    assert examples.state_dict()["losses"].numel() == len(examples.unseen(2)) == 0
    assert sorted(order(examples, 9)) == [0, 1, 2]


@pytest.mark.parametrize(
    ("first", "hardest", "count", "images", "steps"),
    [
        (1.0, 1.0, 500, [500, 500, 500], [8, 8, 8]),
        (1.0, 0.25, 60_000, [60_000, 15_000, 15_000], [938, 235, 235]),
        (0.5, 1.0, 500, [250, 500, 500], [4, 8, 8]),
        (0.35, 0.08, 60_000, [21_000, 4_800, 4_800], [329, 75, 75]),
        (0.001, 0.001, 100, [1, 1, 1], [1, 1, 1]),
    ],
)
def test_images_and_steps_of_each_epoch(first, hardest, count, images, steps):
    recipe = get_recipe("fast", epochs=3, batch_size=64, first=first, hardest=hardest)
    assert [recipe.epoch_images(epoch, count) for epoch in (1, 2, 3)] == images
    assert recipe.epoch_steps(count) == steps


@pytest.mark.parametrize("recipe", [QUARTER, HALF_UNSEEN])
def test_training_takes_the_hardest(sample, monkeypatch, recipe):
    """What the steps see are the images of highest loss after the epoch before, and no others."""
    seen, chosen = [], []

    def watched(images, numbers, recipe):
        seen.append(images)
        return augment(images, numbers, recipe)

    class Watched(HardExamples):
        def order(self, epoch, random):
            images = super().order(epoch, random)
            chosen.append(images)
            if epoch > 1:
                least = self.losses[images].min()
                assert (self.losses >= least).sum() == len(images)
            return images

    monkeypatch.setattr(training, "augment", watched)
    monkeypatch.setattr(training, "HardExamples", Watched)
    part = sample.take(500)
    _, history = run(part, recipe=recipe)
    steps = recipe.epoch_steps(500)
    assert [epoch.batches for epoch in history] == steps
    first = round(500 * recipe.first)
    assert [len(images) for images in chosen] == [first] + (recipe.epochs - 1) * [125]
    second = torch.cat(seen[steps[0] : steps[0] + steps[1]])
    assert torch.equal(second, part.train_images[chosen[1]])


def test_the_unseen_are_scored_by_the_average(sample, monkeypatch):
    """Before the second epoch, by the net that was tested after the first, and no others."""
    part, scored, tested = sample.take(500), [], []

    class Watched(HardExamples):
        def update(self, numbers, output, labels):
            super().update(numbers, output, labels)
            if len(numbers) > HALF_UNSEEN.batch_size:
                scored.append((numbers, self.losses[numbers]))

    def test(net, data):
        if not tested:
            tested.append(infer(net, data.train_images))
        return mnist_lib.test(net, data)

    monkeypatch.setattr(training, "HardExamples", Watched)
    monkeypatch.setattr(training, "test", test)
    run(part, recipe=HALF_UNSEEN)
    ((numbers, losses),) = scored
    first = torch.randperm(500, generator=torch.Generator().manual_seed(0))[:250]
    assert sorted([*numbers.tolist(), *first.tolist()]) == list(range(500))
    by_hand = -tested[0].gather(1, part.train_labels[:, None]).squeeze(1)[numbers]
    torch.testing.assert_close(losses, by_hand)


def test_the_rate_falls_to_the_end_of_all_steps(sample, monkeypatch):
    totals = []
    make = training.make_scheduler

    def watched(optimizer, recipe, steps):
        totals.append(steps)
        return make(optimizer, recipe, steps)

    monkeypatch.setattr(training, "make_scheduler", watched)
    run(sample.take(500), recipe=QUARTER)
    assert totals == [8 + 2 + 2 + 2]
