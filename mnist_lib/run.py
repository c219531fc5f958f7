"""A run's folder, and what a finished run leaves in it."""

import dataclasses
import json
import os
import sys
from pathlib import Path

import torch.nn as nn

from .checks import check_seed
from .data import FULL_TRAINING_SET, MNIST, SAMPLE_TRAINING_SET
from .errors import ParameterError, RunError
from .files import CURVES, HISTORY, WEIGHTS, as_folder, check_writable, held, write_file
from .history import History, save_history
from .log import logged_run
from .recipe import RECIPES, Recipe, check_recipe

DRIVE = Path("/content/drive")  # where Colab's own pages mount Google Drive
DRIVE_RUNS = DRIVE / "MyDrive" / "mnist_runs"


def run_folder(
    run_dir: str | os.PathLike | None, recipe: Recipe, seed: int, data: MNIST, drive: bool = False
) -> Path:
    """The folder of a run, made and tried for writing before hours of training depend on it.

    `run_dir`, relative to the working directory; where it is None or empty, a name made from
    what distinguishes the run (not two folds: name a folder for each), in the folder that the
    environment variable MNIST_RUNS names, else in the folder `runs` of the checkout that holds this
    library (of the working directory where the library is installed without one).

    `drive`, in Colab, mounts Google Drive (which asks) and puts the folder there, into
    MyDrive/mnist_runs, so that it outlives the session.

    Raises RunError where it cannot be written, ParameterError where `recipe` or `seed` is none,
    where `run_dir` is no path, where it leads out of a Drive that was asked for or onto one that
    is not mounted, or the data are fewer than one batch.
    """
    check_recipe(recipe)
    check_seed(seed)
    data.check_batch_size(recipe.batch_size)
    if not isinstance(drive, bool):
        raise ParameterError(f"drive takes True or False, not {drive!r}")
    name = _run_name(recipe, seed, data)
    given = None if run_dir is None or run_dir == "" else as_folder("run_dir", run_dir)
    if drive and "google.colab" not in sys.modules:
        raise ParameterError("drive takes True in Colab only; elsewhere name a folder as run_dir")
    if drive:
        folder = DRIVE_RUNS / (given or name)
        if not _on_drive(folder):
            raise ParameterError(f"run_dir takes a folder in {DRIVE_RUNS} or none, not {run_dir!r}")
        _mount_drive()
    else:
        folder = given or _runs() / name
        if _on_drive(folder) and not DRIVE_RUNS.parent.exists():
            raise ParameterError(
                f"run_dir is {folder}, but Drive is not mounted: set drive to True"
            )
    check_writable(folder)
    return folder


def _runs() -> Path:
    if named := os.environ.get("MNIST_RUNS"):
        return as_folder("MNIST_RUNS", named)
    checkout = Path(__file__).parents[1]
    root = checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()
    return root / "runs"


def _on_drive(folder: Path) -> bool:
    return "google.colab" in sys.modules and Path(os.path.normpath(folder)).is_relative_to(DRIVE)


def _mount_drive() -> None:
    from google.colab import drive

    try:
        drive.mount(str(DRIVE))
    except Exception as error:  # Colab's own kinds, none of them public
        raise RunError(
            f"Google Drive was not mounted ({error}); allow it, or set drive to False"
        ) from None


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
    """Write history, final weights and curves into `folder`; returns the three paths.

    The weights' file tells the net's `crop`. Raises RunError where one cannot be written,
    ParameterError where `folder` is no path.
    """
    from safetensors.torch import save

    from . import plots

    folder = as_folder("folder", folder)
    # The logged run was tested on all of MNIST: beside a sample's curve it would mislead.
    logged = logged_run() if history.source == "mnist" else None
    # Copies, since safetensors refuses tensors that share memory.
    weights = {name: tensor.clone().contiguous() for name, tensor in net.state_dict().items()}
    metadata = {"crop": str(net.crop)} if hasattr(net, "crop") else None
    with held(folder):
        save_history(folder / HISTORY, history)
        write_file(folder / WEIGHTS, lambda path: path.write_bytes(save(weights, metadata)))
        write_file(folder / CURVES, lambda path: plots.save_curves(history, path, logged))
    return [folder / HISTORY, folder / WEIGHTS, folder / CURVES]


def load_weights(net: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Load a weights.safetensors, or the one in a run's folder, into `net`; returns `net`.

    Nothing in such a file can run. Raises RunError where it cannot be read, is cut short or
    anything else, or holds the weights of another net, or of one that looked at another part of
    the images; ParameterError where `path` is no path.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load

    path = as_folder("path", path)
    if path.is_dir():
        path /= WEIGHTS
    try:
        content = path.read_bytes()
        weights = load(content)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror}") from None
    except SafetensorError as error:
        raise RunError(f"{path} is no whole safetensors file: {error}") from None
    # A safetensors file begins with the length of its JSON header and the header.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    crop = header.get("__metadata__", {}).get("crop")
    if crop is not None and hasattr(net, "crop") and crop != str(net.crop):
        raise RunError(
            f"{path} holds weights for the middle {crop} pixels of the images, and this net looks "
            f"at {net.crop}: make it with crop={crop}, or with make_net and the run's recipe"
        )
    try:
        net.load_state_dict(weights)
    except RuntimeError:
        raise RunError(
            f"{path} holds the weights of another net than {type(net).__name__}"
        ) from None
    return net
