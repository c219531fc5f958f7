"""A run's folder, and what a finished run leaves in it."""

import dataclasses
import io
import json
import os
import re
from pathlib import Path

import torch
import torch.nn as nn

from .data import FULL_TRAINING_SET, MNIST, SAMPLE_TRAINING_SET, check_data
from .errors import RunError, as_seed, check
from .evaluation import check_net, crop_of, unwrapped
from .files import HISTORY, WEIGHTS, as_path, check_writable, held, read_bytes, write_file
from .history import History, check_history, load_history, save_history
from .recipe import RECIPES, Recipe, check_recipe, differences, make_net

PRETRAINED = Path(__file__).parent / "weights"  # a run's folder for each recipe


def run_folder(run_dir: str | os.PathLike | None, recipe: Recipe, seed: int, data: MNIST) -> Path:
    """The folder of a run, made and tried for writing before hours of training depend on it.

    `run_dir`, relative to the working directory. If it is None or empty, a name made from what
    tells the run from others, in the folder that the environment variable MNIST_RUNS names, else
    in `runs` in the checkout that holds this library, or in the working directory without one.
    The name does not tell two folds apart: name a folder for each.

    Raises RunError if it cannot be written; ParameterError if `recipe` or `seed` is none, if
    `run_dir` is no path, or if the data are fewer than one batch.
    """
    check_recipe(recipe)
    check_data(data)
    recipe, seed = recipe.for_source(data.source), as_seed(seed)
    data.check_batch_size(recipe.batch_size)
    if run_dir is None or run_dir == "":
        folder = _runs() / _run_name(recipe, seed, data)
    else:
        folder = as_path("run_dir", run_dir)
    check_writable(folder)
    return folder


def _runs() -> Path:
    if named := os.environ.get("MNIST_RUNS"):
        return as_path("MNIST_RUNS", named)
    checkout = Path(__file__).parents[1]
    root = checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()
    return root / "runs"


def _run_name(recipe: Recipe, seed: int, data: MNIST) -> str:
    standard = dataclasses.asdict(RECIPES.get(recipe.name, recipe).for_source(data.source))
    changed = {k: v for k, v in dataclasses.asdict(recipe).items() if v != standard[k]}
    parts = [recipe.name, *(f"{key}{value}" for key, value in changed.items()), f"seed{seed}"]
    if data.source != "mnist":
        parts.append(data.source)
    whole = FULL_TRAINING_SET if data.source == "mnist" else SAMPLE_TRAINING_SET
    if len(data.train_images) != whole:
        parts.append(f"train_images{len(data.train_images)}")
    return "-".join(parts)


def save_run(folder: str | os.PathLike, history: History, net: nn.Module) -> list[Path]:
    """Write history and final weights into `folder`; returns their paths.

    The weights' file tells the net's `crop`. Raises RunError if one cannot be written,
    ParameterError if `folder` is no path.
    """
    from safetensors.torch import save

    folder = as_path("folder", folder)
    check_history(history)
    check_net(net)
    _check_other_run(folder, history)
    # Copies, since safetensors refuses tensors that share memory.
    net = unwrapped(net)
    weights = {name: tensor.clone().contiguous() for name, tensor in net.state_dict().items()}
    metadata = {"crop": str(crop_of(net))}
    with held(folder):
        save_history(folder / HISTORY, history)
        write_file(folder / WEIGHTS, lambda path: path.write_bytes(save(weights, metadata)))
    return [folder / HISTORY, folder / WEIGHTS]


def _check_other_run(folder: Path, history: History) -> None:
    """Raise RunError if `folder` holds a run of another recipe or seed."""
    if (folder / HISTORY).exists():
        there, here = load_history(folder).record, history.record
        told = {name for name in ("recipe", "seed") if name in there and name in here}
        if "recipe" in told and differences(there["recipe"], here["recipe"]):
            raise RunError(f"{folder} holds a run of another recipe: choose another folder")
        if "seed" in told and there["seed"] != here["seed"]:
            raise RunError(f"{folder} holds a run of another seed: choose another folder")


