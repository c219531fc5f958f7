"""Training is reproducible to the bit, counts exactly, and does what a plain loop does."""

import copy
import dataclasses
import itertools
import sys
import time

import pytest
import torch
import torch.nn as nn
import torch.nn.functional as F

import mnist_lib
from mnist_lib import FastNet, Net, ParameterError, RunError, get_recipe, make_net, training
from mnist_lib.augment import Views
from mnist_lib.nets import FoldedNet
from tests.base.test_machine import python

RECIPE = get_recipe("assignment", epochs=2, batch_size=64)
FAST = get_recipe("fast")
EVERYTHING = get_recipe(
    "fast", epochs=2, rotation=10, shift=1, scale=0.1, first=0.9, hardest=0.5, label_smoothing=0.1
)
NORM = nn.Sequential(nn.Flatten(), nn.Linear(784, 10), nn.BatchNorm1d(10), nn.LogSoftmax(dim=1))


def run(data, recipe=RECIPE, seed=0, verbose=False):
    mnist_lib.set_seed(seed)
    net = make_net(recipe)
    return net, mnist_lib.train(net, data, recipe, seed=seed, verbose=verbose)


def without_times(history):
    return [dataclasses.replace(epoch, seconds=0.0) for epoch in history]


@pytest.fixture(scope="module")
def part(digits):
    return digits.take(500)


@pytest.fixture(scope="module")
def trained(part):
    """The net and the history of both recipes."""
    return {recipe: run(part, recipe) for recipe in (RECIPE, EVERYTHING)}


@pytest.mark.parametrize("recipe", [RECIPE, EVERYTHING])
def test_same_seed_same_bits_whatever_is_shown(part, trained, recipe):
    """The caller also gets exactly the net, averaged or not, that was tested last."""
    (net, history), (again, shown) = trained[recipe], run(part, recipe, verbose=True)
    assert without_times(history) == without_times(shown)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert mnist_lib.evaluate(net, part) == (history.final.test_loss, history.final.correct)


def test_another_seed_another_order(part):
    net, losses = make_net(RECIPE), []
    for seed in (0, 1):
        history = mnist_lib.train(copy.deepcopy(net), part, RECIPE, seed, verbose=False)
        losses.append([epoch.last_batch_loss for epoch in history])
    assert losses[0] != losses[1]


def test_loop_is_a_plain_loop_over_the_literal_net(part):
    """This is the same epoch, written again without the library."""
    torch.manual_seed(0)
    net = Net()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
    order = torch.randperm(500, generator=torch.Generator().manual_seed(0))
    images = (part.train_images[:, None] / 255 - 0.1307) / 0.3081
    for start in range(0, 500, 64):
        batch = order[start : start + 64]
        optimizer.zero_grad()
        loss = F.nll_loss(net(images[batch]), part.train_labels[batch])
        loss.backward()
        optimizer.step()
    ours, history = run(part, dataclasses.replace(RECIPE, epochs=1))
    assert history.final.last_batch_loss == pytest.approx(loss.item(), rel=1e-3)
    for name, tensor in ours.state_dict().items():
        torch.testing.assert_close(tensor, net.state_dict()[name], rtol=1e-2, atol=1e-3, msg=name)


def test_a_history_tells_what_was_done(part, trained):
    _, history = trained[RECIPE]
    expected = {"seed": 0, "train_images": 500, "parameters": 13_322, "data": part.digest}
    expected |= mnist_lib.environment(torch.device("cpu"))
    assert history.record == expected | {"recipe": dataclasses.asdict(RECIPE)}
    assert history.source == "digits"
    counted = [(epoch.epoch, epoch.images, epoch.batches) for epoch in history]
    assert counted == [(1, 1000, 8), (2, 1000, 8)], "500 in batches of 64, the last of 52"


def test_on_the_sample_every_epoch_takes_all_images(sample, digits):
    shares = dataclasses.replace(EVERYTHING, first=0.5, hardest=0.1)
    _, history = run(sample.take(640), shares)
    assert [epoch.batches for epoch in history] == [10, 10]
    assert history.recipe == dataclasses.replace(shares, first=1.0, hardest=1.0)
    _, whole = run(digits.take(640), history.recipe)
    assert without_times(history) == without_times(whole), "nothing else is changed"
    _, own = run(digits.take(640), shares)
    assert [epoch.batches for epoch in own] == [5, 1]


