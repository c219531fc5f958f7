"""A run's state after each epoch, on the disk, so that a crash costs no more than one epoch.

A checkpoint is a file of torch.save (tensors, numbers and text only) and the SHA-256 of its bytes.
The newest two stay, the last epoch's too: by it a finished run is recognised.
"""

import contextlib
import hashlib
import io
import os
import sys
from pathlib import Path

import torch

from .errors import DataError, RunError
from .files import CURVES, HISTORY, WEIGHTS, as_path, held, read_bytes, remove, write_file
from .history import Epoch, History, save_history
from .machine import __version__
from .recipe import differences

FORMAT = 3  # to be raised whenever what a checkpoint holds changes
KEPT = 2  # if the newest is damaged, the one before it is used
ANEW = "or set resume to False, which trains anew and replaces what is there"
OTHER = f"choose another folder, {ANEW}"
# What a run is, beside its recipe; all else in its record is where it was made.
IDENTITY = {"seed": "seed", "train_images": "the number of training images"}
RUN = ("recipe", *IDENTITY, "parameters", "data", "resumed")


class Checkpoints:
    """The checkpoints in a run's folder; with `folder` None nothing is held, written or found.

    `record` is the run's, as for its History: by recipe, seed and data a run is known again.
    `parts` are what a step changes, each with state_dict and load_state_dict; `generator` orders
    the images. As a context, it keeps other runs out of the folder, and says what a run that is
    stopped leaves there.
    """

    def __init__(
        self,
        folder: str | os.PathLike | None,
        record: dict,
        parts: dict,
        generator: torch.Generator,
        resume: bool = True,
    ):
        self.folder = None if folder is None else as_path("folder", folder)
        self.record, self.parts, self.resume = record, parts, resume
        self.generator, self.device = generator, next(parts["net"].parameters()).device
        self._done = 0  # epochs of this run that are known to be on the disk
        self._training = False
        # With resume False, what is kept would be replaced.
        self._again = f"run again {'' if resume else 'with resume True '}to go on"
        self._held = contextlib.ExitStack()

    def __enter__(self):
        if self.folder is not None:
            self._held.enter_context(held(self.folder))
        return self

    def __exit__(self, kind, error, trace):
        self._held.close()
        if kind is KeyboardInterrupt and self.folder is not None:
            # On a line of its own: the progress bar's is not ended.
            print(f"\nstopped; {self._kept}: {self._again}", file=sys.stderr)
        if isinstance(error, RunError) and self._training:
            raise RunError(f"{error}; {self._kept}") from None

    @property
    def _kept(self) -> str:
        """What is on the disk, as part of a sentence."""
        if self.folder is None:
            return "nothing is kept"
        if not self._done:
            return f"{self.folder} is {'as it was' if self._paths() else 'empty'}"
        epochs = "epoch 1 is" if self._done == 1 else f"epochs 1 to {self._done} are"
        return f"{epochs} kept in {self.folder}"

    def save(self, history: History) -> None:
        """Keep the run so far, and its history apart to be read. Raises RunError if it cannot."""
        if self.folder is None:
            return
        values = {
            "format": FORMAT,
            "mnist_lib": __version__,
            "history": history.to_json(),
            "random": self._random_states(),
            "parts": {name: part.state_dict() for name, part in self.parts.items()},
        }
        content = io.BytesIO()
        torch.save(values, content)
        checked = content.getvalue() + hashlib.sha256(content.getbuffer()).digest()
        done = len(history)
        try:
            write_file(self._path(done), lambda path: path.write_bytes(checked))
            self._done = done
            save_history(self.folder / HISTORY, history)
        except RunError as error:
            raise RunError(f"{error}: mend that, then {self._again}") from None
        if done == 1:  # what a run that this one replaces has left
            remove(self.folder / WEIGHTS)
            remove(self.folder / CURVES)
        for path in self._paths():
            # Later epochs than this are those of a run that this one replaces.
            if not done - KEPT < _epoch(path) <= done:
                remove(path)

    def load(self) -> list[Epoch]:
        """Bring all parts to where the run stopped; its epochs so far, none if it begins.

        A damaged checkpoint is passed over for the one before it, with a word on stderr.
        Raises RunError if all are damaged, if one cannot be read or has another format, or if the
        folder holds another run.
        """
        epochs = self._load() if self.folder is not None and self.resume else []
        self._training = True
        return epochs

    def _load(self) -> list[Epoch]:
        damaged = []
        for path in self._paths():
            try:
                history, values = _read(path)
            except _Damaged as error:
                damaged.append(f"{path} is damaged ({error})")
                continue
            self._check_same(history.record)
            self._restore(path, values)
            self._done = len(history)
            save_history(self.folder / HISTORY, history)  # the run may have ended just before
            self.record = self._go_on(history.record)
            for line in damaged:
                print(f"{line}; {path.name} is used instead", file=sys.stderr)
            return list(history)
        if damaged:
            raise RunError(f"{'; '.join(damaged)}; no other is there: remove it, {ANEW}")
        if (self.folder / HISTORY).exists():
            raise RunError(
                f"{self.folder} holds the history of a run but no checkpoint to go on from: {OTHER}"
            )
        return []

    def _check_same(self, there: dict) -> None:
        here = self.record
        differing = differences(there.get("recipe"), here["recipe"])
        for name, text in IDENTITY.items():
            if there.get(name) != here[name]:
                differing.append(f"{text} is {there.get(name)} there, {here[name]} here")
        if not differing and there.get("data") != here["data"]:
            differing.append("its images are others")
        if differing:
            raise RunError(f"{self.folder} holds another run: {'; '.join(differing)}; {OTHER}")

    def _restore(self, path: Path, values: dict) -> None:
        try:
            for name, part in self.parts.items():
                part.load_state_dict(values["parts"][name])
            states = values["random"]
            self.generator.set_state(states["order"])
            torch.set_rng_state(states["torch"])
            if self.device.type in states:  # not on the CPU, nor after a move to another kind
                module = torch.get_device_module(self.device)
                module.set_rng_state(states[self.device.type], *self._which())
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise RunError(
                f"{path} does not fit this run's net and optimiser "
                f"({str(error).splitlines()[0]}): {OTHER}"
            ) from None

    def _random_states(self) -> dict[str, torch.Tensor]:
        states = {"order": self.generator.get_state(), "torch": torch.get_rng_state()}
        if self.device.type != "cpu":
            module = torch.get_device_module(self.device)
            states[self.device.type] = module.get_rng_state(*self._which())
        return states

    def _which(self) -> tuple:
        # There is only one MPS device, and its functions take none.
        return (self.device,) if self.device.type == "cuda" else ()

    def _go_on(self, record: dict) -> dict:
        """The record of the run, with a note if it goes on in another environment."""
        resumed = record.get("resumed", [])
        last = resumed[-1] if resumed else record
        there, here = (
            {name: value for name, value in made.items() if name not in (*RUN, "after_epoch")}
            for made in (last, self.record)
        )
        if there == here or self._done == record["recipe"]["epochs"]:
            return record
        changes = "; ".join(
            f"{name} {there.get(name)} before, {here.get(name)} now"
            for name in here | there
            if here.get(name) != there.get(name)
        )
        print(f"{self.folder}: {changes}: equal to rounding only, not to the bit", file=sys.stderr)
        return record | {"resumed": [*resumed, {"after_epoch": self._done} | here]}

    def _path(self, epoch: int) -> Path:
        return self.folder / f"checkpoint-{epoch}.pt"

    def _paths(self) -> list[Path]:
        """Newest first, by epoch: clocks may go backwards."""
        paths = [path for path in self.folder.glob("checkpoint-*.pt") if _epoch(path)]
        return sorted(paths, key=_epoch, reverse=True)


