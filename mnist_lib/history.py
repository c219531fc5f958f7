"""What a run leaves behind: an epoch a record, a run one line of JSON, a study a file of lines.

The same types hold a run trained here and one read from a printed log (`log.py`).
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from .errors import DataError, ParameterError, check, is_finite, is_whole, plain, told
from .files import HISTORY, as_path, cut_short, read_text, write_file
from .recipe import Recipe

# An epoch's fields that a run's line holds, each as a list with one value an epoch. The last is not
# in every line: the first runs were made before it was counted.
COLUMNS = ("correct", "test_loss", "last_batch_loss", "batches", "seconds", "train_correct")


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images, or a part of them, and the test after it."""

    epoch: int  # counted from 1
    images: int  # test images
    correct: int  # test images classified correctly
    test_loss: float  # negative log-likelihood, mean over the test images, nats
    last_batch_loss: float  # training loss of the epoch's last batch, nats
    batches: int  # optimiser steps
    seconds: float  # training time, without the test
    train_correct: int | None = None  # training images right as they were trained on

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
        """As in `9944/10000 (99.44%)`."""
        return f"{self.correct}/{self.images} ({self.accuracy:.2f}%)"


@dataclass(frozen=True)
class History:
    """The epochs of one run, in order, and where they come from."""

    epochs: tuple[Epoch, ...]
    source: str = "mnist"  # as of the data: "mnist", "sample" or "validation"
    record: dict = field(default_factory=dict)  # recipe, seed, machine, versions and sizes

    def __post_init__(self):
        given = isinstance(self.epochs, tuple | list)
        if not (given and all(isinstance(epoch, Epoch) for epoch in self.epochs)):
            raise DataError(f"a history is made of a tuple of Epoch, got {told(self.epochs)}")
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
        """The recipe in the record; None if there is none, as of a log, or none of this version."""
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
        """The first epoch with the most test images correct."""
        return max(self.epochs, key=lambda epoch: epoch.correct)

    @property
    def final(self) -> Epoch:
        """The last epoch."""
        return self.epochs[-1]

    @property
    def seconds(self) -> float:
        """Training time of all epochs, without the tests after them."""
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
        """The run as one line of JSON: its record, and a list for each of an epoch's COLUMNS."""
        known = COLUMNS if self.epochs[0].train_correct is not None else COLUMNS[:-1]
        columns = {name: [getattr(epoch, name) for epoch in self] for name in known}
        head = self.record | {"source": self.source, "images": self.images}
        return json.dumps(head | columns, default=_as_json) + "\n"

    @classmethod
    def from_json(cls, text: str, name: str = "history") -> "History":
        """Read what `to_json` wrote. Raises DataError, naming `name`, for anything else."""
        try:
            record = dict(json.loads(text))
            source, images = str(record.pop("source")), record.pop("images")
            known = COLUMNS if COLUMNS[-1] in record else COLUMNS[:-1]
            columns = [record.pop(column) for column in known]
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
    """What JSON has no form for: numpy's numbers, paths."""
    number = plain(value)
    return str(value) if number is value else number


def check_history(history) -> None:
    """Raise ParameterError unless `history` is a History."""
    known = isinstance(history, History)
    check("history", history, known, "a History, as train and load_history give one")


def check_histories(name: str, runs) -> None:
    """Raise ParameterError, naming the parameter, unless `runs` is a list of at least one."""
    known = isinstance(runs, list | tuple) and runs and all(isinstance(r, History) for r in runs)
    check(name, runs, bool(known), "a list of at least one History, as load_study gives")


def save_history(path: Path, history: History) -> None:
    """Write a history; `load_history` reads it. Raises RunError if it cannot be written."""
    write_file(path, lambda aside: aside.write_text(history.to_json(), encoding="utf-8"))


def load_history(path: str | os.PathLike) -> History:
    """Read a history.json, or the one in a run's folder.

    Raises RunError if it cannot be read, DataError if it is no history, ParameterError if `path`
    is no path.
    """
    path = as_path("path", path)
    if path.is_dir():
        path /= HISTORY
    return History.from_json(read_text(path), name=str(path))


def load_study(path: str | os.PathLike) -> list[History]:
    """Read a study's file: one run a line. A last line that was cut short is passed over.

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