CHANGES = (
    {"batch_size": 50, "learning_rate": 0.1, "momentum": 0.8, "optimizer": "adam", "net": "sprint"}
    | {"crop": 26, "nesterov": False, "weight_decay": 0.1, "schedule": "constant", "warm_up": 0.5}
    | {"rotation": 0.0, "shift": 0.0, "scale": 0.0, "averaging": 0.0, "first": 1.0, "hardest": 1.0}
    | {"label_smoothing": 0.0}
)


@pytest.mark.parametrize("field", CHANGES)
def test_every_field_has_an_effect(part, trained, field):
    changed = dataclasses.replace(EVERYTHING, **{field: CHANGES[field]})
    assert without_times(run(part, changed)[1]) != without_times(trained[EVERYTHING][1])


def test_the_average_is_taken_after_the_step(part):
    """In the first step TensorFlow's schedule keeps 2/11 of the old average."""
    recipe = get_recipe("assignment", epochs=1, batch_size=500)
    mnist_lib.set_seed(0)
    start = make_net(recipe).state_dict()
    plain, _ = run(part, recipe)
    averaged, _ = run(part, dataclasses.replace(recipe, averaging=0.99))
    for name, tensor in averaged.state_dict().items():
        if tensor.is_floating_point():
            expected = start[name] * 2 / 11 + plain.state_dict()[name] * 9 / 11
            torch.testing.assert_close(tensor, expected, msg=name)


@pytest.mark.parametrize("averaging", [0.0, 0.9])
def test_a_compiled_net_trains_and_is_averaged_as_any(digits, averaging):
    """The caller compiles it. The backend here needs no compiler."""
    part, recipe = digits.take(128), dataclasses.replace(RECIPE, epochs=1, averaging=averaging)
    mnist_lib.set_seed(0)
    net = make_net(recipe)
    net.compile(backend="eager")
    history = mnist_lib.train(net, part, recipe, verbose=False)
    assert mnist_lib.evaluate(net, part)[1] == history.final.correct
    other, _ = run(part, recipe)
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(tensor, other.state_dict()[name], rtol=1e-2, atol=1e-3, msg=name)


@pytest.mark.parametrize(("net", "side"), [(Net(), 28), (FastNet(crop=24), 24)])
def test_augmented_images_are_as_large_as_the_net_looks_at(part, net, side):
    """A net without `crop` is trained on the whole images that it is tested on."""
    seen = []
    net.register_forward_pre_hook(lambda net, args: seen.append((net.training, args[0].shape[1:])))
    mnist_lib.train(net, part, get_recipe("fast", epochs=1), verbose=False)
    assert set(seen) == {(True, (1, side, side)), (False, (1, 28, 28))}


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_is_torchs(smoothing):
    recipe = get_recipe("fast", label_smoothing=smoothing)
    scores = torch.randn(7, 10, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([0, 1, 2, 3, 9, 9, 4])
    loss = training.training_loss(scores.log_softmax(dim=1), labels, recipe)
    torch.testing.assert_close(loss, F.cross_entropy(scores, labels, label_smoothing=smoothing))


def learning_rates(recipe, steps):
    """Return the learning rate of each step."""
    optimizer = training.make_optimizer(nn.Linear(1, 1), recipe)
    scheduler = training.make_scheduler(optimizer, recipe, steps)
    rates = []
    for _ in range(steps):
        rates += scheduler.get_last_lr()
        optimizer.step()
        scheduler.step()
    return rates


def test_learning_rates_by_hand():
    recipe = dataclasses.replace(EVERYTHING, learning_rate=1.0, warm_up=0.3)
    rates = learning_rates(recipe, 100)
    assert len(rates) == 100
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == pytest.approx(rates[29], rel=0.02) == pytest.approx(1.0, rel=0.02)
    assert rates[99] == pytest.approx(1 / 72, rel=0.1), "one step above nothing"
    for line in (rates[:29], rates[30:]):
        steps = [b - a for a, b in itertools.pairwise(line)]
        assert steps == pytest.approx([steps[0]] * len(steps)), "straight"
    assert learning_rates(get_recipe("assignment"), 50) == [0.01] * 50


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5, 9])
@pytest.mark.parametrize("warm_up", [0.0, 0.1, 0.2, 0.3, 0.5])
def test_one_cycle_of_few_steps(steps, warm_up):
    """The warm-up may be one step long, shorter, or missing."""
    recipe = get_recipe("faster", warm_up=warm_up)
    assert max(learning_rates(recipe, steps)) <= recipe.learning_rate * 1.000001


