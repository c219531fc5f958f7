"""The assignment's log format, written by training; parse.py reads it back."""

import math
import sys
import time
from pathlib import Path

import torch
from tqdm import tqdm

from .errors import RunError
from .history import Epoch, History, check_history
from .recipe import Recipe

REFRESHES = 10  # of the progress bar's loss, an epoch; on the CPU, where they cost nothing


class Progress:
    """One epoch of training as it goes: clock, bar, losses, and whether those are finite.

    A context, in which the epoch's steps are taken. `verbose` shows the bar on stderr.
    """

    def __init__(self, epoch: int, recipe: Recipe, batches: int, verbose: bool):
        self.number, self.recipe, self.batches, self.verbose = epoch, recipe, batches, verbose
        self.losses: list = []  # tensors on the net's device, then, at the end, numbers
        self._steps: list[tuple[torch.Tensor, torch.Tensor]] = []

    def __enter__(self):
        self._start = time.perf_counter()  # is never set back, and stands while the machine sleeps
        self._bar = tqdm(
            desc=self._title,
            total=self.batches,
            file=sys.stderr,
            mininterval=1,
            disable=not self.verbose or sys.stderr is None,
        )
        if not self._bar.disable and not self._bar.ncols:  # a terminal that does not know its width
            self._bar.ncols = None
        return self

    @property
    def _title(self) -> str:
        return f"epoch {self.number} of {self.recipe.epochs}"

    def say(self, what: str) -> None:
        """Show beside the empty bar what is done before the first step."""
        self._bar.set_description(f"{self._title}, {what}")

    def step(self, loss: torch.Tensor, output: torch.Tensor, targets: torch.Tensor) -> bool:
        """Take in a step's loss, log-probabilities (N, 10) and labels (N,).

        False if the loss is known not to be finite: on the CPU only, since elsewhere a look at it
        would make the device wait.
        """
        self.losses.append(loss.detach())
        self._steps.append((output.detach(), targets))
        batch_id = len(self.losses) - 1
        if loss.device.type == "cpu":
            if not math.isfinite(loss.item()):
                return False
            if self.verbose and batch_id % (self.batches // REFRESHES + 1) == 0:
                self._describe(loss.item(), batch_id)
        if batch_id + 1 < self.batches:  # not full before it has the last batch's loss
            self._bar.update()
        return True

    def __exit__(self, kind, error, trace):
        # Closed even if the run is stopped, or it would spoil the process's later bars.
        with self._bar:
            if kind is None:
                outputs, targets = (torch.cat(parts) for parts in zip(*self._steps, strict=True))
                self.train_correct = (outputs.argmax(dim=1) == targets).sum().item()
                self.losses = torch.stack(self.losses).tolist()  # waits for the device
                self.seconds = time.perf_counter() - self._start
                self._describe(self.losses[-1], len(self.losses) - 1)
                self._bar.ncols = None  # whole in the end, however narrow the terminal
                self._bar.update()
        for batch_id, loss in enumerate(self.losses if kind is None else ()):
            self._check(loss, batch_id, "loss")

    def epoch(self, test_loss: float, correct: int, images: int) -> Epoch:
        """The epoch, with what its test gave. Raises RunError if the test loss is not finite."""
        self._check(test_loss, self.batches - 1, "test loss after it")
        trained = (self.losses[-1], self.batches, self.seconds, self.train_correct)
        return Epoch(self.number, images, correct, test_loss, *trained)

    def _describe(self, loss: float, batch_id: int) -> None:
        self._bar.set_description(f"{self._title} {_bar_text(loss, batch_id)}", refresh=False)

    def _check(self, loss: float, batch_id: int, what: str) -> None:
        if not math.isfinite(loss):
            raise RunError(
                f"training diverged in epoch {self.number}, batch_id {batch_id}, of recipe "
                f"{self.recipe.name!r}: the {what} is {loss}; try a learning_rate below "
                f"{self.recipe.learning_rate}"
            )


def train_line(epoch: Epoch) -> str:
    """The finished progress bar of an epoch, in the assignment's format."""
    text = _bar_text(epoch.last_batch_loss, epoch.batches - 1)
    return tqdm.format_meter(epoch.batches, epoch.batches, epoch.seconds, prefix=text)


def test_line(epoch: Epoch) -> str:
    """The test line of an epoch, in the assignment's format."""
    return (
        f"Test set: Average loss: {epoch.test_loss:.4f}, "
        f"Accuracy: {epoch.correct}/{epoch.images} ({epoch.accuracy:.4f}%)"
    )


def format_log(history: History) -> str:
    """A run as text in the assignment's format; `parse_log` reads it back."""
    check_history(history)
    return "\n".join(f"{train_line(epoch)}\n{test_line(epoch)}\n" for epoch in history)


def print_again(epochs: list[Epoch], recipe: Recipe, folder: Path) -> None:
    """Say that a run goes on, and show its epochs so far, so that what is shown is whole."""
    done = f"{folder} holds the run's {len(epochs)} epochs of {recipe.epochs}"
    if len(epochs) < recipe.epochs:
        print(f"{done}; going on from epoch {len(epochs) + 1}", file=sys.stderr)
    else:
        print(f"{done}: it is finished, and not trained again", file=sys.stderr)
    for epoch in epochs:
        print(train_line(epoch), file=sys.stderr, flush=True)
        print(test_line(epoch), flush=True)


def _bar_text(loss: float, batch_id: int) -> str:
    """What stands before the bar in the assignment's log; `batch_id` counts from 0."""
    return f"loss={loss} batch_id={batch_id}"