class _Damaged(Exception):
    pass


def _epoch(path: Path) -> int:
    number = path.stem.removeprefix("checkpoint-")
    return int(number) if number.isascii() and number.isdigit() else 0


def _read(path: Path) -> tuple[History, dict]:
    """The history of a checkpoint and all that it holds."""
    try:
        content = read_bytes(path)
    except RunError as error:
        raise RunError(f"{error}; mend that, then run again to go on") from None
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[:-size]).digest() != content[-size:]:
        raise _Damaged(f"its {len(content)} bytes are not those that were written")
    try:
        # weights_only: nothing in the file can run.
        values = torch.load(io.BytesIO(content[:-size]), map_location="cpu", weights_only=True)
        written, version = values["format"], values["mnist_lib"]
    except Exception as error:  # a pickle can raise anything
        raise _Damaged(f"no checkpoint of this library: {str(error).partition('.')[0]}") from None
    if written != FORMAT:
        raise RunError(
            f"{path} was written by mnist_lib {version} in checkpoint format {written}, and "
            f"mnist_lib {__version__} reads format {FORMAT}: finish the run with that version, "
            f"{ANEW}"
        )
    try:
        return History.from_json(values["history"], name=str(path)), values
    except (KeyError, TypeError, DataError) as error:
        raise _Damaged(f"no checkpoint of this library: {error}") from None
