"""What a run leaves behind: a record per epoch, a line of JSON per run, a file of lines per study.

The same types hold a run trained here and one read from a printed log.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from .data import FULL_TEST_SET, FULL_TRAINING_SET, TITLES
from .errors import DataError, ParameterError, check, is_finite, is_whole, plain, shorten
from .files import HISTORY, as_path, cut_short, read_text, write_file
from .recipe import Recipe
from .tables import Table, mean_and_sd

TARGET = 9944  # of 10,000 test images: the assignment's 99.44%

# An epoch's fields in a run's line, each a list with one value per epoch. Lines of the first runs
# lack the last.
COLUMNS = ("correct", "test_loss", "last_batch_loss", "batches", "seconds", "train_correct")


@dataclass(frozen=True)
class Epoch:
    """One epoch of training, over all training images or some, and the test after it."""

    epoch: int  # counted from 1
    images: int  # test images
    correct: int  # test images classified correctly
    test_loss: float  # negative log-likelihood, mean over the test images, nats
    last_batch_loss: float  # training loss of the epoch's last batch, nats
    batches: int  # optimiser steps
    seconds: float  # training time, without the test
    train_correct: int | None = None  # training images right, each at its training step

    def __post_init__(self):
        for name in ("epoch", "correct", "images", "batches", "train_correct"):
            value = getattr(self, name)
            if (not is_whole(value) or value < 0) and (name, value) != ("train_correct", None):
                raise DataError(f"{name} must be a whole number, got {value!r}")
            object.__setattr__(self, name, plain(value))
        for name in ("test_loss", "last_batch_loss", "seconds"):
            value = getattr(self, name)
            if not is_finite(value):
                raise DataError(f"{name} must be a finite number, got {value!r}")
            object.__setattr__(self, name, plain(value))
        if not 0 <= self.correct <= self.images or self.images == 0:
            raise DataError(f"{self.correct} correct of {self.images} images cannot be")

    @property
    def accuracy(self) -> float:
        """Test accuracy in per cent."""
        return 100 * self.correct / self.images

    @property
    def score(self) -> str:
        """The test result as in `9944/10000 (99.44%)`."""
        return f"{self.correct}/{self.images} ({self.accuracy:.2f}%)"


@dataclass(frozen=True)
class History:
    """The epochs of one run, in order, and where they come from.

    A record with fewer recipe fields than today's Recipe is read with their defaults.
    """

    epochs: tuple[Epoch, ...]
    source: str = "mnist"  # of the data, see MNIST
    record: dict = field(default_factory=dict)  # recipe, seed, machine, versions and sizes

    def __post_init__(self):
        given = isinstance(self.epochs, tuple | list)
        if not (given and all(isinstance(epoch, Epoch) for epoch in self.epochs)):
            raise DataError(f"a history needs a tuple of Epoch, got {shorten(self.epochs)}")
        object.__setattr__(self, "epochs", tuple(self.epochs))
        recipe = self.record.get("recipe", {}) if isinstance(self.record, dict) else None
        if not isinstance(recipe, dict):
            raise DataError("a history's record, and the recipe in it, must be dictionaries")
        if not self.epochs:
            raise DataError("a history needs at least one epoch")
        for number, epoch in enumerate(self.epochs, 1):
            if epoch.epoch != number:
                raise DataError(f"epoch {number} of a history is numbered {epoch.epoch}")
            if epoch.images != self.epochs[0].images:
                raise DataError(
                    f"epoch {number} was tested on {epoch.images} images, "
                    f"epoch 1 on {self.epochs[0].images}"
                )

    def __iter__(self):
        return iter(self.epochs)

    def __len__(self):
        return len(self.epochs)

    @property
    def recipe(self) -> Recipe | None:
        """The recorded recipe; None for a log, or a recipe with fields unknown here."""
        try:
            return Recipe(**self.record["recipe"])
        except (KeyError, TypeError, ParameterError):
            return None

    @property
    def images(self) -> int:
        """Test images."""
        return self.epochs[0].images

    @property
    def best(self) -> Epoch:
        """The first epoch with the most test images right."""
        return max(self.epochs, key=lambda epoch: epoch.correct)

    @property
    def final(self) -> Epoch:
        """The last epoch."""
        return self.epochs[-1]

    @property
    def seconds(self) -> float:
        """Training time of all epochs, without the tests."""
        return sum(epoch.seconds for epoch in self.epochs)

    @property
    def mean_of_last_five(self) -> float:
        """Mean test accuracy of the last five epochs, or of all if there are fewer, per cent."""
        last = self.epochs[-5:]
        return 100 * sum(epoch.correct for epoch in last) / sum(epoch.images for epoch in last)

    def first_to_reach(self, correct: int) -> Epoch | None:
        """The first epoch with at least `correct` test images right, or None."""
        return next((epoch for epoch in self.epochs if epoch.correct >= correct), None)

    def to_json(self) -> str:
        """The run as one line of JSON: its record, and a list for each of COLUMNS."""
        names = COLUMNS if self.epochs[0].train_correct is not None else COLUMNS[:-1]
        columns = {name: [getattr(epoch, name) for epoch in self] for name in names}
        head = self.record | {"source": self.source, "images": self.images}
        return json.dumps(head | columns, default=_as_json) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "history") -> "History":
        """Read what `to_json` wrote. Raises DataError, naming `name`, for anything else."""
        try:
            record = dict(json.loads(text))
            source, images = str(record.pop("source")), record.pop("images")
            names = COLUMNS if COLUMNS[-1] in record else COLUMNS[:-1]
            columns = [record.pop(name) for name in names]
            epochs = tuple(
                Epoch(number, images, *values)
                for number, values in enumerate(zip(*columns, strict=True), 1)
            )
            return cls(epochs, source, record)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            hint = "; load_study reads a study" if "Extra data" in str(error) else ""
            raise DataError(
                f"{name} is not a history written by mnist_lib: {reason}{hint}"
            ) from None


def _as_json(value):
    """For what JSON has no form: numpy's numbers, paths."""
    number = plain(value)
    return str(value) if number is value else number


