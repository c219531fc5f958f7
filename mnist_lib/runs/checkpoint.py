"""A run's state on disk after each epoch, so a crash costs one epoch at most.

A checkpoint is what torch.save writes (tensors, numbers and text only), then its SHA-256. The
newest two are kept; that of the last epoch marks the run as finished.
"""

import contextlib
import copy
import hashlib
import io
import os
import sys
from pathlib import Path

import torch

from ..base import __version__
from ..base.errors import DataError, MnistLibError, RunError
from ..base.files import CURVES, HISTORY, WEIGHTS, as_path, lock, read_bytes, remove, write_file
from ..history import Epoch, History, save_history
from ..recipe import differences

FORMAT = 3  # increase it whenever the content of a checkpoint changes
KEPT = 2  # if the newest is damaged, the one before is used
ANEW = "or set resume=False to train anew and replace what is there"
OTHER = f"choose another folder, {ANEW}"
# What identifies a run, besides its recipe and data.
IDENTITY = {"seed": "seed", "train_images": "the number of training images"}
# The parts of a record that do not tell where the run was made.
NOT_WHERE = ("recipe", *IDENTITY, "parameters", "data", "resumed", "after_epoch")


class Checkpoints:
    """The checkpoints in a run's folder; if `folder` is None, nothing is written or locked.

    `record` is that of the run's History; `parts` are what a step changes, each with state_dict and
    load_state_dict; `generator` shuffles the images. As a context manager, Checkpoints locks the
    folder and reports what a stopped run leaves in it.
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
        # There is only one MPS device, and its functions take no device.
        self._which = (self.device,) if self.device.type == "cuda" else ()
        self._done = 0  # epochs of this run that are on disk
        self._start = copy.deepcopy(parts["net"].state_dict()), torch.get_rng_state()
        self._training = False
        # Again with resume=False would replace what this run has saved.
        self._again = f"run again {'' if resume else 'with resume True '}to go on"
        self._lock = contextlib.ExitStack()

    def __enter__(self):
        if self.folder is not None:
            self._lock.enter_context(lock(self.folder))
        return self

    def __exit__(self, kind, error, trace):
        self._lock.close()
        if kind and self.folder is not None and not self._done:
            # So that the same call makes the same run, to the bit on the CPU.
            self.parts["net"].load_state_dict(self._start[0])
            torch.set_rng_state(self._start[1])
        state = "nothing is kept"
        if self._done:
            epochs = "epoch 1 is" if self._done == 1 else f"epochs 1 to {self._done} are"
            state = f"{epochs} kept in {self.folder}"
        elif self.folder is not None:
            state = f"{self.folder} is {'as it was' if _paths(self.folder) else 'empty'}"
        if kind is KeyboardInterrupt and self.folder is not None:
            # On a new line: the progress bar has not ended its own.
            print(f"\nstopped; {state}: {self._again}", file=sys.stderr)
        if isinstance(error, MnistLibError) and self._training:
            raise RunError(f"{error}; {state}") from None

    def save(self, history: History) -> None:
        """Write a checkpoint of the run so far, and its history beside it."""
        if self.folder is None:
            return
        states = {"order": self.generator.get_state(), "torch": torch.get_rng_state()}
        if self.device.type != "cpu":
            module = torch.get_device_module(self.device)
            states[self.device.type] = module.get_rng_state(*self._which)
        parts = {name: part.state_dict() for name, part in self.parts.items()}
        values = {"format": FORMAT, "mnist_lib": __version__, "history": history.to_json()}
        content = io.BytesIO()
        torch.save(values | {"random": states, "parts": parts}, content)
        checked = content.getvalue() + hashlib.sha256(content.getbuffer()).digest()
        done = len(history)
        try:
            path = self.folder / f"checkpoint-{done}.pt"
            write_file(path, lambda aside: aside.write_bytes(checked))
            self._done = done
            save_history(self.folder / HISTORY, history)
        except RunError as error:
            raise RunError(f"{error}: mend that, then {self._again}") from None
        if done == 1:  # left by a run that this one replaces
            remove(self.folder / WEIGHTS)
            remove(self.folder / CURVES)
        for path in _paths(self.folder):
            # Later epochs belong to a run that this one replaces.
            if not done - KEPT < _epoch(path) <= done:
                remove(path)

    def load(self) -> list[Epoch]:
        """Restore all parts to the newest intact checkpoint, and return the epochs so far.

        Damaged ones are skipped, with a note on stderr. RunError if all are, or for another run.
        """
        epochs = self._load() if self.folder is not None and self.resume else []
        self._training = True
        return epochs

    def _load(self) -> list[Epoch]:
        damaged = []
        for path in _paths(self.folder):
            try:
                history, values = _read(path)
            except DataError as error:
                damaged.append(f"{path} is damaged ({error})")
                continue
            self._check_same_run(history.record)
            self._restore(path, values)
            self._done = len(history)
            save_history(self.folder / HISTORY, history)  # the run may have stopped just before
            self.record = self._resumed(history)
            for line in damaged:
                print(f"{line}; {path.name} is used instead", file=sys.stderr)
            return list(history)
        if damaged:
            raise RunError(f"{'; '.join(damaged)}; none is intact: remove {self.folder}, {ANEW}")
        for name in (HISTORY, WEIGHTS, CURVES):
            if (self.folder / name).exists():
                raise RunError(f"{self.folder} has a {name} but no checkpoint of its run: {OTHER}")
        return []

    def _check_same_run(self, saved: dict) -> None:
        ours = self.record
        differing = differences(saved.get("recipe"), ours["recipe"])
        for name, text in IDENTITY.items():
            if saved.get(name) != ours[name]:
                differing.append(f"{text} is {saved.get(name)} there, {ours[name]} here")
        if not differing and saved.get("data") != ours["data"]:
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
            if self.device.type in states:  # not for the CPU, nor after a move to another device
                module = torch.get_device_module(self.device)
                module.set_rng_state(states[self.device.type], *self._which)
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            misfit = f"{path} does not fit this run's net and optimiser ({reason})"
            raise RunError(f"{misfit}: {OTHER}") from None

    def _resumed(self, history: History) -> dict:
        """The saved record, with a note if the run resumes in another environment."""
        record, *resumed = history.environments
        places = (history.environments[-1], self.record)
        old, new = ({name: p[name] for name in p if name not in NOT_WHERE} for p in places)
        if old == new or self._done == record["recipe"]["epochs"]:
            return record
        changed = [name for name in new | old if new.get(name) != old.get(name)]
        changes = "; ".join(f"{n} {old.get(n)} before, {new.get(n)} now" for n in changed)
        print(f"{self.folder}: {changes}: equal up to rounding, not to the bit", file=sys.stderr)
        return record | {"resumed": [*resumed, {"after_epoch": self._done} | new]}


def epochs_kept(folder: Path) -> int:
    """How many whole epochs of a run its folder holds."""
    return max(map(_epoch, _paths(folder)), default=0)


def _paths(folder: Path) -> list[Path]:
    """Newest first, by epoch: clocks may go backwards."""
    paths = [path for path in folder.glob("checkpoint-*.pt") if _epoch(path)]
    return sorted(paths, key=_epoch, reverse=True)


def _epoch(path: Path) -> int:
    number = path.stem.removeprefix("checkpoint-")
    return int(number) if number.isascii() and number.isdigit() else 0


def _read(path: Path) -> tuple[History, dict]:
    """A checkpoint's history, and all its values; DataError if damaged, RunError if unreadable."""
    try:
        content = read_bytes(path)
    except RunError as error:
        raise RunError(f"{error}; mend that, then run again to go on") from None
    size = hashlib.sha256().digest_size
    if hashlib.sha256(content[:-size]).digest() != content[-size:]:
        raise DataError(f"its {len(content)} bytes do not match their SHA-256")
    try:
        # weights_only: nothing in the file can run.
        values = torch.load(io.BytesIO(content[:-size]), map_location="cpu", weights_only=True)
        if values["format"] == FORMAT:
            return History.from_json(values["history"], name=str(path)), values
        written = f"mnist_lib {values['mnist_lib']} in format {values['format']}"
    except Exception as error:  # a pickle can raise anything
        raise DataError(f"no checkpoint of this library: {str(error).partition('. ')[0]}") from None
    read = f"mnist_lib {__version__} reads format {FORMAT}"
    raise RunError(f"{path} is by {written}, and {read}: finish it with that version, {ANEW}")
