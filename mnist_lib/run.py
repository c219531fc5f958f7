"""A run's folder: what a training run leaves on disk, each file written aside and renamed."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch.nn as nn

from .errors import RunError
from .history import History

HISTORY = "history.json"
WEIGHTS = "weights.safetensors"
CURVES = "curves.png"


def write_file(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` fill a file aside, then rename it to `path`: whole or not at all.

    Makes the folder. Raises RunError where it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".part-") as aside:
            # The file's own name, since its ending may choose the format.
            write(Path(aside) / path.name)
            os.replace(Path(aside) / path.name, path)
    except OSError as error:
        raise RunError(f"{path} cannot be written: {error.strerror or error}") from None


def check_folder(folder: str | os.PathLike) -> Path:
    """The folder, made if need be; RunError unless it can be written (before, not after a run)."""
    folder = Path(folder)
    probe = folder / ".writable"
    write_file(probe, lambda path: path.write_text(""))
    probe.unlink()
    return folder


def save_run(folder: str | os.PathLike, history: History, net: nn.Module) -> list[Path]:
    """Write history, final weights and curves into `folder`; returns the three paths."""
    from safetensors.torch import save_file

    from . import plots

    folder = Path(folder)
    weights = {name: tensor.contiguous() for name, tensor in net.state_dict().items()}
    write_file(folder / HISTORY, lambda path: path.write_text(history.to_json(), encoding="utf-8"))
    write_file(folder / WEIGHTS, lambda path: save_file(weights, path))
    write_file(folder / CURVES, lambda path: plots.save_curves(history, path))
    return [folder / HISTORY, folder / WEIGHTS, folder / CURVES]


def load_history(path: str | os.PathLike) -> History:
    """Read a history.json, or the one in a run's folder.

    Raises RunError where it cannot be read, LogError where it is no history.
    """
    path = Path(path)
    if path.is_dir():
        path /= HISTORY
    try:
        return History.from_json(path.read_text(encoding="utf-8"), name=str(path))
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise RunError(f"{path} is not a text file") from None
