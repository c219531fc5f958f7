"""On a device that is not the CPU: no step waits for it, and all comes out as on the CPU."""

import dataclasses
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mnist_lib
from mnist_lib import RECIPES, get_recipe, log, make_net, random_affine, training
from mnist_lib.training import HardExamples

from . import killing

META = torch.device("meta")  # it has no numbers: whatever asks for one would wait for a GPU


class Waits(TorchDispatchMode):
    """Runs on the meta device, and notes what asks for numbers while steps are taken."""

    def __init__(self):
        super().__init__()
        self.stepping, self.steps, self.found = False, 0, []

    def __torch_dispatch__(self, operation, types, args=(), options=None):
        name, options = operation.overloadpacket.__name__, options or {}
        given = [a for a in args if isinstance(a, torch.Tensor) and a.is_meta]
        to_host = options.get("device") == torch.device("cpu") or (
            name == "copy_" and args[0].device == torch.device("cpu")
        )
        if given and (to_host or name in ("_local_scalar_dense", "nonzero")):
            if self.stepping:
                self.found.append(name)
            if name == "_local_scalar_dense":
                return given[0].dtype == torch.bool or 1
            if name == "nonzero":
                return torch.zeros(0, given[0].dim(), dtype=torch.long, device=META)
            return torch.zeros_like(given[0], device="cpu")
        if name.startswith("_fused_"):  # which has no form without numbers
            return None
        return operation(*args, **options)


@pytest.fixture
def waits(monkeypatch):
    """The mode, under which `train` takes the way of a GPU from an epoch's first step to its last.

    What decides on numbers before or after the steps is replaced.
    """
    mode, augment, end = Waits(), training.augment, log.Progress.__exit__

    def first(*args):
        mode.stepping = True
        mode.steps += 1
        return augment(*args)

    def last(progress, *args):
        mode.stepping = False
        return end(progress, *args)

    monkeypatch.setattr(training, "augment", first)
    monkeypatch.setattr(log.Progress, "__exit__", last)
    monkeypatch.setattr(training, "log_probabilities", lambda net, _: net)
    monkeypatch.setattr(training, "check_in_training", lambda *_: None)
    monkeypatch.setattr(training, "evaluate", lambda *_: (0.5, 1))
    for optimizer in (torch.optim.SGD, torch.optim.Adam):
        module = sys.modules[optimizer.__module__]
        monkeypatch.setattr(module, "_device_dtype_check_for_fused", lambda *_, **__: None)
    return mode


@pytest.mark.parametrize("recipe", [*RECIPES, "adam"])
def test_no_step_waits_for_the_device(sample, waits, recipe):
    changes = {"optimizer": "adam"} if recipe == "adam" else {}
    recipe = get_recipe("assignment" if recipe == "adam" else recipe, epochs=2, **changes)
    with torch.device(META):
        net = make_net(recipe)
    data = sample.take(500)
    with waits:
        history = training.train(net, data, recipe, verbose=True)
    assert waits.steps == sum(epoch.batches for epoch in history)
    assert waits.found == []


@pytest.mark.parametrize("call", [torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.nonzero])
def test_a_step_that_waits_is_noticed(sample, waits, monkeypatch, call):
    """The comparison above can fail."""
    loss = training.training_loss
    monkeypatch.setattr(
        training, "training_loss", lambda *a: (call(loss(*a).detach()), loss(*a))[1]
    )
    with torch.device(META):
        net = make_net(RECIPES["assignment"])
    with waits:
        training.train(net, sample.take(64), get_recipe("assignment", epochs=1), verbose=False)
    assert len(waits.found) == 2


GPU = pytest.param(
    "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
)
# On the CPU, too, so that what is skipped without a GPU is known to run.
on_devices = pytest.mark.parametrize("device", ["cpu", GPU])
RECIPE = get_recipe("fast", epochs=4, batch_size=16, first=1.0, hardest=0.75)


@on_devices
def test_order_and_moves_are_the_same_everywhere(device):
    """Drawn on the CPU, whatever the device; of the hardest, too."""
    losses = torch.rand(64, generator=torch.Generator().manual_seed(0))
    drawn = []
    for where in (device, "cpu"):
        examples = HardExamples(64, RECIPE, torch.device(where))
        examples.losses.copy_(losses)
        generator = torch.Generator().manual_seed(1)
        drawn.append([*examples.batches(1, generator), *examples.batches(2, generator)])
    for (batch, moves), (expected, expected_moves) in zip(*drawn, strict=True):
        assert batch.device.type == moves.device.type == device
        assert torch.equal(batch.cpu(), expected)
        assert torch.equal(moves.cpu(), expected_moves)


@on_devices
def test_augmentation_is_the_same_everywhere(sample, device):
    images = sample.train_images[:64]
    moves = random_affine(64, RECIPE, torch.Generator().manual_seed(0))
    there = mnist_lib.augment(images.to(device), moves.to(device), RECIPE)
    torch.testing.assert_close(there.cpu(), mnist_lib.augment(images, moves, RECIPE))


@on_devices
@pytest.mark.parametrize("name", ["fast", "sprint"])
def test_nets_give_the_same_everywhere(sample, device, name):
    net = make_net(get_recipe(name))
    expected = mnist_lib.infer(net, sample.test_images[:64])
    there = mnist_lib.infer(net.to(device), sample.test_images[:64])
    torch.testing.assert_close(there.cpu(), expected, rtol=1e-3, atol=1e-3)


@on_devices
def test_a_few_steps_are_the_same_everywhere(sample, device):
    part, recipe = killing.few(sample, 64), dataclasses.replace(RECIPE, epochs=1)
    losses = []
    for where in (device, "cpu"):
        epochs, record, _ = killing.run(
            part, None, recipe, net=lambda r, w=where: make_net(r).to(w)
        )
        losses.append([epochs[0]["last_batch_loss"], epochs[0]["test_loss"]])
        assert record["device"].startswith(where)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)


class Dropping(torch.nn.Sequential):
    """Draws random numbers on its own device at every step."""

    def __init__(self):
        super().__init__(
            *(torch.nn.Flatten(), torch.nn.Dropout(), torch.nn.Linear(784, 10)),
            torch.nn.LogSoftmax(dim=1),
        )


@on_devices
def test_a_stopped_run_goes_on_with_the_devices_random_state(sample, tmp_path, device, monkeypatch):
    part, augment, calls = killing.few(sample, 64), training.augment, iter(range(100))

    def run(folder):
        return killing.run(part, folder, RECIPE, net=lambda _: Dropping().to(device))[0]

    whole = run(None)
    with monkeypatch.context() as patched:
        patched.setattr(training, "augment", lambda *a: augment(*a) if next(calls) < 9 else 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run(tmp_path)
    torch.rand(5, device=device)
    losses = [epoch["test_loss"] for epoch in run(tmp_path)]
    assert losses == pytest.approx([epoch["test_loss"] for epoch in whole], rel=1e-5)
