"""A run's folder, and what a finished run leaves in it."""

import dataclasses
import io
import json
import operator
import os
from pathlib import Path

import torch
import torch.nn as nn

from ..augment import MEAN, STD
from ..base.errors import RunError, as_seed, check
from ..base.files import HISTORY, WEIGHTS, as_path, check_writable, lock, read_bytes, write_file
from ..data import FULL_TRAINING_SET, MNIST, SAMPLE_TRAINING_SET, check_data
from ..evaluation import check_net, crop_of, scale_of, unwrapped
from ..history import History, check_history, load_history, save_history
from ..nets import NETS
from ..recipe import RECIPES, Recipe, check_recipe, differences, make_net
from .checkpoint import epochs_kept

# Where others' checkpoints have their state_dict.
NESTED = ("state_dict", "model_state_dict", "model", "net", "network", "weights", "params")
UNFINISHED = "a run without its final weights: train in its folder again, then call save_run"
PRETRAINED = Path(__file__).parent / "pretrained"  # a run's folder for each name


def run_folder(run_dir: str | os.PathLike | None, recipe: Recipe, seed: int, data: MNIST) -> Path:
    """The folder of a run, created and tried for writing before hours of training depend on it.

    Without a `run_dir`, it is named after recipe, seed and size of the data, but not after a fold:
    give each fold a `run_dir`. It then lies in the folder that the environment variable MNIST_RUNS
    names, else in `runs` of the library's checkout, else in `runs` of the working directory.
    """
    check_recipe(recipe)
    check_data(data)
    recipe, seed = recipe.for_source(data.source), as_seed(seed)
    data.check_batch_size(recipe.batch_size)
    if run_dir is None or run_dir == "":
        checkout = Path(__file__).parents[2]
        root = checkout if (checkout / "pyproject.toml").is_file() else Path.cwd()
        runs = as_path("MNIST_RUNS", os.environ.get("MNIST_RUNS") or root / "runs")
        folder = runs / _run_name(recipe, seed, data)
    else:
        folder = as_path("run_dir", run_dir)
    check_writable(folder)
    return folder


def _run_name(recipe: Recipe, seed: int, data: MNIST) -> str:
    standard = dataclasses.asdict(RECIPES.get(recipe.name, recipe).for_source(data.source))
    fields = dataclasses.asdict(recipe).items()
    parts = [f"{key}{value}" for key, value in fields if value != standard[key]]
    parts = [recipe.name, *parts, f"seed{seed}"]
    if data.source != "mnist":
        parts.append(data.source)
    whole = FULL_TRAINING_SET if data.source == "mnist" else SAMPLE_TRAINING_SET
    if len(data.train_images) != whole:
        parts.append(f"train_images{len(data.train_images)}")
    return "-".join(parts).replace(":", ".")  # a colon, as in an import path, is not for files


def save_run(folder: str | os.PathLike, history: History, net: nn.Module) -> list[Path]:
    """Write history and final weights into `folder`; returns their paths.

    Raises RunError if `folder` holds a run of another recipe, seed or data.
    """
    from safetensors.torch import save

    folder = as_path("folder", folder)
    check_history(history)
    check_net(net)
    if (folder / HISTORY).exists():
        ours, theirs = history.record, load_history(folder).record
        for name, differ in (("recipe", differences), ("seed", operator.ne), ("data", operator.ne)):
            if name in ours and name in theirs and differ(theirs[name], ours[name]):
                raise RunError(f"{folder} holds a run of another {name}: choose another folder")
    # Copies, since safetensors refuses tensors that share memory.
    tensors = unwrapped(net).state_dict().items()
    weights = {name: part.clone().contiguous() for name, part in tensors}
    content = save(weights, {"crop": _crop_and_scale(net)})
    with lock(folder):
        save_history(folder / HISTORY, history)
        write_file(folder / WEIGHTS, lambda path: path.write_bytes(content))
    return [folder / HISTORY, folder / WEIGHTS]