def test_unseen_images_are_scored_in_one_view(part):
    """Four views would take four times as long, and one ranks the images as well."""
    net = make_net(get_recipe("faster"))
    sampler = training.HardExamples(500, get_recipe("faster"), torch.device("cpu"))
    sampler.score_unseen(2, net, part)
    output = mnist_lib.infer(net.module, part.train_images)
    assert torch.equal(sampler.losses, F.nll_loss(output, part.train_labels, reduction="none"))


def test_adam_takes_the_recipes_numbers():
    recipe = get_recipe("assignment", optimizer="adam", learning_rate=0.003, weight_decay=0.1)
    (group,) = training.make_optimizer(Net(), recipe).param_groups
    assert (group["lr"], group["weight_decay"]) == (0.003, 0.1)


@pytest.mark.parametrize("name", ["assignment", "fast", "faster"])
def test_smallest_crop_and_a_last_batch_of_one(part, name):
    assert len(run(part, get_recipe(name, crop=20, epochs=1, batch_size=499))[1]) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"recipe": get_recipe(batch_size=501)}, "must be at most 500, .*, got 501"),
        *(({"seed": seed}, "seed must be a whole number") for seed in ("a", -1, 1.0, True)),
        ({"recipe": "fast"}, "recipe must be a Recipe, .*, got 'fast'"),
        ({"recipe": FAST}, "crop must be 24, as recipe 'fast' has it: .* got 28"),
        ({"recipe": FAST, "net": nn.DataParallel(FastNet())}, "crop must be 24, .* got 28"),
        ({"recipe": get_recipe("faster"), "net": FoldedNet(24)}, "views must be 4, .* got 1"),
        ({"net": Views(FastNet(), FAST)}, "views must be 1, as recipe 'assignment' has it.* got 4"),
        ({"data": torch.utils.data.DataLoader([])}, r"data must be an MNIST, .*DataLoader"),
        ({"resume": "yes"}, "resume must be True or False, got 'yes'"),
        ({"recipe": get_recipe(batch_size=1), "net": NORM}, "batch_size 1 a batch is one"),
        ({"recipe": get_recipe(batch_size=499), "net": NORM}, "batch_size 499 a batch is one"),
    ],
)
def test_arguments_that_do_not_fit_are_refused(part, arguments, message):
    with pytest.raises(ParameterError, match=message):
        mnist_lib.train(**{"net": FastNet(), "data": part, "recipe": RECIPE} | arguments)


def test_seconds_are_those_of_training(part):
    """They begin after the last trial of the net and end before its test."""
    calls, net = [], make_net(RECIPE)
    net.register_forward_hook(lambda *_: calls.append((net.training, time.perf_counter())))
    history = mnist_lib.train(net, part, dataclasses.replace(RECIPE, epochs=1), verbose=False)
    steps = [n for n, (training, _) in enumerate(calls) if training][-8:]
    first, last, test = (calls[n][1] for n in (steps[0], steps[-1], steps[-1] + 1))
    assert last - first < history.final.seconds < test - calls[steps[0] - 1][1]


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float64])
def test_losses_of_a_net_of_another_precision(part, kind):
    net = make_net(EVERYTHING)
    net.register_forward_hook(lambda module, inputs, output: output.to(kind))
    assert len(mnist_lib.train(net, part, EVERYTHING, verbose=False)) == 2


def test_divergence_in_the_last_step(part, tmp_path):
    recipe = dataclasses.replace(RECIPE, learning_rate=1e30, batch_size=500)
    with pytest.raises(RunError, match=rf"the net returns nan.*; {tmp_path} is empty"):
        mnist_lib.train(make_net(recipe), part, recipe, folder=tmp_path)


