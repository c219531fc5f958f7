"""The assignment's log format, as training writes it; `parse_log` reads it back."""

import math
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from .base.errors import RunError
from .history import Epoch, History, check_history
from .recipe import Recipe

REFRESHES = 10  # of the loss beside the bar, per epoch; only on the CPU, where reading it is free


class Progress:
    """One epoch's clock, progress bar and losses: a context manager around its steps.

    Raises RunError for a loss that is not finite: on the CPU at once, elsewhere when the epoch
    ends, since reading a loss would make the device wait. `verbose` shows the bar on stderr.
    """

    def __init__(self, epoch: int, recipe: Recipe, batches: int, verbose: bool):
        self.number, self.recipe, self.batches, self.verbose = epoch, recipe, batches, verbose
        self._title = f"epoch {epoch} of {recipe.epochs}"
        self.losses: list = []  # tensors on the net's device and, at the end, numbers
        self._steps: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __enter__(self):
        self._start = time.perf_counter()  # setting the clock changes nothing
        self._bar = make_bar(self.verbose, desc=self._title, total=self.batches, mininterval=1)
        return self

    def step(self, loss: torch.Tensor, output: torch.Tensor, targets: torch.Tensor) -> None:
        """Take in a step's loss, log-probabilities (N, 10) and labels (N,)."""
        self.losses.append(loss.detach())
        self._steps.append((output.detach(), targets))
        batch_id = len(self.losses) - 1
        if loss.device.type == "cpu":
            self._check(loss.item(), batch_id, "loss")
            if self.verbose and batch_id % (self.batches // REFRESHES + 1) == 0:
                self._show_loss(loss.item(), batch_id)
        if batch_id + 1 < self.batches:  # the last batch fills the bar, in __exit__, with its loss
            self._bar.update()

    def __exit__(self, kind, error, trace):
        # Closed even if the run is stopped, or it would spoil the process's later bars.
        with self._bar:
            if kind is None:
                outputs, targets = (torch.cat(parts) for parts in zip(*self._steps, strict=True))
                self.train_correct = (outputs.argmax(dim=1) == targets).sum().item()
                self.losses = torch.stack(self.losses).tolist()  # waits for the device
                self.seconds = time.perf_counter() - self._start
                self._show_loss(self.losses[-1], len(self.losses) - 1)
                self._bar.ncols = None  # whole at the end, however narrow the terminal
                self._bar.update()
                for batch_id, loss in enumerate(self.losses):
                    self._check(loss, batch_id, "loss")

    def report(self, test_loss: float, correct: int, images: int) -> Epoch:
        """The epoch with its test result; prints the test line if `verbose`."""
        self._check(test_loss, self.batches - 1, "test loss after it")
        trained = (self.losses[-1], self.batches, self.seconds, self.train_correct)
        epoch = Epoch(self.number, images, correct, test_loss, *trained)
        if self.verbose:
            print(test_line(epoch), flush=True)
        return epoch

    def _show_loss(self, loss: float, batch_id: int) -> None:
        self._bar.set_description(f"{self._title} {_bar_text(loss, batch_id)}", refresh=False)

    def _check(self, loss: float, batch_id: int, what: str) -> None:
        if not math.isfinite(loss):
            where = f"epoch {self.number}, batch_id {batch_id}, of recipe {self.recipe.name!r}"
            advice = f"try a learning_rate below {self.recipe.learning_rate}"
            raise RunError(f"training diverged in {where}: the {what} is {loss}; {advice}")


def make_bar(verbose: bool = True, **options) -> tqdm:
    """A progress bar on stderr, hidden if there is none; works on a terminal of size 0 x 0."""
    bar = tqdm(file=sys.stderr, disable=not verbose or sys.stderr is None, **options)
    if not bar.disable and min(bar.ncols or 0, bar.nrows or 0) < 1:  # no size is known
        bar.ncols = bar.nrows = None
    return bar


def train_line(epoch: Epoch, of: int | None = None) -> str:
    """An epoch's finished progress bar, in the assignment's format; numbered if `of` is given."""
    text = f"epoch {epoch.epoch} of {of} " if of else ""
    text += _bar_text(epoch.last_batch_loss, epoch.batches - 1)
    return tqdm.format_meter(epoch.batches, epoch.batches, epoch.seconds, prefix=text)


def test_line(epoch: Epoch) -> str:
    """An epoch's test line, in the assignment's format."""
    accuracy = f"Accuracy: {epoch.correct}/{epoch.images} ({epoch.accuracy:.4f}%)"
    return f"Test set: Average loss: {epoch.test_loss:.4f}, {accuracy}"


def format_log(history: History) -> str:
    """A run as text in the assignment's format; `parse_log` reads it back."""
    check_history(history)
    # Epochs of different lengths are numbered, so that `parse_log` takes them for one run.
    of = len(history) if len({epoch.batches for epoch in history}) > 1 else None
    return "\n".join(f"{train_line(epoch, of)}\n{test_line(epoch)}\n" for epoch in history)


def print_again(epochs: list[Epoch], recipe: Recipe, folder: Path | None, verbose: bool) -> None:
    """If a run resumes, say so and print its epochs so far again: the log is then complete."""
    if not epochs or not verbose:
        return
    done = f"{folder} holds the run's {len(epochs)} epochs of {recipe.epochs}"
    if len(epochs) < recipe.epochs:
        print(f"{done}; going on from epoch {len(epochs) + 1}", file=sys.stderr)
    else:
        print(f"{done}: it is finished, and not trained again", file=sys.stderr)
    for epoch in epochs:
        print(train_line(epoch, recipe.epochs), file=sys.stderr, flush=True)
        print(test_line(epoch), flush=True)


def _bar_text(loss: float, batch_id: int) -> str:
    """The text before the bar in the assignment's log; `batch_id` counts from 0."""
    return f"loss={loss} batch_id={batch_id}"
