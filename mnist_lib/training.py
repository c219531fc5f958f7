"""The training loop, in plain sight, and the test after each epoch."""

import dataclasses
import math
import sys
import time

import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm

from .checks import is_whole
from .data import MNIST, normalize
from .device import environment, keep_freed_memory
from .errors import ParameterError, RunError
from .history import Epoch, History, bar_text
from .net import count_parameters
from .recipe import Recipe

TEST_BATCH = 250  # images; larger ones take memory
REFRESHES = 10  # of the progress bar an epoch; each one waits for the GPU


def set_seed(seed: int) -> None:
    """Seed torch's random numbers, from which a new net's weights are drawn.

    Raises ParameterError unless `seed` is a whole number from 0 to 2**63 - 1.
    """
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise ParameterError(f"seed takes a whole number from 0 to 2**63 - 1, not {seed!r}")
    torch.manual_seed(seed)


def train(
    net: nn.Module, data: MNIST, recipe: Recipe, seed: int = 0, verbose: bool = True
) -> History:
    """Train `net` in place on the device it is on, and test it after each epoch.

    `seed` fixes the order of the images (the net's initial weights are the caller's to seed).
    On the CPU of one machine with one number of threads, the same net, data, recipe and seed give
    the same history (times aside) and the same weights to the bit. (A net that draws random
    numbers itself, as dropout does, needs `set_seed` just before as well.)

    `verbose` prints in the assignment's format: the progress bar to stderr, the test line to
    stdout; `parse_log` reads both back.

    Raises ParameterError where the batch is larger than the training set, RunError where the loss
    is no longer finite.
    """
    data.check_batch_size(recipe.batch_size)
    device = next(net.parameters()).device
    data = data.to(device)  # images stay bytes: a quarter of the memory, normalised by batch
    images, labels = data.train_images, data.train_labels
    record = {
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "parameters": count_parameters(net),
        "train_images": len(images),
        "environment": environment(device),
    }
    if device.type == "cpu":
        keep_freed_memory()
        net.to(memory_format=torch.channels_last)  # the faster layout of oneDNN's convolutions
    optimizer = make_optimizer(net, recipe)
    # On the CPU for every device, so that the order does not depend on the device.
    shuffle = torch.Generator().manual_seed(seed)
    epochs = []
    for epoch in range(1, recipe.epochs + 1):
        start = time.perf_counter()
        net.train()
        batches = torch.randperm(len(images), generator=shuffle).to(device).split(recipe.batch_size)
        bar = tqdm(total=len(batches), file=sys.stderr, mininterval=1, disable=not verbose)
        for batch_id, batch in enumerate(batches):
            optimizer.zero_grad()
            output = net(normalize(images[batch]))
            loss = F.nll_loss(output, labels[batch])
            loss.backward()
            optimizer.step()
            bar.update()
            if verbose and batch_id % (len(batches) // REFRESHES + 1) == 0:
                bar.set_description(bar_text(loss.item(), batch_id), refresh=False)
        last_batch_loss = loss.item()  # waits for the device: the epoch's time ends here
        seconds = time.perf_counter() - start
        bar.set_description(bar_text(last_batch_loss, batch_id))
        bar.close()
        test_loss, correct = test(net, data)
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
    return History(tuple(epochs), source=data.source, record=record)


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters of `net`."""
    # Fused: one kernel for all parameters. MPS has it for some optimisers only.
    fused = next(net.parameters()).device.type != "mps"
    if recipe.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), lr=recipe.learning_rate, fused=fused)
    return torch.optim.SGD(
        net.parameters(), lr=recipe.learning_rate, momentum=recipe.momentum, fused=fused
    )


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
