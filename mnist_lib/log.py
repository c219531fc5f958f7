"""The assignment's log format: written by training, and read back from what was printed."""

import csv
import math
import re
import sys
import time
from importlib import resources
from pathlib import Path

import torch
from tqdm import tqdm

from .errors import DataError, RunError
from .history import Epoch, History
from .recipe import Recipe

REFRESHES = 10  # of the progress bar's loss, an epoch; on the CPU, where they cost nothing

# Every repetition is bounded, or ends at a character that it cannot hold: a search then takes time
# in proportion to the text, whatever the text is.
_BAR = re.compile(
    r"loss=(?P<loss>\S{1,40}) batch_id=(?P<batch_id>\d{1,9}): *\d{1,3}%\|[^|]*\| *"
    r"(?P<done>\d{1,9})/(?P<total>\d{1,9}) "
    r"\[(?P<elapsed>\d{1,9}(?::\d\d){1,2})<[\d:?]+, *(?P<rate>\d{1,9}(?:\.\d{1,9})?|\?)"
    r"(?P<unit>it/s|s/it)\]"
)
_EMPTY_BAR = re.compile(r"\b0%\|[^|]*\| *0/\d{1,9} \[00:00<\?")
_TEST = re.compile(
    r"Test set: Average loss: (?P<loss>\S{1,40}), "
    r"Accuracy: (?P<correct>\d{1,9})/(?P<images>\d{1,9}) "
    r"\((?P<percent>\d{1,3}(?:\.\d{1,9})?)%\)"
)


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
            total=self.batches, file=sys.stderr, mininterval=1, disable=not self.verbose
        )
        return self

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
                self._bar.set_description(_bar_text(loss.item(), batch_id), refresh=False)
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
                text = _bar_text(self.losses[-1], len(self.losses) - 1)
                self._bar.set_description(text, refresh=False)
                self._bar.update()
        for batch_id, loss in enumerate(self.losses if kind is None else ()):
            self._check(loss, batch_id, "loss")

    def epoch(self, test_loss: float, correct: int, images: int) -> Epoch:
        """The epoch, with what its test gave. Raises RunError if the test loss is not finite."""
        self._check(test_loss, self.batches - 1, "test loss after it")
        trained = (self.losses[-1], self.batches, self.seconds, self.train_correct)
        return Epoch(self.number, images, correct, test_loss, *trained)

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


def parse_log(text: str) -> History:
    """Read a training log in the assignment's format.

    An epoch is a progress bar that has come to its end (`loss=... batch_id=...: 100%|...`)
    and the `Test set: ...` line after it. Bars under way, carriage returns, warnings and other
    lines between them are passed over.

    Raises DataError, naming the line (counted from 1), if the log is malformed or cut short.
    """
    epochs: list[Epoch] = []
    started = []  # numbers of the lines in which an empty bar begins an epoch
    bar = None  # the last bar since the last test line: (line number, match)
    # tqdm returns the carriage to redraw its bar, so a line of the file holds many bars.
    for number, line in enumerate(text.split("\n"), 1):
        for part in line.split("\r"):
            started += [number] * len(_EMPTY_BAR.findall(part))
            if "loss=" in part and "batch_id=" in part:
                bar = _next_bar(bar, number, part)
            if "Test set:" in part:
                epochs.append(_read_epoch(bar, number, part, epochs))
                bar = None
    if bar is not None:
        number, match = bar
        raise DataError(
            f"line {number}: the log is cut short at batch {match['done']} of {match['total']} "
            f"of epoch {len(epochs) + 1}; no 'Test set' line follows"
        )
    if epochs and len(started) > len(epochs):
        raise DataError(
            f"line {started[-1]}: the log is cut short: epoch {len(epochs) + 1} begins, "
            "but no 'Test set' line follows"
        )
    if not epochs:
        raise DataError(f"line {number}: the log ends without a single 'Test set' line")
    return History(tuple(epochs))


