"""The training loop, in plain sight, and the test after each epoch."""

import dataclasses
import math
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn as nn
import torch.nn.functional as F
from tqdm import tqdm

from .augment import augment, draw
from .average import WeightAverage
from .checkpoint import Checkpoints
from .checks import check_seed
from .data import MNIST, normalize
from .device import environment, keep_freed_memory
from .errors import ParameterError, RunError
from .files import as_folder
from .history import Epoch, History, bar_text
from .mining import HardExamples
from .net import count_parameters
from .recipe import Recipe, check_recipe

TEST_BATCH = 250  # images; larger ones take memory
REFRESHES = 10  # of the progress bar's loss, an epoch; on the CPU, where they cost nothing


def set_seed(seed: int) -> None:
    """Seed torch's random numbers, from which a new net's weights are drawn.

    Raises ParameterError unless `seed` is a whole number from 0 to 2**63 - 1.
    """
    check_seed(seed)
    torch.manual_seed(seed)


def train(
    net: nn.Module,
    data: MNIST,
    recipe: Recipe,
    seed: int = 0,
    verbose: bool = True,
    compiled: bool = False,
    folder: str | os.PathLike | None = None,
    resume: bool = True,
) -> History:
    """Train `net` in place on the device it is on, and test it after each epoch.

    `seed` fixes the order of the images and their augmentation (the net's initial weights are the
    caller's to seed). On the CPU of one machine with one number of threads, the same net, data,
    recipe and seed give the same history (times aside) and the same weights to the bit. (A net that
    draws random numbers itself, as dropout does, needs `set_seed` just before as well.)

    Where the recipe averages weights, the average is what is tested, and what `net` ends with.
    Where it takes the hardest images only, an epoch after the first is over those (`mining.py`);
    those that the first left out are scored by inference before the second, in its time.
    What `verbose` shows and the history keeps of a step is the loss that it lowered, of smoothed
    labels where the recipe smooths them; the test's is never smoothed.

    `verbose` prints in the assignment's format: the progress bar to stderr, the test line to
    stdout; `parse_log` reads both back. `compiled` lets torch.compile fuse the net: the same to
    rounding, after a pause of its own that counts as training time.

    With a `folder`, each epoch leaves a checkpoint and the history so far in it, and a run that
    was stopped, however it was, goes on after its last whole epoch: to the same history and
    weights, to the bit, as if it had not been stopped. A finished one is not trained again. With
    `resume` False it is trained anew, and replaces what is there.

    Raises ParameterError for a seed or a recipe that is none, a batch larger than the training set,
    or a net that looks at another part of the images than the recipe (`crop`); RunError where
    torch.compile fails, where a loss is not finite (at once on the CPU, elsewhere when the epoch
    ends, since a look at every loss would hold the device up), or where `folder` holds another
    run, is in use by one or cannot be written.
    """
    check_recipe(recipe)
    data.check_batch_size(recipe.batch_size)
    check_seed(seed)
    for name, value in (("compiled", compiled), ("resume", resume)):
        if not isinstance(value, bool):
            raise ParameterError(f"{name} takes True or False, not {value!r}")
    if getattr(net, "crop", recipe.crop) != recipe.crop:
        raise ParameterError(
            f"net looks at the middle {net.crop} pixels of the images, recipe {recipe.name!r} at "
            f"{recipe.crop}: make the net with make_net(recipe)"
        )
    device = next(net.parameters()).device
    record = {
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        "parameters": count_parameters(net),
        "train_images": len(data.train_images),
        "data": data.digest,
        "compiled": compiled,
        "environment": environment(device),
    }
    data = data.to(device)  # images stay bytes: a quarter of the memory, normalised by batch
    images, labels = data.train_images, data.train_labels
    if device.type == "cpu":
        keep_freed_memory()
    steps = recipe.epoch_steps(len(images))
    parts = make_parts(net, recipe, len(images))
    average, optimizer, scheduler = parts["average"], parts["optimizer"], parts["scheduler"]
    examples = parts["examples"]
    model = _compile(net) if compiled else net
    # On the CPU for every device, so that the order does not depend on the device.
    random = torch.Generator().manual_seed(seed)
    folder = None if folder is None else as_folder("folder", folder)
    with Checkpoints(folder, record, parts, random, device, resume) as checkpoints:
        epochs = checkpoints.load()
        if epochs and verbose:
            _print_again(epochs, recipe, folder)
        for epoch in range(len(epochs) + 1, recipe.epochs + 1):
            start = time.perf_counter()  # is never set back, and stands while the machine sleeps
            net.train()
            losses, batches = [], steps[epoch - 1]
            # Closed even where the run is stopped, or it would spoil the process's later bars.
            with tqdm(total=batches, file=sys.stderr, mininterval=1, disable=not verbose) as bar:
                if len(unseen := examples.unseen(epoch)):
                    examples.update(unseen, infer(average.net, images[unseen]), labels[unseen])
                # All that the epoch takes from the CPU goes to the device here: no step waits.
                order = examples.order(epoch, random).to(device)
                numbers = draw(len(order), recipe, random).to(device).split(recipe.batch_size)
                for batch_id, batch in enumerate(order.split(recipe.batch_size)):
                    optimizer.zero_grad()
                    output = model(augment(images[batch], numbers[batch_id], recipe))
                    targets = labels[batch]
                    loss = training_loss(output, targets, recipe)
                    loss.backward()
                    optimizer.step()
                    scheduler.step()
                    average.update()
                    examples.update(batch, output, targets)
                    losses.append(loss.detach())
                    if device.type == "cpu":  # elsewhere a look at the loss would wait for it
                        if not math.isfinite(loss.item()):
                            break
                        if verbose and batch_id % (batches // REFRESHES + 1) == 0:
                            bar.set_description(bar_text(loss.item(), batch_id), refresh=False)
                    if batch_id + 1 < batches:  # not full before it has the last batch's loss
                        bar.update()
                losses = torch.stack(losses).tolist()  # waits for the device: the epoch's time ends
                seconds = time.perf_counter() - start
                bar.set_description(bar_text(losses[-1], batch_id), refresh=False)
                bar.update()
            for at, loss in enumerate(losses):
                if not math.isfinite(loss):
                    what = f"loss is {loss}"
                    raise _diverged(what, epoch, at, recipe, steps, checkpoints.kept)
            test_loss, correct = test(average.net, data)
            if not math.isfinite(test_loss):
                what = f"test loss after it is {test_loss}"
                raise _diverged(what, epoch, batches - 1, recipe, steps, checkpoints.kept)
            epochs.append(
                Epoch(
                    epoch=epoch,
                    test_loss=test_loss,
                    correct=correct,
                    images=len(data.test_images),
                    last_batch_loss=losses[-1],
                    batches=batches,
                    seconds=seconds,
                    batches_per_second=batches / seconds,
                )
            )
            checkpoints.save(History(tuple(epochs), data.source, checkpoints.record))
            if verbose:
                print(epochs[-1].test_line(), flush=True)
    net.load_state_dict(average.net.state_dict())
    return History(tuple(epochs), data.source, checkpoints.record)


def _compile(net: nn.Module) -> Callable[[torch.Tensor], torch.Tensor]:
    model = torch.compile(net)

    def call(images):
        try:
            return model(images)
        except Exception as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            what = str(error).strip().partition("\n")[0]
            raise RunError(f"torch.compile failed ({what}): set compiled to False") from None

    return call


def _print_again(epochs: list[Epoch], recipe: Recipe, folder: Path) -> None:
    """Say that the run goes on; show what it printed before, so that what is shown is whole."""
    done = f"{folder} holds the run's {len(epochs)} epochs of {recipe.epochs}"
    if len(epochs) < recipe.epochs:
        print(f"{done}; going on from epoch {len(epochs) + 1}", file=sys.stderr)
    else:
        print(f"{done}: it is finished, and not trained again", file=sys.stderr)
    for epoch in epochs:
        print(epoch.train_line(), file=sys.stderr, flush=True)
        print(epoch.test_line(), flush=True)


def _diverged(
    what: str, epoch: int, batch_id: int, recipe: Recipe, steps: list[int], kept: str
) -> RunError:
    rate = learning_rates(recipe, sum(steps))[sum(steps[: epoch - 1]) + batch_id]
    return RunError(
        f"training diverged in epoch {epoch}, batch_id {batch_id}, of recipe {recipe.name!r}: the "
        f"{what}, the learning rate there {rate:.3g}; {kept}; try a learning_rate below "
        f"{recipe.learning_rate}"
    )


def training_loss(output: torch.Tensor, targets: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Cross-entropy (nats, a scalar) of log-probabilities (N, 10) and labels (N,), batch mean.

    With label smoothing s the target is 1 - s of the label and s / 10 of each class (Szegedy et al.
    2016).
    """
    loss = F.nll_loss(output, targets)
    if not recipe.label_smoothing:
        return loss
    return torch.lerp(loss, -output.mean(), recipe.label_smoothing)


def make_parts(net: nn.Module, recipe: Recipe, images: int) -> dict:
    """All that a step of training over so many `images` changes; what a checkpoint keeps."""
    optimizer = make_optimizer(net, recipe)
    return {
        "net": net,
        "average": WeightAverage(net, recipe.averaging),
        "optimizer": optimizer,
        "scheduler": make_scheduler(optimizer, recipe, sum(recipe.epoch_steps(images))),
        "examples": HardExamples(images, recipe, next(net.parameters()).device),
    }


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters of `net`."""
    values = {
        "lr": recipe.learning_rate,
        "weight_decay": recipe.weight_decay,
        "fused": True,  # one kernel for all parameters
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
        # torch divides by the warm-up's length less one: one step is as good as none.
        pct_start=recipe.warm_up if recipe.warm_up * (steps + 1) > 1 else 0.0,
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
