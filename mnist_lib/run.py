"""A run's folder: what a training run leaves on disk, each file written aside and renamed."""

import dataclasses
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch.nn as nn

from .data import FULL_TRAINING_SET, MNIST, SAMPLE_TRAINING_SET, as_folder
from .errors import RunError
from .history import History
from .log import logged_run
from .recipe import RECIPES, Recipe

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


def run_folder(run_dir: str | os.PathLike | None, recipe: Recipe, seed: int, data: MNIST) -> Path:
    """The folder of a run, made and tried for writing before hours of training depend on it.

    `run_dir`, relative to the working directory; where it is None or empty, a name made from
    what distinguishes the run, in the folder `runs` of the checkout that holds this library (of
    the working directory where the library is installed without one).

    Raises RunError where it cannot be written, ParameterError where `run_dir` is no path or
    the data are fewer than one batch.
    """
    data.check_batch_size(recipe.batch_size)
    if run_dir is not None and run_dir != "":
        folder = as_folder("run_dir", run_dir)
    else:
        checkout = Path(__file__).parents[1]
        root = checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()
        folder = root / "runs" / _run_name(recipe, seed, data)
    check_writable(folder)
    return folder


def check_writable(folder: Path) -> None:
    """Make the folder and try it; RunError where it cannot be written."""
    probe = folder / ".writable"
    write_file(probe, lambda path: path.write_text(""))
    probe.unlink()


def _run_name(recipe: Recipe, seed: int, data: MNIST) -> str:
    standard = dataclasses.asdict(RECIPES.get(recipe.name, recipe))
    changed = {k: v for k, v in dataclasses.asdict(recipe).items() if v != standard[k]}
    words = [recipe.name, *(f"{key}{value}" for key, value in changed.items()), f"seed{seed}"]
    if data.source != "mnist":
        words.append(data.source)
    if len(data.train_images) != (
        FULL_TRAINING_SET if data.source == "mnist" else SAMPLE_TRAINING_SET
    ):
        words.append(f"train_images{len(data.train_images)}")
    return "-".join(words)


def save_run(folder: str | os.PathLike, history: History, net: nn.Module) -> list[Path]:
    """Write history, final weights and curves into `folder`; returns the three paths."""
    from safetensors.torch import save

    from . import plots

    folder = Path(folder)
    # The logged run was tested on all of MNIST: beside a sample's curve it would mislead.
    logged = logged_run() if history.source == "mnist" else None
    # Copies, since safetensors refuses tensors that share memory.
    weights = {name: tensor.clone().contiguous() for name, tensor in net.state_dict().items()}
    save_history(folder / HISTORY, history)
    write_file(folder / WEIGHTS, lambda path: path.write_bytes(save(weights)))
    write_file(folder / CURVES, lambda path: plots.save_curves(history, path, logged))
    return [folder / HISTORY, folder / WEIGHTS, folder / CURVES]


def save_history(path: Path, history: History) -> None:
    """Write a history as JSON; `load_history` reads it. RunError where it cannot be written."""
    write_file(path, lambda aside: aside.write_text(history.to_json(), encoding="utf-8"))


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
