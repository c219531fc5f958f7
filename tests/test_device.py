"""On a GPU no step waits for the device, and the results are those of the CPU."""

import dataclasses
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import mnist_lib
from mnist_lib import RECIPES, get_recipe, make_net, train
from mnist_lib.training import HardExamples
from tests.runs import killing

META = torch.device("meta")  # it has no numbers; code that asks it for one would wait for a GPU


class Waits(TorchDispatchMode):
    """Lets code run on the meta device, and counts how often it asks for numbers."""

    def __init__(self):
        super().__init__()
        self.count, self.made_by = 0, ""

    def __torch_dispatch__(self, operation, types, args=(), options=None):
        name, options = operation.overloadpacket.__name__, options or {}
        given = [a for a in args if isinstance(a, torch.Tensor) and a.is_meta]
        to_host = options.get("device") == torch.device("cpu") or (
            name == "copy_" and args[0].device == torch.device("cpu")
        )
        if given and (to_host or name in ("_local_scalar_dense", "nonzero")):
            self.count += 1
            if name == "_local_scalar_dense":  # labels are in range, and no answer is nan
                return self.made_by not in ("any", "all") if given[0].dtype == torch.bool else 1
            if name == "nonzero":
                return torch.zeros(0, given[0].dim(), dtype=torch.long, device=META)
            return torch.zeros_like(given[0], device="cpu")
        if name.startswith("_fused_"):  # these need real numbers
            return None
        self.made_by = name
        return operation(*args, **options)


@pytest.fixture
def waits(monkeypatch, sample):
    """Train, and count how often that waits for the device, and the steps."""
    optim = sys.modules[torch.optim.Optimizer.__module__]
    monkeypatch.setattr(optim, "_get_fused_kernels_supported_devices", lambda: ["meta"])

    def count(images, recipe, hook=lambda *_: None):
        with torch.device(META):
            net = make_net(recipe)
        net.register_forward_hook(hook)
        with Waits() as mode:
            history = train(net, killing.few(sample, images), recipe, verbose=True)
        return mode.count, sum(epoch.batches for epoch in history)

    return count


@pytest.mark.parametrize("recipe", [*RECIPES.values(), get_recipe(optimizer="adam")])
def test_no_step_waits_for_the_device(waits, recipe):
    """A run with more steps waits as often as one with fewer."""
    recipe = dataclasses.replace(recipe, epochs=2, batch_size=32)
    (few, steps), (many, more_steps) = (waits(images, recipe) for images in (64, 128))
    assert steps < more_steps
    assert few == many


@pytest.mark.parametrize("call", [torch.Tensor.item, torch.Tensor.cpu, torch.Tensor.nonzero])
def test_a_step_that_waits_is_noticed(waits, call):
    """This shows that the test above can fail."""

    def hook(net, inputs, output):
        call(output.detach().sum())

    recipe = get_recipe("assignment", epochs=1)
    (few, steps), (many, more_steps) = (waits(images, recipe, hook) for images in (64, 128))
    assert many - few == more_steps - steps > 0


CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA")
# These tests also run on the CPU, so that they are known to work.
on_devices = pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=CUDA)])
RECIPE = get_recipe("fast", epochs=4, batch_size=16, first=1.0, hardest=0.75)


@on_devices
def test_batches_are_the_same_everywhere(sample, device):
    """Their order and moves are drawn on the CPU, also of the hardest images."""
    losses = torch.rand(64, generator=torch.Generator().manual_seed(0))
    drawn, images = [], sample.train_images[:64]
    for where in (device, "cpu"):
        examples = HardExamples(64, RECIPE, torch.device(where))
        examples.losses.copy_(losses)
        generator = torch.Generator().manual_seed(1)
        drawn.append([*examples.batches(1, generator), *examples.batches(2, generator)])
    for (batch, moves), (expected, expected_moves) in zip(*drawn, strict=True):
        assert batch.device.type == moves.device.type == device
        assert torch.equal(batch.cpu(), expected)
        assert torch.equal(moves.cpu(), expected_moves)
        there = mnist_lib.augment(images.to(device)[batch], moves, RECIPE)
        here = mnist_lib.augment(images[expected], expected_moves, RECIPE)
        torch.testing.assert_close(there.cpu(), here)


@on_devices
@pytest.mark.parametrize("name", ["fast", "faster"])
def test_nets_give_the_same_everywhere(sample, device, name):
    net = make_net(get_recipe(name))
    expected = mnist_lib.infer(net, sample.test_images[:64])
    there = mnist_lib.infer(net.to(device), sample.test_images[:64])
    torch.testing.assert_close(there.cpu(), expected, rtol=1e-3, atol=1e-3)


@on_devices
def test_a_few_steps_are_the_same_everywhere(sample, device):
    losses, once = [], dataclasses.replace(RECIPE, epochs=1)
    for where in (device, "cpu"):
        part, net = killing.few(sample, 64), lambda recipe, to=where: make_net(recipe).to(to)
        epochs, record, _ = killing.run(part, None, once, net=net)
        losses.append([epochs[0]["last_batch_loss"], epochs[0]["test_loss"]])
        assert record["device"].startswith(where)
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
