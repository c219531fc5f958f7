"""The training loop, in plain sight, and the test after each epoch."""

import dataclasses
import math
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm

from .augment import augment, draw
from .average import WeightAverage
from .checks import is_whole
from .data import MNIST, normalize
from .device import environment, keep_freed_memory
from .errors import ParameterError, RunError
from .history import Epoch, History, bar_text
from .net import count_parameters
from .recipe import Recipe

TEST_BATCH = 250  # images; larger ones take memory
REFRESHES = 10  # of the progress bar's loss, an epoch; on the CPU, where they cost nothing


def set_seed(seed: int) -> None:
    """Seed torch's random numbers, from which a new net's weights are drawn.

    Raises ParameterError unless `seed` is a whole number from 0 to 2**63 - 1.
    """
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise ParameterError(f"seed takes a whole number from 0 to 2**63 - 1, not {seed!r}")
    torch.manual_seed(seed)


def train(
    net: nn.Module,
    data: MNIST,
    recipe: Recipe,
    seed: int = 0,
    verbose: bool = True,
    compiled: bool = False,
) -> History:
    """Train `net` in place on the device it is on, and test it after each epoch.

    `seed` fixes the order of the images and their augmentation (the net's initial weights are the
    caller's to seed). On the CPU of one machine with one number of threads, the same net, data,
    recipe and seed give the same history (times aside) and the same weights to the bit. (A net that
    draws random numbers itself, as dropout does, needs `set_seed` just before as well.)

    Where the recipe averages weights, the average is what is tested, and what `net` ends with.

    `verbose` prints in the assignment's format: the progress bar to stderr, the test line to
    stdout; `parse_log` reads both back. `compiled` lets torch.compile fuse the net: the same to
    rounding, after a pause of its own that counts as training time.

    Raises ParameterError where the batch is larger than the training set, RunError where the loss
    is no longer finite.
    """
    data.check_batch_size(recipe.batch_size)
    if not isinstance(compiled, bool):
        raise ParameterError(f"compiled takes True or False, not {compiled!r}")
    device = next(net.parameters()).device
    data = data.to(device)  # images stay bytes: a quarter of the memory, normalised by batch
    images, labels = data.train_images, data.train_labels
    record = {
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "parameters": count_parameters(net),
        "train_images": len(images),
        "compiled": compiled,
        "environment": environment(device),
    }
    if device.type == "cpu":
        keep_freed_memory()
    optimizer = make_optimizer(net, recipe)
    steps = -(-len(images) // recipe.batch_size)  # an epoch's
    scheduler = make_scheduler(optimizer, recipe, steps * recipe.epochs)
    average = WeightAverage(net, recipe.averaging)
    model = torch.compile(net) if compiled else net
    # On the CPU for every device, so that the order does not depend on the device.
    random = torch.Generator().manual_seed(seed)
    epochs = []
    for epoch in range(1, recipe.epochs + 1):
        start = time.perf_counter()
        net.train()
        # All that the epoch takes from the CPU goes to the device here: no step waits for it.
        batches = torch.randperm(len(images), generator=random).to(device).split(recipe.batch_size)
        numbers = draw(len(images), recipe, random).to(device).split(recipe.batch_size)
        bar = tqdm(total=len(batches), file=sys.stderr, mininterval=1, disable=not verbose)
        for batch_id, batch in enumerate(batches):
            optimizer.zero_grad()
            output = model(augment(images[batch], numbers[batch_id], recipe))
            loss = F.nll_loss(output, labels[batch])
            loss.backward()
            optimizer.step()
            scheduler.step()
            average.update()
            bar.update()
            if device.type == "cpu" and verbose and batch_id % (steps // REFRESHES + 1) == 0:
                bar.set_description(bar_text(loss.item(), batch_id), refresh=False)
        last_batch_loss = loss.item()  # waits for the device: the epoch's time ends here
        seconds = time.perf_counter() - start
        bar.set_description(bar_text(last_batch_loss, batch_id))
        bar.close()
        test_loss, correct = test(average.net, data)
        if not (math.isfinite(last_batch_loss) and math.isfinite(test_loss)):
            raise RunError(
                f"training diverged in epoch {epoch} of recipe {recipe.name!r}: the loss is "
                f"{last_batch_loss}, on the test set {test_loss}; try a learning_rate below "
                f"{recipe.learning_rate}"
            )
        epochs.append(
            Epoch(
                epoch=epoch,
                test_loss=test_loss,
                correct=correct,
                images=len(data.test_images),
                last_batch_loss=last_batch_loss,
                batches=len(batches),
                seconds=seconds,
                batches_per_second=len(batches) / seconds,
            )
        )
        if verbose:
            print(epochs[-1].test_line(), flush=True)
    net.load_state_dict(average.net.state_dict())
    return History(tuple(epochs), source=data.source, record=record)


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters of `net`."""
    values = {
        "lr": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        # One kernel for all parameters. MPS has it for some optimisers only.
        "fused": next(net.parameters()).device.type != "mps",
    }
    if recipe.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), **values)
    return torch.optim.SGD(
        net.parameters(), momentum=recipe.momentum, nesterov=recipe.nesterov, **values
    )


def make_scheduler(
    optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """The recipe's learning rate over `steps` steps of the optimiser.

    "one_cycle" is torch's OneCycleLR with straight lines and the momentum left alone: from a
    tenth of the peak up to it, then down to nothing (Smith and Topin 2018).
    """
    if recipe.schedule == "constant":
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        recipe.learning_rate,
        total_steps=steps + 1,  # the rate after the last step counts too
        pct_start=recipe.warm_up,
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=10,
        final_div_factor=100,
    )


def learning_rates(recipe: Recipe, steps: int) -> list[float]:
    """The learning rate of each of `steps` steps."""
    optimizer = make_optimizer(nn.Linear(1, 1), recipe)
    scheduler = make_scheduler(optimizer, recipe, steps)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@torch.no_grad()
def infer(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """Log-probabilities (N, 10) of uint8 images (N, 28, 28), in evaluation mode, net's device."""
    device = next(net.parameters()).device
    was_training = net.training
    net.eval()
    output = [net(normalize(part.to(device))) for part in images.split(TEST_BATCH)]
    net.train(was_training)
    return torch.cat(output)


def test(net: nn.Module, data: MNIST) -> tuple[float, int]:
    """Mean negative log-likelihood (nats) over the test images, and how many are right."""
    output = infer(net, data.test_images)
    labels = data.test_labels.to(output.device)
    loss = F.nll_loss(output, labels, reduction="sum").item() / len(labels)
    correct = (output.argmax(dim=1) == labels).sum().item()
    return loss, correct
