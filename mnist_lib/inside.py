"""What goes on in a trained net, what it gets wrong, and how much a digit may change."""

import contextlib
import csv
import json
from collections import Counter
from collections.abc import Iterator
from functools import cache
from importlib import resources

import torch
import torch.nn as nn

from .data import MEAN, STD, as_images, augment, normalize
from .errors import check
from .evaluation import evaluating, infer, log_probabilities
from .net import device_of, unwrapped
from .recipe import get_recipe
from .tables import Table

# What `distort` does to digits, and the unit of how much.
DISTORTIONS = {
    "rotation": "degrees, clockwise",
    "shift": "pixels, to the right",
    "scale": "share of the size",
    "noise": "standard deviation, 1 is white",
}


@torch.no_grad()
def feature_maps(net: nn.Module, image: torch.Tensor) -> dict[str, torch.Tensor]:
    """What each layer makes of one uint8 image (28, 28): by its name, float32 (C, H, W).

    Of a net of views, the net inside. Raises ParameterError as `infer` does.
    """
    net = unwrapped(net)
    with _outputs(net) as maps:
        infer(net, as_images(image)[:1])
    return {name: output[0].cpu() for name, output in maps.items() if output.dim() == 4}


@contextlib.contextmanager
def _outputs(net: nn.Module) -> Iterator[dict[str, torch.Tensor]]:
    """The layers' outputs by their names, of the last call meanwhile, in evaluation mode."""
    maps = {}
    hooks = [
        module.register_forward_hook(lambda _, __, output, name=name: maps.update({name: output}))
        for name, module in net.named_modules()
        if not list(module.children())
    ]
    try:
        with evaluating(net):
            yield maps
    finally:
        for hook in hooks:
            hook.remove()


def effective_receptive_field(net: nn.Module, layer: str, images: torch.Tensor) -> torch.Tensor:
    """How much each pixel moves the middle output of a layer: (28, 28), with a sum of 1.

    The mean size of the gradient, over the layer's channels and the uint8 images (N, 28, 28): Luo
    et al., "Understanding the Effective Receptive Field", 2016. Of a net of views, the net inside.
    Raises ParameterError for a layer that the net does not have.
    """
    net = unwrapped(net)
    inputs = normalize(as_images(images).to(device_of(net))).requires_grad_()
    with _outputs(net) as maps, torch.enable_grad():
        net(inputs)
        check("layer", layer, layer in maps, f"one of {', '.join(maps)}")
        output = maps[layer]
        middle = output[:, :, output.shape[2] // 2, output.shape[3] // 2]
        field = torch.zeros_like(inputs)
        for channel in middle.sum(dim=0):
            field += torch.autograd.grad(channel, inputs, retain_graph=True)[0].abs()
    field = field.sum(dim=(0, 1)).cpu()
    return field / field.sum()


def saliency(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    """How much each pixel moves the net's answer: of uint8 images (N, 28, 28), float32 alike.

    The size of the gradient of the log-probability of the most probable digit, the largest of an
    image 1: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2014.
    """
    images = as_images(images).to(device_of(net))
    answer = log_probabilities(net, images)
    inputs = normalize(images).requires_grad_()
    with evaluating(net), torch.enable_grad():
        best = answer(inputs).max(dim=1).values.sum()
        slope = torch.autograd.grad(best, inputs)[0].squeeze(1).abs().cpu()
    return slope / slope.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def distort(images: torch.Tensor, kind: str, amount: float, seed: int = 0) -> torch.Tensor:
    """uint8 images (N, 28, 28), all changed alike: one of DISTORTIONS, in its unit, either way.

    `seed` is of the noise. Raises ParameterError for another kind.
    """
    check("kind", kind, kind in DISTORTIONS, f"one of {', '.join(DISTORTIONS)}")
    if not amount:
        return images
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + 255 * amount * noise).round().clamp(0, 255).to(torch.uint8)
    moves = torch.zeros(len(images), 4, device=images.device)
    moves[:, ("rotation", "scale", "shift").index(kind)] = 1 if amount > 0 else -1
    inputs = augment(images, moves, get_recipe("assignment", **{kind: abs(amount)}))
    return (255 * (STD * inputs.squeeze(1) + MEAN)).round().clamp(0, 255).to(torch.uint8)


def robustness(
    net: nn.Module, images: torch.Tensor, labels: torch.Tensor, kind: str, amounts: list[float]
) -> list[float]:
    """Accuracy (%) on uint8 images (N, 28, 28) with labels (N,), distorted by each amount."""
    changed = (distort(as_images(images), kind, amount) for amount in amounts)
    right = (infer(net, images).argmax(dim=1).cpu() == labels.cpu() for images in changed)
    return [100 * correct.float().mean().item() for correct in right]


def expected_calibration_error(
    labels: torch.Tensor, log_probabilities: torch.Tensor, bins: int = 10
) -> float:
    """How far confidence and accuracy are apart (points): Naeini, Cooper and Hauskrecht 2015.

    Of labels (N,) and log-probabilities (N, 10): the mean over `bins` of equal width, each weighted
    by its images.
    """
    confidence, predictions = log_probabilities.cpu().exp().max(dim=1)
    gap = (predictions == labels.cpu()).float() - confidence
    place = (bins * confidence).long().clamp(max=bins - 1)
    sums = torch.zeros(bins).index_add_(0, place, gap)
    return 100 * (sums.abs().sum() / len(labels)).item()


@cache
def label_errors() -> tuple[dict, ...]:
    """The test images of MNIST whose label five people doubt, with their votes.

    `index` of the test image; label `given` and `guessed` by a model; `votes` for given, guessed
    and neither. Of the data of Northcutt, Athalye and Mueller 2021 (arXiv 2103.14749), those whose
    given label fewer than three of five confirm.
    """
    text = (resources.files(__package__) / "label_errors.json").read_text(encoding="utf-8")
    return tuple(json.loads(text)["errors"])


@cache
def recorded_mistakes() -> dict[str, dict[int, dict[int, int]]]:
    """Of recipe and seed, the test images that the recorded net gets wrong: index and answer."""
    text = (resources.files(__package__) / "mistakes.jsonl").read_text(encoding="utf-8")
    found = {}
    for run in map(json.loads, text.splitlines()):
        wrong = dict(zip(run["wrong"], run["said"], strict=True))
        found.setdefault(run["recipe"]["name"], {})[run["seed"]] = wrong
    return found


def shared_mistakes(recipe: str) -> dict[int, int]:
    """Test images that some recorded seed of a recipe gets wrong, and how many seeds do so.

    Those that most seeds miss come first. Raises ParameterError for a recipe without records.
    """
    known = recorded_mistakes()
    check("recipe", recipe, recipe in known, f"one of {', '.join(known)}")
    counts = Counter(index for wrong in known[recipe].values() for index in wrong)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def own_digits_table() -> Table:
    """How well `predict` reads digits that are not MNIST's, beside the raw way: recorded counts."""
    text = (resources.files(__package__) / "own_digits.csv").read_text(encoding="utf-8")
    rows = {}
    for row in csv.DictReader(text.splitlines()):
        share = f"{100 * int(row['correct']) / int(row['images']):.1f}"
        line = {"digits": row["digits"], "images": f"{int(row['images']):,}"}
        rows.setdefault(row["digits"], line)[f"{row['way']}, % right"] = share
    return Table(list(rows.values()))