def test_divergence_is_named_at_once(part):
    calls, net = [], make_net(RECIPE)
    net.register_forward_hook(lambda *_: calls.append(net.training))
    message = r"epoch 1, batch_id 1, of .* nan; .* learning_rate below 1e\+30; nothing is kept"
    with pytest.raises(RunError, match=message):
        mnist_lib.train(net, part, dataclasses.replace(RECIPE, learning_rate=1e30))
    assert sum(calls) == 1 + 2, "a trial, and the steps to the first loss that is not finite"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_peak_memory():
    """Training takes at most 1 GB beside as much data as MNIST has."""
    code = (
        "import torch, mnist_lib\n"
        "images = torch.full((70_000, 28, 28), 7, dtype=torch.uint8)\n"
        "labels = torch.arange(70_000) % 10\n"
        "data = mnist_lib.MNIST(images[:60_000], labels[:60_000], images[60_000:],"
        " labels[60_000:], 'mnist').take(640)\n"
        "recipe = mnist_lib.get_recipe('assignment', epochs=1)\n"
        "mnist_lib.train(mnist_lib.make_net(recipe), data, recipe)\n"
        # getrusage would count the parent process's maximum, too.
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])\n"
    )
    assert int(python(code).splitlines()[-1]) * 1024 < 1e9


def test_import_is_quick_and_takes_no_matplotlib(monkeypatch):
    """It adds at most a tenth to the CPU time of `import torch`, and loads nothing heavy."""
    code = (
        "import os, sys, time, torch\n"
        "print(time.process_time(), flush=True)\n"  # else each child prints it, too
        "for _ in range(4):\n"  # only the first import has to compile
        "    if not os.fork():\n"
        "        start = time.process_time()\n"
        "        import mnist_lib\n"
        "        heavy = {'matplotlib', 'torchvision', 'mlxtend', 'safetensors'}\n"
        "        print(time.process_time() - start, *heavy.intersection(sys.modules))\n"
        "        sys.exit()\n"
        "    os.wait()\n"
    )
    monkeypatch.delenv("PYTHONDONTWRITEBYTECODE", raising=False)
    torchs, *ours = map(float, python(code).splitlines())
    assert len(ours) == 4
    assert min(ours) < torchs / 10


def test_defaults_of_torch_change_no_bit(digits):
    """Another default device or type; "meta" has no numbers, so nothing may be made there."""
    part, recipe = digits.take(500), dataclasses.replace(EVERYTHING, averaging=0.9, views=4)
    mnist_lib.set_seed(0)
    net = make_net(recipe)
    copies = [copy.deepcopy(net) for _ in range(2)]
    expected = without_times(mnist_lib.train(net, part, recipe, verbose=False))
    folds, scored = digits.hold_out(3), mnist_lib.evaluate(net, part)
    try:
        torch.set_default_device("meta")
        assert without_times(mnist_lib.train(copies[0], part, recipe, verbose=False)) == expected
        assert torch.equal(digits.hold_out(3).test_images, folds.test_images)
        assert mnist_lib.layer_table(copies[0])[0].output_shape == (8, 24, 24)
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float64)
        assert without_times(mnist_lib.train(copies[1], part, recipe, verbose=False)) == expected
        assert mnist_lib.evaluate(net, part) == scored
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


def test_autocast_around_training_sees_every_step(part):
    """Its cache would keep the weights of the first step."""
    mnist_lib.set_seed(0)
    recipe = get_recipe("fast", epochs=2, batch_size=64, hardest=1, first=1)
    net = make_net(recipe)
    with torch.autocast("cpu", torch.bfloat16):
        first, last = mnist_lib.train(net, part, recipe, verbose=False)
        assert mnist_lib.evaluate(net, part) == (last.test_loss, last.correct)
    assert last.train_correct > first.train_correct + 100


class Late(nn.Module):
    """Its second branch takes part from the third training step on; it counts the steps."""

    def __init__(self):
        super().__init__()
        self.one, self.two = nn.Linear(784, 10), nn.Linear(784, 10)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, x):
        self.steps += self.training
        x = x.flatten(1)
        return self.one(x) + self.two(x) if self.steps > 2 else self.one(x)


def test_a_branch_that_begins_late_and_a_count_of_steps(part):
    recipe = get_recipe("fast", epochs=1, crop=28, batch_size=50)
    net = Late()
    history = mnist_lib.train(net, part, recipe, verbose=False)
    assert net.steps == history.final.batches == 4
    assert not net.training
    assert mnist_lib.evaluate(net, part) == (history.final.test_loss, history.final.correct)