def _next_bar(bar, number: int, part: str):
    match = _BAR.search(part)
    if match is None:
        problem = f"not a finished progress bar: {part.strip()[:120]!r}"
    elif match["done"] == match["total"] and int(match["batch_id"]) != int(match["total"]) - 1:
        problem = f"the last of {match['total']} batches cannot be {match['batch_id']}"
    elif bar and bar[1]["done"] == bar[1]["total"] and match["loss"] != bar[1]["loss"]:
        problem = f"a new progress bar, but no 'Test set' line follows the one of line {bar[0]}"
    else:
        return number, match
    raise DataError(f"line {number}: {problem}")


def _read_epoch(bar, number: int, part: str, epochs: list[Epoch]) -> Epoch:
    match, bar = _TEST.search(part), bar and bar[1]
    if match is None:
        problem = f"not a whole test line: {part.strip()[:120]!r}"
    elif bar is None:
        problem = "a 'Test set' line without the progress bar of its epoch"
    elif int(bar["done"]) != int(bar["total"]):
        problem = (
            f"a 'Test set' line, but the epoch's progress bar stopped at batch {bar['done']} of "
            f"{bar['total']}"
        )
    else:
        try:
            return _make_epoch(bar, match, epochs)
        except ValueError as error:
            problem = str(error)
    raise DataError(f"line {number}: {problem}")


def _make_epoch(bar, match, epochs: list[Epoch]) -> Epoch:
    epoch = Epoch(
        epoch=len(epochs) + 1,
        images=int(match["images"]),
        correct=int(match["correct"]),
        test_loss=float(match["loss"]),
        last_batch_loss=float(bar["loss"]),
        batches=int(bar["total"]),
        seconds=_seconds(bar),
    )
    decimals = len(match["percent"].partition(".")[2])
    if abs(epoch.accuracy - float(match["percent"])) > 0.501 * 10**-decimals:
        score = f"{epoch.correct}/{epoch.images} is {epoch.accuracy:.4f}%"
        raise DataError(f"{score}, not {match['percent']}%")
    if epochs and epoch.images != epochs[0].images:
        raise DataError(f"tested on {epoch.images} images, the epochs before on {epochs[0].images}")
    return epoch


def _seconds(bar) -> float:
    """What a bar took: by its rate, if that agrees with its clock, which shows whole seconds."""
    clock = 0
    for part in bar["elapsed"].split(":"):
        clock = 60 * clock + int(part)
    rate = 0.0 if bar["rate"] == "?" else float(bar["rate"])
    if rate:
        total = int(bar["total"])
        seconds = total * rate if bar["unit"] == "s/it" else total / rate
        if abs(seconds - (clock + 0.5)) <= 0.51:  # rounding of the rate included
            return seconds
    return float(clock)


def logged_runs() -> list[History]:
    """Both runs of the assignment's net that its author published.

    The first is the assignment's log, 19 epochs, shipped verbatim as `logged_run.txt`. 99.44% is
    its 17th test line, though the assignment's text says that it was first reached at the 18th
    epoch. The second, `second_run.csv`, is the 29th execution of the same notebook,
    S4/EVA4_Assignment4.ipynb of github.com/Nildk123/EVA_2, whose 26th is the log.
    """
    files = resources.files(__package__)
    lines = (files / "second_run.csv").read_text(encoding="utf-8").splitlines()
    second = tuple(
        Epoch(
            epoch=int(row["epoch"]),
            images=10_000,
            correct=int(row["correct"]),
            test_loss=float(row["test_loss"]),
            last_batch_loss=float(row["last_batch_loss"]),
            batches=1875,
            seconds=float(row["seconds"]),
        )
        for row in csv.DictReader(lines)
    )
    return [parse_log((files / "logged_run.txt").read_text(encoding="utf-8")), History(second)]


def logged_run() -> History:
    """The 19 epochs of the assignment's log."""
    return logged_runs()[0]