def load_weights(net: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Load weights into `net` from a file, or from the run in a folder; returns `net`.

    A file is safetensors, or what torch.save made of a state_dict, on whatever device. Nothing in
    it can run. Raises RunError if it cannot be read or is anything else, or holds the weights of
    another net, or of one that looked at another part of the images; ParameterError if `net` is
    none or `path` is no path.
    """
    check_net(net)
    whole, net = net, unwrapped(net)
    path = as_path("path", path)
    if path.is_dir():
        path /= WEIGHTS
    content = read_bytes(path)
    torchs = content.startswith((b"PK", b"\x80"))  # a zip file, or the pickles of before
    weights, metadata = (_of_torch if torchs else _of_safetensors)(path, content)
    crop, looks_at = metadata.get("crop"), crop_of(net)
    if crop is not None and crop != str(looks_at):
        raise RunError(
            f"{path} holds weights for the middle {crop} pixels of the images, and this net looks "
            f"at {looks_at}: make it with FastNet(crop={crop}), or make_net and the run's recipe"
        )
    own = net.state_dict()
    if weights.keys() != own.keys():  # of a net that was wrapped as it was saved
        weights = {re.sub(r"^(module\.|_orig_mod\.)+", "", name): w for name, w in weights.items()}
    for name in (*own, *weights):
        here, there = (_kind(t[name]) if name in t else "none" for t in (own, weights))
        if here != there:
            raise RunError(
                f"{path} holds the weights of another net than {type(net).__name__}: {name} is "
                f"{there} there, {here} here"
            )
    net.load_state_dict(weights)
    return whole


def _kind(tensor: torch.Tensor) -> str:
    """Shape, and whether the numbers are such as a weight's."""
    kind = "" if tensor.is_floating_point() else f"{tensor.dtype} ".removeprefix("torch.")
    return f"{kind}{tuple(tensor.shape)}"


def trained_recipes() -> list[str]:
    """The recipes that the library carries weights of."""
    return sorted(folder.name for folder in PRETRAINED.iterdir())


def pretrained(name: str | os.PathLike) -> nn.Module:
    """The trained net of a recipe, `assignment`, `steady` or `fast`, or of the run in a folder.

    On the CPU, in evaluation mode. Of a recipe's recorded seeds the library carries the one whose
    last epoch is nearest to their mean, not the best; `load_history(PRETRAINED / name)` is its
    record. Raises ParameterError if there is neither, else as `load_history` and `load_weights`.
    """
    known = trained_recipes()
    folder = PRETRAINED / name if name in known else as_path("name", name)
    check("name", name, folder.is_dir(), f"one of {', '.join(known)}, or the folder of a run")
    recipe = load_history(folder).recipe
    if recipe is None:
        raise RunError(f"the run in {folder} has no recipe of this library: its net is not known")
    return load_weights(make_net(recipe), folder).eval()


def _of_safetensors(path: Path, content: bytes) -> tuple[dict, dict]:
    """The tensors by name, and what the file says of them."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    start = content[:200].lstrip().lower()
    if start.startswith((b"<!doctype", b"<html", b"<?xml")):
        raise RunError(f"{path} is a web page, not weights: download the file itself")
    if start.startswith(b"version https://git-lfs"):
        raise RunError(f"{path} is a pointer of Git LFS, not weights: fetch them with git lfs pull")
    try:
        weights = load(content)
    except SafetensorError as error:
        raise RunError(
            f"{path} is no whole safetensors file ({error}): name a weights.safetensors or .pt, or "
            "the folder of a run"
        ) from None
    # A safetensors file begins with the length of its JSON header and the header.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return weights, header.get("__metadata__", {})


def _of_torch(path: Path, content: bytes) -> tuple[dict, dict]:
    """The same of a state_dict that torch.save wrote, whatever wrapped the net meanwhile."""
    try:
        # weights_only: nothing in the file can run.
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle can raise anything
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            raise RunError(
                f"{path} holds Python objects, not weights alone, and they could run code: save "
                "net.state_dict() instead, with torch.save"
            ) from None
        raise RunError(f"{path} is no whole file of torch.save") from None
    if isinstance(weights, dict):  # a checkpoint of the usual form holds them under such a name
        held = (weights.get(name) for name in ("state_dict", "model_state_dict", "model"))
        weights = next((value for value in held if isinstance(value, dict)), weights)
    named = isinstance(weights, dict) and all(
        isinstance(name, str) and isinstance(value, torch.Tensor) for name, value in weights.items()
    )
    if not named:
        raise RunError(
            f"{path} holds a {type(weights).__name__} that is no state_dict: save "
            "net.state_dict() instead, with torch.save"
        )
    return weights, {}
