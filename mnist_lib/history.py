"""What a run leaves behind: a record per epoch, a line of JSON per run, a file per study."""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path

from .base.errors import DataError, ParameterError, check, is_finite, is_whole, plain, shorten
from .base.files import BLANK, HISTORY, as_path, cut_short, print_once, read_text, write_file
from .base.tables import Table, mean_and_sd
from .data import FULL_TEST_SET, FULL_TRAINING_SET, TITLES
from .recipe import Recipe

TARGET = 9944  # of 10,000 test images: the assignment's 99.44%

# The lists in a run's line, with one value per epoch. The oldest lines lack the last list.
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
        for name, value in vars(self).items():
            real = name in ("test_loss", "last_batch_loss", "seconds")
            holds = is_finite(value) if real else is_whole(value) and value >= 0
            if not holds and not (name == "train_correct" and value is None):
                kind = "finite" if real else "whole"
                raise DataError(f"{name} must be a {kind} number, got {value!r}")
            object.__setattr__(self, name, plain(value))
        if self.correct > self.images or self.images == 0:
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
    """The epochs of one run, in order, and where they come from."""

    epochs: tuple[Epoch, ...]
    source: str = "mnist"  # of the data, see MNIST
    record: dict = field(default_factory=dict)  # recipe, seed, machine, versions and sizes

    def __post_init__(self):
        many = isinstance(self.epochs, tuple | list) and self.epochs
        if not many or not all(isinstance(epoch, Epoch) for epoch in self.epochs):
            expected = "a tuple of at least one Epoch"
            raise DataError(f"a history needs {expected}, got {shorten(self.epochs)}")
        object.__setattr__(self, "epochs", tuple(self.epochs))
        recipe = self.record.get("recipe", {}) if isinstance(self.record, dict) else None
        if not isinstance(recipe, dict):
            raise DataError("a history's record, and the recipe in it, must be dictionaries")
        for number, epoch in enumerate(self.epochs, 1):
            if epoch.epoch != number:
                raise DataError(f"epoch {number} of a history is numbered {epoch.epoch}")
            if epoch.images != self.images:
                tested = f"tested on {epoch.images} images, epoch 1 on {self.images}"
                raise DataError(f"epoch {number} was {tested}")

    def __iter__(self):
        return iter(self.epochs)

    def __len__(self):
        return len(self.epochs)

    @property
    def recipe(self) -> Recipe | None:
        """The recipe, with defaults for fields not recorded; None for a log or unknown fields."""
        try:
            return Recipe(**self.record["recipe"])
        except (KeyError, TypeError, ParameterError):
            return None

    @property
    def environments(self) -> list[dict]:
        """Where the run was made: its record, and an entry for each environment it resumed in."""
        return [self.record, *(self.record.get("resumed") or [])]

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

    def same_share(self, correct_of_10000: int) -> int:
        """The smallest count that is as large a share of this run's test images."""
        return -(-correct_of_10000 * self.images // 10_000)

    @property
    def ends_at_target(self) -> bool:
        """Whether the run ends at 99.44% or more."""
        return self.final.correct >= self.same_share(TARGET)

    @property
    def touched(self) -> bool:
        """Whether the run has 99.44% or more at some epoch."""
        return self.best.correct >= self.same_share(TARGET)

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
            rows = zip(*[record.pop(name) for name in names], strict=True)
            epochs = tuple(Epoch(number, images, *row) for number, row in enumerate(rows, 1))
            return cls(epochs, source, record)
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            reason = f"it has no {error}" if isinstance(error, KeyError) else error
            hint = "; load_study reads a study" if "Extra data" in str(error) else ""
            raise DataError(f"{name} is not a history of mnist_lib: {reason}{hint}") from None


def _as_json(value):
    """Numpy's numbers and paths, which JSON lacks."""
    return plain(value) if is_finite(value) else str(value)


def check_history(history) -> None:
    """Raise ParameterError unless `history` is a History."""
    holds = isinstance(history, History)
    check("history", history, holds, "a History, as train and load_history return")


def check_histories(name: str, runs) -> None:
    """Raise ParameterError, naming the parameter, unless `runs` is a list of Histories."""
    holds = isinstance(runs, list | tuple) and runs and all(isinstance(r, History) for r in runs)
    check(name, runs, bool(holds), "a list of at least one History, as load_study returns")


def save_history(path: Path, history: History) -> None:
    """Write a history for `load_history`."""
    write_file(path, lambda aside: aside.write_text(history.to_json(), encoding="utf-8"))


def load_history(path: str | os.PathLike) -> History:
    """Read a history.json, or that of a folder; RunError if unreadable, DataError if no history."""
    path = as_path("path", path)
    if path.is_dir():
        path /= HISTORY
    return History.from_json(read_text(path), name=str(path))


def load_study(path: str | os.PathLike) -> list[History]:
    """Read a study's runs, a line each; skips blank or repeated lines and a last one cut short."""
    path, runs, seen, skipped = as_path("path", path), [], set(), []
    *lines, last = read_text(path).split("\n")
    if last and not cut_short(last):
        lines.append(last)
    for number, line in enumerate(lines, 1):
        if not (line := line.strip(BLANK)):
            skipped.append(f"line {number} (blank)")
            continue
        run = History.from_json(line, f"{path}, line {number}")
        key = repr((run.source, run.images, run.record | {"memory": 0}, [e.test_loss for e in run]))
        if "seed" in run.record and key in seen:  # its seconds and memory may differ
            skipped.append(f"line {number} (a run of an earlier line)")
        else:
            seen.add(key)
            runs.append(run)
    if skipped:
        print_once(f"{path}, {len(skipped)} skipped: {', '.join(skipped[:5])}", file=sys.stderr)
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


def epochs_table(history: History) -> Table:
    """One row per epoch: accuracy in training and on the test images, test loss."""
    check_history(history)
    recipe, images = history.recipe, history.record.get("train_images")
    planned = recipe.epochs if recipe else len(history)
    rows = []
    for epoch in history:
        row = {"epoch": f"{epoch.epoch} of {planned}", "training %": ""}
        if recipe and images and epoch.train_correct is not None:
            trained = recipe.epoch_images(epoch.epoch, images)
            row["training %"] = f"{100 * epoch.train_correct / trained:.2f}"
        test = {"test %": f"{epoch.accuracy:.2f}", "test loss": f"{epoch.test_loss:.4f}"}
        rows.append(row | test)
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
    reached = sum(history.ends_at_target for history in histories)
    kinds = "seeds" if len({(h.recipe, h.source) for h in histories}) == 1 else "runs of many kinds"
    head = f"{len(histories)} {kinds}, {reached} with at least {TARGET / 100}% at the last epoch"
    return "\n".join([head, *(f"{name:36} {mean_and_sd(v)}" for name, v in rows.items())])