def check_history(history) -> None:
    """Raise ParameterError unless `history` is a History."""
    holds = isinstance(history, History)
    check("history", history, holds, "a History, as train and load_history return")


def check_histories(name: str, runs) -> None:
    """Raise ParameterError, naming the parameter, unless `runs` is a list of at least one."""
    holds = isinstance(runs, list | tuple) and runs and all(isinstance(r, History) for r in runs)
    check(name, runs, bool(holds), "a list of at least one History, as load_study returns")


def save_history(path: Path, history: History) -> None:
    """Write a history for `load_history`."""
    write_file(path, lambda aside: aside.write_text(history.to_json(), encoding="utf-8"))


def load_history(path: str | os.PathLike) -> History:
    """Read a history.json, or the one in a run's folder.

    Raises RunError if the file cannot be read, DataError if it is not a history.
    """
    path = as_path("path", path)
    if path.is_dir():
        path /= HISTORY
    return History.from_json(read_text(path), name=str(path))


def load_study(path: str | os.PathLike) -> list[History]:
    """Read a study's file, one run per line. A last line that was cut short is skipped.

    Raises as `load_history` does; a DataError names the line.
    """
    path = as_path("path", path)
    lines = [(f"{path}, line {n}", line) for n, line in enumerate(read_text(path).split("\n"), 1)]
    *whole, (name, last) = lines
    runs = [History.from_json(line, name) for name, line in whole]
    if last.strip():
        try:
            runs.append(History.from_json(last, name))
        except DataError:
            if not cut_short(last):
                raise
    return runs


def describe(history: History) -> str:
    """What a run was trained and tested on, for titles: anything less than MNIST says so."""
    check_history(history)
    trained = history.record.get("train_images")
    if history.source == "mnist" and history.images != FULL_TEST_SET:
        return f"{history.images:,} test images, not MNIST's {FULL_TEST_SET:,}"
    if history.source == "mnist":
        part = trained and trained < FULL_TRAINING_SET
        return f"MNIST, trained on {trained:,} images only" if part else "MNIST"
    sizes = f"{trained:,} to train, " if trained else ""
    return f"{TITLES.get(history.source, history.source)} ({sizes}{history.images:,} to test)"


def same_share(correct_of_10000: int, history: History) -> int:
    """The smallest count that is as large a share of the history's test images."""
    return -(-correct_of_10000 * history.images // 10_000)


def reached(history: History) -> bool:
    """Whether a run ends at 99.44% or more."""
    return history.final.correct >= same_share(TARGET, history)


def touched(history: History) -> bool:
    """Whether a run has 99.44% or more at some epoch."""
    return history.best.correct >= same_share(TARGET, history)


def epochs_table(history: History) -> Table:
    """One row per epoch: accuracy in training and on the test images, test loss."""
    check_history(history)
    recipe, images = history.recipe, history.record.get("train_images")
    rows = []
    for epoch in history:
        share = ""
        if recipe and images and epoch.train_correct is not None:
            trained = recipe.epoch_images(epoch.epoch, images)
            share = f"{100 * epoch.train_correct / trained:.2f}"
        rows.append(
            {
                "epoch": f"{epoch.epoch} of {recipe.epochs if recipe else len(history)}",
                "training %": share,
                "test %": f"{epoch.accuracy:.2f}",
                "test loss": f"{epoch.test_loss:.4f}",
            }
        )
    return Table(rows)


def summary(histories: list[History]) -> str:
    """Mean ± sd over all seeds: accuracies (%) and seconds of training per run."""
    check_histories("histories", histories)
    rows = {
        "final": [history.final.accuracy for history in histories],
        "mean of last five": [history.mean_of_last_five for history in histories],
        "best epoch (chosen on the test set)": [history.best.accuracy for history in histories],
        "seconds of training": [history.seconds for history in histories],
    }
    share = f"{TARGET / 100}% at the last epoch"
    lines = [
        f"{len(histories)} seeds, {sum(map(reached, histories))} of them with at least {share}"
    ]
    return "\n".join([*lines, *(f"{name:36} {mean_and_sd(v)}" for name, v in rows.items())])
