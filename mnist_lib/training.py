"""The training loop on one screen, and its parts."""

import copy
import dataclasses
import os

import torch
import torch.nn as nn
import torch.nn.functional as F

from .checkpoint import Checkpoints
from .data import MNIST, augment, check_data, random_affine
from .errors import ParameterError, as_seed, check_flags
from .evaluation import check_goes_on, check_in_training, evaluate, infer, log_probabilities
from .files import as_path
from .history import History
from .log import Progress, print_again, test_line
from .machine import environment, keep_freed_memory, return_freed_memory
from .net import check_net, count_parameters, crop_of, device_of
from .recipe import Recipe, check_recipe


def train(
    net: nn.Module,
    data: MNIST,
    recipe: Recipe,
    seed: int | None = 0,
    verbose: bool = True,
    folder: str | os.PathLike | None = None,
    resume: bool = True,
) -> History:
    """Train `net` in place, on the device it is on, and test it after each epoch.

    `seed` fixes the order of the images and their augmentation; the caller seeds the net's initial
    weights. On one machine's CPU with one number of threads, the same net, data, recipe and seed
    give the same history, times aside, and the same weights to the bit.

    If the recipe averages weights, the average is what is tested, and what `net` ends with.
    Training losses include label smoothing; test losses do not. `verbose` prints in the
    assignment's format, the bar to stderr and the test lines to stdout; `parse_log` reads both.

    On the sample, every epoch takes all images, whatever the recipe's `first` and `hardest`.

    With a `folder`, each epoch leaves a checkpoint in it. A run that was stopped resumes after its
    last whole epoch and ends with the same bits; a finished one is not trained again. With `resume`
    False it is trained anew, and replaces what is there.

    Raises ParameterError for arguments that do not fit each other; RunError if a loss is not
    finite (at once on the CPU, elsewhere when the epoch ends), or if `folder` holds another run, is
    in use by one or cannot be written.
    """
    recipe, seed = check_arguments(net, data, recipe, seed, resume)
    record = make_record(net, data, recipe, seed)
    data = data.to(device_of(net))  # images stay bytes, normalised by batch
    images, labels = data.train_images, data.train_labels
    forward = log_probabilities(net, data.test_images)
    parts = make_parts(net, recipe, len(images))
    _, optimizer, scheduler, average, sampler = parts.values()
    generator = torch.Generator().manual_seed(seed)  # of the CPU, for every device
    folder = None if folder is None else as_path("folder", folder)
    side = crop_of(net)
    with Checkpoints(folder, record, parts, generator, resume) as checkpoints:
        epochs = checkpoints.load()
        check_goes_on(average.net, data, epochs)
        if epochs and verbose:
            print_again(epochs, recipe, folder)
        for epoch in range(len(epochs) + 1, recipe.epochs + 1):
            net.train()
            steps = recipe.epoch_steps(len(images))[epoch - 1]
            with Progress(epoch, recipe, steps, verbose) as progress:
                if len(unseen := sampler.unseen(epoch)):
                    progress.say(f"scoring the {len(unseen):,} images not seen yet")
                    sampler.score(unseen, average.net, images, labels)
                for batch, moves in sampler.batches(epoch, generator):
                    optimizer.zero_grad()
                    output = forward(augment(images[batch], moves, recipe, side))
                    targets = labels[batch]
                    loss = training_loss(output, targets, recipe)
                    loss.backward()
                    optimizer.step()
                    scheduler.step()
                    average.update()
                    sampler.update(batch, output, targets)
                    if not progress.step(loss, output, targets):  # not finite
                        break
            test_loss, correct = evaluate(average.net, data)
            return_freed_memory()
            epochs.append(progress.epoch(test_loss, correct, len(data.test_images)))
            checkpoints.save(History(tuple(epochs), data.source, checkpoints.record))
            if verbose:
                print(test_line(epochs[-1]), flush=True)
    net.load_state_dict(average.net.state_dict())
    return History(tuple(epochs), data.source, checkpoints.record)


def check_arguments(
    net: nn.Module, data: MNIST, recipe: Recipe, seed: int | None, resume: bool
) -> tuple[Recipe, int]:
    """Recipe and seed. Raises ParameterError unless all are arguments of `train` that fit."""
    check_net(net)
    check_data(data)
    check_recipe(recipe)
    recipe = recipe.for_source(data.source)
    data.check_batch_size(recipe.batch_size)
    check_flags(resume=resume)
    crop = crop_of(net, recipe.crop)
    if crop != recipe.crop:
        raise ParameterError(
            f"net looks at the middle {crop} pixels of the images, recipe {recipe.name!r} at "
            f"{recipe.crop}: make the net with make_net(recipe)"
        )
    check_in_training(net, data, recipe)
    return recipe, as_seed(seed)


def make_record(net: nn.Module, data: MNIST, recipe: Recipe, seed: int) -> dict:
    """What a run is and where it is made, as columns of its History."""
    return {
        "recipe": dataclasses.asdict(recipe),
        "seed": seed,
        **environment(device_of(net)),
        "parameters": count_parameters(net),
        "train_images": len(data.train_images),
        "data": data.digest,
    }