def load_weights(net: nn.Module, path: str | os.PathLike) -> nn.Module:
    """Load weights into `net` from a file, or from the run in a folder; returns `net`.

    A file is safetensors, or a state_dict saved by torch.save; nothing in it can run.
    """
    check_net(net)
    whole, net = net, unwrapped(net)
    path = as_path("path", path)
    if path.is_dir():
        if epochs_kept(path) and not (path / WEIGHTS).exists():
            raise RunError(f"{path} holds {UNFINISHED}")
        path /= WEIGHTS
    content = read_bytes(path)
    # A zip file or an older pickle of torch. Safetensors is a length, which may be 0x80, and JSON.
    by_torch = content.startswith((b"PK", b"\x80")) and content[8:9] != b"{"
    weights, metadata = (_parse_torch if by_torch else _parse_safetensors)(path, content)
    crop, own_crop = metadata.get("crop"), _crop_and_scale(whole)
    if crop not in (None, own_crop):
        advice = "make it with make_net and the run's recipe, in Rescaled if there is a scale"
        raise RunError(f"{path} is for crop {crop}, and this net has crop {own_crop}: {advice}")
    own = net.state_dict()
    prefix = min(weights, default="").removesuffix(min(own))
    if weights.keys() == {prefix + name for name in own}:  # saved from a net that held it
        weights = {name: weights[prefix + name] for name in own}
    for name in (*own, *weights):
        needed, found = (_describe(t[name]) if name in t else "none" for t in (own, weights))
        if needed != found:
            other = f"weights of another net than {type(net).__name__}"
            raise RunError(f"{path} holds {other}: {name} is {found} there, {needed} here")
    net.load_state_dict(weights)
    return whole


def _crop_and_scale(net: nn.Module) -> str:
    """What the weights' shapes do not tell: the net's crop and, if it is not MNIST's, its scale."""
    scale = scale_of(net)
    return str(crop_of(net)) if scale == (MEAN, STD) else f"{crop_of(net)}, scale {scale}"


def _describe(tensor: torch.Tensor) -> str:
    """A tensor's shape, after its type if that is not a weight's."""
    kind = "" if tensor.is_floating_point() else f"{tensor.dtype} ".removeprefix("torch.")
    return f"{kind}{tuple(tensor.shape)}"


def trained_names() -> list[str]:
    """The recipes whose trained weights come with the library, and "distilled"."""
    return sorted(folder.name for folder in PRETRAINED.iterdir())


def pretrained(name: str | os.PathLike) -> nn.Module:
    """The trained net of a recipe or of the run in a folder; on the CPU, in evaluation mode.

    A recipe's weights are from the recorded seed whose last epoch is nearest to the mean of all,
    not from the best: see `load_history(PRETRAINED / name)`. "distilled", chosen
    likewise, is the assignment's net, taught by wider ones: notebooks/scripts/distill.py.
    """
    recipes = trained_names()
    folder = PRETRAINED / name if name in recipes else as_path("name", name)
    check("name", name, folder.is_dir(), f"one of {', '.join(recipes)}, or the folder of a run")
    recipe = load_history(folder).recipe
    if recipe is None or recipe.net not in NETS:  # nothing that a file names is imported
        net = f"net {recipe.net}, not of this library" if recipe else "no recipe of this library"
        raise RunError(f"the run in {folder} has {net}: use load_weights(net, {str(folder)!r})")
    with torch.random.fork_rng(devices=[]):  # for the initial weights
        return load_weights(make_net(recipe), folder).eval()


def _parse_safetensors(path: Path, content: bytes) -> tuple[dict, dict]:
    """The tensors by name, and the file's metadata."""
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
        advice = "name a weights.safetensors or .pt, or the folder of a run"
        raise RunError(f"{path} is not a whole safetensors file ({error}): {advice}") from None
    # The file starts with the length of its JSON header, in 8 bytes, and the header.
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return weights, header.get("__metadata__", {})


def _parse_torch(path: Path, content: bytes) -> tuple[dict, dict]:
    """As `_parse_safetensors`, for a state_dict that torch.save wrote, alone or in a checkpoint."""
    advice = "save net.state_dict() instead, with torch.save"
    try:
        # weights_only: nothing in the file can run.
        weights = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle can raise anything
        if "weights_only" in str(error).lower() or "Unsupported" in str(error):
            objects = "Python objects, not weights alone, and they could run code"
            raise RunError(f"{path} holds {objects}: {advice}") from None
        raise RunError(f"{path} is not a whole file of torch.save") from None
    if isinstance(weights, dict):
        if "mnist_lib" in weights:
            raise RunError(f"{path} is a checkpoint of {UNFINISHED}")
        nested = [weights[name] for name in NESTED if _is_state_dict(weights.get(name))]
        weights = nested[0] if nested else weights
    if not _is_state_dict(weights):
        raise RunError(f"{path} holds a {type(weights).__name__}, not a state_dict: {advice}")
    return weights, {}


def _is_state_dict(value) -> bool:
    return isinstance(value, dict) and all(
        isinstance(name, str) and isinstance(part, torch.Tensor) for name, part in value.items()
    )
