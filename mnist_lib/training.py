"""The training loop on one screen, and its parts."""

import copy
import os

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch.optim.lr_scheduler import ConstantLR, LRScheduler, OneCycleLR

from .augment import Views, augment, random_affine
from .base.memory import keep_freed_memory, return_freed_memory
from .data import MNIST
from .evaluation import crop_of, device_of, evaluate, infer
from .history import History
from .log import Progress, print_again
from .recipe import Recipe
from .runs.checkpoint import Checkpoints
from .runs.trial import check_arguments, check_same_net, make_record, try_net


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

    `seed` fixes the order of the images and their augmentation; `set_seed` fixes the net's initial
    weights. On one machine's CPU and number of threads, the same arguments give the same bits.
    The net's input is what `normalize` returns. If the recipe averages weights, the average is
    tested, and `net` ends with it; it ends in evaluation mode. Training losses include label
    smoothing, test losses do not.

    `verbose` prints the assignment's log: the bar to stderr, test lines to stdout. With a `folder`,
    each epoch leaves a checkpoint: a run that was stopped resumes after its last whole epoch, to
    the same bits, and one stopped before its first leaves `net` as it was; `resume=False` trains
    anew and replaces it. On the CPU, malloc keeps freed memory from now on, in the whole process.
    Raises RunError if a loss is not finite, or if `folder` is in use or holds another run.
    """
    recipe, seed = check_arguments(net, data, recipe, seed, resume)
    forward = try_net(net, data, recipe)
    record = make_record(net, data, recipe, seed)
    data = data.to(device_of(net))  # images stay bytes, normalised by batch
    images, labels, side = data.train_images, data.train_labels, crop_of(net)
    keep_freed_memory(images.device)
    optimizer = make_optimizer(net, recipe)
    steps = recipe.epoch_steps(len(images))
    scheduler = make_scheduler(optimizer, recipe, sum(steps))
    average = WeightAverage(net, recipe.averaging)
    sampler = HardExamples(len(images), recipe, images.device)
    parts = {"optimizer": optimizer, "scheduler": scheduler, "average": average, "sampler": sampler}
    generator = torch.Generator().manual_seed(seed)  # on the CPU, whatever the device
    with Checkpoints(folder, record, {"net": net} | parts, generator, resume) as checkpoints:
        epochs = checkpoints.load()
        check_same_net(average.net, data, epochs)
        print_again(epochs, recipe, folder, verbose)
        for epoch in range(len(epochs) + 1, recipe.epochs + 1):
            net.train()
            with Progress(epoch, recipe, steps[epoch - 1], verbose) as progress:
                sampler.score_unseen(epoch, average.net, data)
                for batch, moves in sampler.batches(epoch, generator):
                    optimizer.zero_grad()
                    output = forward(augment(images.index_select(0, batch), moves, recipe, side))
                    targets = labels[batch]
                    loss = training_loss(output, targets, recipe)
                    loss.backward()
                    optimizer.step()
                    torch.clear_autocast_cache()  # which holds the weights from before the step
                    scheduler.step()
                    average.update()
                    sampler.update(batch, output, targets)
                    progress.step(loss, output, targets)
            test_loss, correct = evaluate(average.net, data, bounded=True)
            epochs.append(progress.report(test_loss, correct, len(data.test_images)))
            return_freed_memory()
            checkpoints.save(History(tuple(epochs), data.source, checkpoints.record))
    net.eval()
    net.load_state_dict(average.net.state_dict())
    return History(tuple(epochs), data.source, checkpoints.record)


def training_loss(output: torch.Tensor, targets: torch.Tensor, recipe: Recipe) -> torch.Tensor:
    """Mean cross-entropy (nats, a scalar) of log-probabilities (N, 10) and labels (N,).

    With smoothing s a target is 1 - s of the label plus s / 10 of each class (Szegedy et al. 2016).
    """
    loss = F.nll_loss(output, targets)
    if not recipe.label_smoothing:
        return loss
    return torch.lerp(loss, -output.mean().to(loss), recipe.label_smoothing)


def make_optimizer(net: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimiser over all parameters of `net`, in one fused kernel."""
    values = {"lr": recipe.learning_rate, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "adam":
        return torch.optim.Adam(net.parameters(), **values)
    momentum = {"momentum": recipe.momentum, "nesterov": recipe.nesterov}
    optimizer = torch.optim.SGD(net.parameters(), **momentum, **values)
    if recipe.momentum:
        # The fused kernel wants buffers of all or none, and some first gradients may come late.
        for weights in net.parameters():
            optimizer.state[weights]["momentum_buffer"] = torch.zeros_like(weights)
    return optimizer


def make_scheduler(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> LRScheduler:
    """The recipe's learning rate over `steps` optimiser steps.

    "one_cycle" is torch's OneCycleLR, linear and with constant momentum: in the warm-up from a
    tenth of the peak to the peak, then down to a thousandth (Smith and Topin 2018).
    """
    if recipe.schedule == "constant":
        return ConstantLR(optimizer, factor=1.0)
    total = steps + 1  # the rate after the last step counts too
    # torch divides by the number of warm-up steps minus one: a single one is left out.
    warm_up = recipe.warm_up if recipe.warm_up * total > 1 else 0.0
    shape = {"anneal_strategy": "linear", "div_factor": 10, "final_div_factor": 100}
    peak = recipe.learning_rate
    return OneCycleLR(optimizer, peak, total, pct_start=warm_up, cycle_momentum=False, **shape)


class WeightAverage:
    """Exponential moving average of the weights and running statistics of `net`; counts are copied.

    `decay` is the share of the old average that a step keeps. The first steps keep less,
    (1 + steps) / (10 + steps), so the random start is soon forgotten (the schedule of TensorFlow's
    ExponentialMovingAverage). With `decay` 0 the average is the net itself.

    Not torch's AveragedModel: that passes the steps as a tensor, which makes a GPU wait.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.decay = decay
        self.steps = 0
        self.net = copy.deepcopy(net) if decay else net
        own, new = (n.state_dict(keep_vars=True).values() for n in (self.net, net))
        pairs = {id(a): (a, b) for a, b in zip(own, new, strict=True)}  # tied weights once
        floating = [pair for pair in pairs.values() if pair[0].is_floating_point()]
        self._own, self._new = map(list, zip(*floating, strict=True))
        self._counts = [pair for pair in pairs.values() if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self) -> None:
        """Take in the net's weights after an optimiser step."""
        if not self.decay:
            return
        self.steps += 1
        weight = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_(self._own, self._new, weight)  # as torch's AveragedModel does
        for own, new in self._counts:
            own.copy_(new)

    def state_dict(self) -> dict:
        """For a checkpoint, like torch's; without weights if they are the net's own."""
        return {"steps": self.steps, "net": self.net.state_dict() if self.decay else {}}

    def load_state_dict(self, state: dict) -> None:
        self.steps = state["steps"]
        if self.decay:
            self.net.load_state_dict(state["net"])


class HardExamples(nn.Module):
    """The batches of each epoch: after the first, of the images whose last known loss is highest.

    An image's loss, without label smoothing, is that of its last training step, so it costs no
    pass of its own (online batch selection, Loshchilov and Hutter 2015). An image left out keeps
    its loss, and returns once the others' have fallen below it. Images that the first epoch leaves
    out are scored before the second by the averaged net, without augmentation. If `hardest` is 1,
    every epoch after the first takes all images, and no loss is kept.
    """

    def __init__(self, count: int, recipe: Recipe, device: torch.device):
        super().__init__()  # a module, so that a checkpoint can save its buffer
        self.count, self.recipe, self.device = count, recipe, device
        scored = count if recipe.hardest < 1 else 0
        self.register_buffer("losses", torch.full((scored,), torch.inf, device=device).float())

    def score_unseen(self, epoch: int, net: nn.Module, data: MNIST) -> None:
        """Score, by inference, the images that no epoch before this one (from 1) trained on."""
        unseen = self.losses.isinf().nonzero().squeeze(1)  # (N,)
        if epoch > 1 and len(unseen):
            net = net.module if isinstance(net, Views) else net  # one view is enough to rank them
            output = infer(net, data.train_images[unseen], bounded=True)
            self.update(unseen, output, data.train_labels[unseen])

    @torch.no_grad()
    def update(self, batch: torch.Tensor, output: torch.Tensor, labels: torch.Tensor) -> None:
        """Take in the log-probabilities (N, 10) and labels (N,) of the images `batch` (N,)."""
        if len(self.losses):
            self.losses[batch] = -output.gather(1, labels.unsqueeze(1)).squeeze(1).float()

    def order(self, epoch: int, generator: torch.Generator) -> torch.Tensor:
        """Indices of the images that `epoch` (from 1) trains on, shuffled; on the CPU."""
        size = self.recipe.epoch_images(epoch, self.count)
        if epoch == 1 or not len(self.losses):
            return torch.randperm(self.count, generator=generator, device="cpu")[:size]
        hardest = self.losses.topk(size).indices.cpu()
        return hardest[torch.randperm(size, generator=generator, device="cpu")]

    def batches(self, epoch: int, generator: torch.Generator):
        """The epoch's batches: indices of images (N,), and how to move each (see `augment`)."""
        # All that the epoch needs from the CPU goes to the device here, so no step waits.
        order = self.order(epoch, generator).to(self.device)
        moves = random_affine(len(order), self.recipe, generator).to(self.device)
        size = self.recipe.batch_size
        return zip(order.split(size), moves.split(size), strict=True)