def make_parts(net: nn.Module, recipe: Recipe, images: int) -> dict:
    """All that a step of training over so many `images` changes; what a checkpoint keeps."""
    device = device_of(net)
    if device.type == "cpu":
        keep_freed_memory()
    optimizer = make_optimizer(net, recipe)
    return {
        "net": net,
        "optimizer": optimizer,
        "scheduler": make_scheduler(optimizer, recipe, sum(recipe.epoch_steps(images))),
        "average": WeightAverage(net, recipe.averaging),
        "sampler": HardExamples(images, recipe, device),
    }


def training_loss(output: torch.Tensor, targets: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Cross-entropy (nats, a scalar) of log-probabilities (N, 10) and labels (N,), batch mean.

    With label smoothing s the target is 1 - s of the label and s / 10 of each class (Szegedy et al.
    2016).
    """
    loss = F.nll_loss(output, targets)
    if not recipe.label_smoothing:
        return loss
    return torch.lerp(loss, -output.mean(), recipe.label_smoothing)


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters of `net`, in one fused kernel."""
    values = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
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


class WeightAverage:
    """Exponential moving average of all weights and batch norm statistics of `net`.

    `decay` is the share of the old average that a step keeps. The first steps keep less,
    (1 + steps) / (10 + steps), so that the random start is soon forgotten (the schedule of
    TensorFlow's ExponentialMovingAverage). With `decay` 0 the average is the net itself.

    Not torch's AveragedModel: that copies the weights at its first step, and hands the number of
    steps over as a tensor, so that a decay that depends on it would make a GPU wait.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.net = copy.deepcopy(net) if decay else net
        own, new = (n.state_dict(keep_vars=True).values() for n in (self.net, net))
        pairs = {id(a): (a, b) for a, b in zip(own, new, strict=True)}  # tied weights once
        self._pairs = [(a, b) for a, b in pairs.values() if a.is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take the net's weights in, after a step of the optimiser."""
        if not self.decay:
            return
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for average, value in self._pairs:
            average.lerp_(value, weight)

    def state_dict(self) -> dict:
        """For a checkpoint, as torch's own; empty of weights if they are the net's."""
        return {"steps": self.steps, "net": self.net.state_dict() if self.decay else {}}

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.steps = state["steps"]
        if self.decay:
            self.net.load_state_dict(state["net"])


class HardExamples:
    """The batches of each epoch: after the first, of the images whose last known loss is highest.

    The loss, of labels that are not smoothed, is that of the image's last step in training, so it
    costs no pass of its own (online batch selection, Loshchilov and Hutter 2015). An image left out
    keeps its loss, and comes back when the others' have fallen below it. Those that the first
    epoch leaves out are scored before the second by the averaged net, without augmentation.

    With the recipe's `hardest` 1, every epoch is over all images and nothing is kept.
    """

    def __init__(self, count: int, recipe: Recipe, device: torch.device):
        self.count, self.recipe, self.device = count, recipe, device
        kept = count if recipe.hardest < 1 else 0
        self.losses = torch.full((kept,), torch.inf, device=device)

    def unseen(self, epoch: int) -> torch.Tensor:
        """The images (N,) whose losses `epoch` needs and nobody knows: none before the first."""
        return (self.losses if epoch > 1 else self.losses[:0]).isinf().nonzero().squeeze(1)

    def score(
        self, batch: torch.Tensor, net: nn.Module, images: torch.Tensor, labels: torch.Tensor
    ) -> None:
        """Take in the losses of the images `batch` (N,) by inference."""
        self.update(batch, infer(net, images[batch]), labels[batch])

    @torch.no_grad()
    def update(self, batch: torch.Tensor, output: torch.Tensor, labels: torch.Tensor) -> None:
        """Take in the log-probabilities (N, 10) and labels (N,) of the images `batch` (N,)."""
        if len(self.losses):
            self.losses[batch] = -output.gather(1, labels.unsqueeze(1)).squeeze(1)

    def order(self, epoch: int, generator: torch.Generator) -> torch.Tensor:
        """Indices of the images that `epoch`, counted from 1, trains on, shuffled; on the CPU."""
        size = self.recipe.epoch_images(epoch, self.count)
        if epoch == 1 or not len(self.losses):
            return torch.randperm(self.count, generator=generator)[:size]
        hardest = self.losses.topk(size).indices.cpu()
        return hardest[torch.randperm(size, generator=generator)]

    def batches(self, epoch: int, generator: torch.Generator):
        """The epoch's batches: indices of images (N,), and how to move each (see `augment`).

        All that the epoch takes from the CPU goes to the device here, so that no step waits.
        """
        order = self.order(epoch, generator).to(self.device)
        moves = random_affine(len(order), self.recipe, generator).to(self.device)
        size = self.recipe.batch_size
        return zip(order.split(size), moves.split(size), strict=True)

    def state_dict(self) -> dict:
        """For a checkpoint, as torch's own."""
        return {"losses": self.losses}

    def load_state_dict(self, state: dict) -> None:
        """Go on from what `state_dict` gave."""
        self.losses.copy_(state["losses"])
