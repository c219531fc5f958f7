"""What a training run leaves behind: one record an epoch, counted exactly.

The same types hold a run trained here and one read from a printed log (`log.py`).
"""

import dataclasses
import json
import os
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from .checks import is_finite, is_whole
from .errors import LogError, RunError
from .files import HISTORY, as_folder, write_file


@dataclass(frozen=True)
class Epoch:
    """One pass over the training images, or a part of them, and the test after it."""

    epoch: int  # counted from 1
    test_loss: float  # negative log-likelihood, mean over the test images, nats
    correct: int  # test images classified correctly
    images: int  # test images
    last_batch_loss: float  # training loss of the epoch's last batch, nats
    batches: int  # optimiser steps
    seconds: float  # training time, without the test
    batches_per_second: float

    def __post_init__(self):
        for name in ("epoch", "correct", "images", "batches"):
            value = getattr(self, name)
            if not is_whole(value) or value < 0:
                raise LogError(f"{name} must be a whole number, not {value!r}")
        for name in ("test_loss", "last_batch_loss", "seconds", "batches_per_second"):
            value = getattr(self, name)
            if not is_finite(value):
                raise LogError(f"{name} must be a finite number, not {value!r}")
        if not 0 <= self.correct <= self.images or self.images == 0:
            raise LogError(f"{self.correct} correct of {self.images} images cannot be")

    @property
    def accuracy(self) -> float:
        """Test accuracy in per cent."""
        return 100 * self.correct / self.images

    @property
    def score(self) -> str:
        """As in `9944/10000 (99.44%)`."""
        return f"{self.correct}/{self.images} ({self.accuracy:.2f}%)"

    def test_line(self) -> str:
        """The test line in the assignment's format."""
        return (
            f"Test set: Average loss: {self.test_loss:.4f}, "
            f"Accuracy: {self.correct}/{self.images} ({self.accuracy:.4f}%)"
        )

    def train_line(self) -> str:
        """The finished progress bar in the assignment's format."""
        return tqdm.format_meter(
            self.batches,
            self.batches,
            self.seconds,
            prefix=bar_text(self.last_batch_loss, self.batches - 1),
            rate=self.batches_per_second or None,
            ncols=None,
        )


def bar_text(loss: float, batch_id: int) -> str:
    """What stands before the progress bar in the assignment's log; `batch_id` counts from 0."""
    return f"loss={loss} batch_id={batch_id}"


@dataclass(frozen=True)
class History:
    """The epochs of one run, in order, and where they come from."""

    epochs: tuple[Epoch, ...]
    source: str = "mnist"  # as of the data: "mnist", "sample" or "validation"
    record: dict = field(default_factory=dict)  # recipe, seed, data sizes, versions and machine

    def __post_init__(self):
        if not self.epochs:
            raise LogError("a history needs at least one epoch")
        for number, epoch in enumerate(self.epochs, 1):
            if epoch.epoch != number:
                raise LogError(f"epoch {number} of a history is numbered {epoch.epoch}")
            if epoch.images != self.epochs[0].images:
                raise LogError(
                    f"epoch {number} was tested on {epoch.images} images, "
                    f"epoch 1 on {self.epochs[0].images}"
                )

    def __iter__(self):
        return iter(self.epochs)

    def __len__(self):
        return len(self.epochs)

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
    def mean_of_last_five(self) -> float:
        """Mean test accuracy of the last five epochs (of all, where there are fewer), per cent."""
        last = self.epochs[-5:]
        return 100 * sum(epoch.correct for epoch in last) / sum(epoch.images for epoch in last)

    def first_to_reach(self, correct: int) -> Epoch | None:
        """The first epoch with at least `correct` test images right, or None."""
        return next((epoch for epoch in self.epochs if epoch.correct >= correct), None)

    def log(self) -> str:
        """The run as text in the assignment's format; `parse_log` reads it back."""
        lines = (f"{epoch.train_line()}\n{epoch.test_line()}\n" for epoch in self.epochs)
        return "\n".join(lines)

    def to_json(self) -> str:
        """JSON text, one epoch a line."""
        head = json.dumps({"source": self.source, "record": self.record}, indent=1)
        epochs = ",\n".join("  " + json.dumps(dataclasses.asdict(epoch)) for epoch in self.epochs)
        return f'{head[:-2]},\n "epochs": [\n{epochs}\n ]\n}}\n'

    @classmethod
    def from_json(cls, text: str, name: str = "history") -> "History":
        """Read what `to_json` wrote. Raises LogError, naming `name`, for anything else."""
        try:
            values = json.loads(text)
            epochs = tuple(Epoch(**epoch) for epoch in values["epochs"])
            return cls(epochs, source=str(values["source"]), record=dict(values["record"]))
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise LogError(f"{name} is not a history written by mnist_lib: {error}") from None


def save_history(path: Path, history: History) -> None:
    """Write a history as JSON; `load_history` reads it. RunError where it cannot be written."""
    write_file(path, lambda aside: aside.write_text(history.to_json(), encoding="utf-8"))


def load_history(path: str | os.PathLike) -> History:
    """Read a history.json, or the one in a run's folder.

    Raises RunError where it cannot be read, LogError where it is no history, ParameterError where
    `path` is no path.
    """
    path = as_folder("path", path)
    if path.is_dir():
        path /= HISTORY
    try:
        return History.from_json(path.read_text(encoding="utf-8"), name=str(path))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RunError(f"{path} is not a text file") from None
