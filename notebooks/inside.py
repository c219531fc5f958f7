"""What a trained net sees, how sure it is and how robust: measurements, and figures of them.

A figure's axes are `ax`, or new ones, and are returned; `plot_robustness` returns a whole figure.
"""

import contextlib
import itertools
from collections import Counter
from collections.abc import Container, Iterator

import matplotlib.pyplot as plt
import torch
import torch.nn as nn
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plots import calibration
from torch import Tensor

from mnist_lib import evaluation, get_recipe
from mnist_lib.augment import MOVES, augment, denormalize, normalize
from mnist_lib.base.arrays import as_images, as_labels
from mnist_lib.base.errors import ParameterError, check
from mnist_lib.curves import COLORS, axes
from mnist_lib.figures.layers import hook_leaves
from mnist_lib.figures.pictures import frame, plot_captioned, tiles

# The kinds that `distort` applies, and the unit of their amounts.
DISTORTIONS = {
    "rotation": "degrees, clockwise",
    "shift": "pixels, to the right",
    "scale": "share of the size",
    "noise": "standard deviation, 1 is white",
}


def first_filters(net: nn.Module) -> Tensor:
    """The filters of the first layer that is a convolution over images: (N, height, width)."""
    kernels = [weights for weights in net.parameters() if weights.dim() == 4]
    if not kernels:
        raise ParameterError("it has no convolution over images")
    return kernels[0].detach().cpu().flatten(0, 1)


@torch.no_grad()
def feature_maps(net: nn.Module, image: Tensor, kind: type = nn.Module) -> dict[str, Tensor]:
    """The output of each layer of a `kind` for one uint8 image (28, 28): (C, H, W) by layer name.

    For a `Views` net, only the inner net's. Raises ParameterError if no such layer has maps.
    """
    layers = dict(evaluation.unwrapped(net).named_modules())
    with _outputs(net) as maps:
        evaluation.unwrapped(net)(_inputs(net, image)[:1])
    maps = {n: m[0].float().cpu() for n, m in maps.items() if getattr(m, "ndim", 0) == 4}
    maps = {name: layer for name, layer in maps.items() if isinstance(layers[name], kind)}
    if not maps:
        raise ParameterError(f"it calls no {kind.__name__} that makes maps of an image")
    return maps


@contextlib.contextmanager
def _outputs(net: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Layer outputs by name, from the last call in the block; the net is in evaluation mode."""
    net, maps = evaluation.unwrapped(net), {}
    with evaluation.in_mode(net, training=False), contextlib.ExitStack() as hooks:
        for hook in hook_leaves(net, lambda name, *call: maps.update({name: call[-1]})):
            hooks.enter_context(hook)
        yield maps


def _inputs(net: nn.Module, images: Tensor) -> Tensor:
    """The images as the input of the net inside its wrappers."""
    images = as_images(images).to(evaluation.device_of(net))
    return normalize(images, *evaluation.scale_of(net))


def effective_receptive_field(net: nn.Module, layer: str, images: Tensor) -> Tensor:
    """How much each pixel affects the middle output of a layer: (28, 28), summing to 1.

    The mean absolute gradient over the layer's channels and the uint8 images (N, 28, 28): Luo et
    al., "Understanding the Effective Receptive Field", 2016. For a `Views` net, only the inner net.
    """
    inputs = _inputs(net, images).requires_grad_()
    with _outputs(net) as maps, torch.enable_grad():
        evaluation.unwrapped(net)(inputs)
        check("layer", layer, layer in maps, f"one of {', '.join(maps)}")
        output = maps[layer]
        middle = output[:, :, output.shape[2] // 2, output.shape[3] // 2]
        field = torch.zeros_like(inputs)
        for channel in middle.sum(dim=0):
            field += torch.autograd.grad(channel, inputs, retain_graph=True)[0].abs()
    field = field.sum(dim=(0, 1)).cpu()
    return field / field.sum()


def saliency(net: nn.Module, images: Tensor) -> Tensor:
    """How much each pixel of uint8 images (N, 28, 28) affects the answer: float32 (N, 28, 28).

    The absolute gradient of the most probable digit's log-probability, scaled per image to at most
    1: Simonyan, Vedaldi and Zisserman, "Deep Inside Convolutional Networks", 2014.
    """
    images = as_images(images).to(evaluation.device_of(net))
    logits = evaluation.are_logits(evaluation.scores(net, images))
    answer = evaluation.log_probabilities(net, logits)
    inputs = normalize(images).requires_grad_()
    with evaluation.in_mode(net, training=False), torch.enable_grad():
        best = answer(inputs).max(dim=1).values.sum()
        slope = torch.autograd.grad(best, inputs)[0].squeeze(1).abs().cpu()
    return slope / slope.amax(dim=(1, 2), keepdim=True).clamp(min=1e-12)


def distort(images: Tensor, kind: str, amount: float, seed: int = 0) -> Tensor:
    """Distort uint8 images (N, 28, 28), all by the same signed amount; `seed` is for noise."""
    check("kind", kind, kind in DISTORTIONS, f"one of {', '.join(DISTORTIONS)}")
    if not amount:
        return images
    if kind == "noise":
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(images.shape, generator=generator).to(images.device)
        return (images + 255 * amount * noise).round().clamp(0, 255).to(torch.uint8)
    moves = torch.zeros(len(images), len(MOVES), device=images.device)
    moves[:, MOVES.index("right" if kind == "shift" else kind)] = 1 if amount > 0 else -1
    return denormalize(augment(images, moves, get_recipe("assignment", **{kind: abs(amount)})))


def robustness(
    net: nn.Module, images: Tensor, labels: Tensor, kind: str, amounts: list[float]
) -> list[float]:
    """Accuracy (%) on uint8 images (N, 28, 28) with labels (N,), at each amount of distortion."""
    images = as_images(images)
    labels = as_labels(labels, len(images)).cpu()
    changed = (distort(images, kind, amount) for amount in amounts)
    right = (evaluation.infer(net, images).argmax(dim=1).cpu() == labels for images in changed)
    return [100 * correct.float().mean().item() for correct in right]


def expected_calibration_error(labels: Tensor, log_probabilities: Tensor) -> float:
    """Mean gap (points) in `calibration`, weighted by images (Naeini, Cooper, Hauskrecht 2015)."""
    bins = calibration(labels, log_probabilities)
    return sum(abs(right - sure) * images for sure, right, images in bins) / len(labels)


def plot_filters(weights: Tensor, columns: int = 8, ax: Axes | None = None) -> Axes:
    """A layer's filters (N, height, width): orange is positive, purple negative, white zero."""
    spaced = F.pad(weights.detach(), (0, 1, 0, 1), value=torch.nan)
    most = weights.abs().max().item()
    style = {"cmap": "PuOr_r", "vmin": -most, "vmax": most}
    return tiles(spaced, columns, ax or axes(1.6), "", torch.nan, **style)


def plot_feature_maps(maps: dict[str, Tensor], ax: Axes | None = None) -> Axes:
    """A row per layer: the first 16 channels of its map (C, H, W), each scaled to its maximum.

    Darker is stronger. All are drawn the same size, whatever their resolution.
    """
    ax = ax or axes(0.3 + 0.52 * len(maps))
    style = {"cmap": "gray_r", "vmin": 0, "interpolation": "nearest"}
    for row, (name, layer) in enumerate(maps.items()):
        for column, values in enumerate(layer[:16].clamp(min=0)):
            corners = (column, column + 0.92, row + 0.92, row)
            ax.imshow(values.numpy(), extent=corners, vmax=max(values.max().item(), 1e-9), **style)
        size = " x ".join(map(str, layer.shape))
        ax.text(16.1, row + 0.46, f"{name}: {size}", va="center", fontsize=9)
    ax.set(xlim=(0, 20), ylim=(len(maps), 0), aspect="equal")
    ax.set_axis_off()
    return ax


def plot_fields(fields: dict[str, Tensor], sides: dict[str, int], ax: Axes | None = None) -> Axes:
    """Each layer's `effective_receptive_field`; the square is the theoretical one, `sides` wide.

    A layer that has none in `sides`, as of a net without a layer table, gets no square.
    """
    check("fields", fields, bool(fields), "those of at least one layer")
    ax = ax or axes(2.4)
    for place, (name, field) in enumerate(fields.items()):
        ax.imshow(field.numpy(), cmap="Blues", extent=(30 * place, 30 * place + 28, 28, 0))
        text = name
        if name in sides:
            text, side = f"{name}: {sides[name]} x {sides[name]}", min(sides[name], 28)
            top, left = torch.nonzero(field).amin(dim=0).clamp(max=28 - side).tolist()
            frame(ax, 30 * place + left + 0.5, top + 0.5, side)
        share = field.flatten().sort(descending=True).values.cumsum(dim=0)
        most = 1 + (share < 0.9).sum().item()
        text += f"\n90% in {most} pixels"
        ax.text(30 * place + 14, -1, text, ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(-0.5, 30 * len(fields) - 1.5), ylim=(28.5, -9))
    ax.set_axis_off()
    return ax


def plot_saliency(images: Tensor, slopes: Tensor, ax: Axes | None = None) -> Axes:
    """Images (N, 28, 28) and, below each, its `saliency` (N, 28, 28)."""
    pairs = torch.cat([images.cpu(), (255 * slopes).byte()])
    return tiles(pairs, len(images), ax, "digits, and below each the pixels that move the answer")


def plot_shared(
    images: Tensor,
    labels: Tensor,
    mistakes: dict[int, dict[int, int]],
    marked: Container[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """The images (N, 28, 28) that every seed gets wrong, as `true→answers`, most frequent first.

    `mistakes` maps seed and index to the answer, as in `recorded_mistakes`; frames `marked` ones.
    """
    shared = sorted(set.intersection(*map(set, mistakes.values())))
    captions = []
    for index in shared:
        answers = Counter(wrong[index] for wrong in mistakes.values()).most_common()
        captions.append(f"{labels[index]}→{', '.join(str(answer) for answer, _ in answers)}")
    framed = [place for place, index in enumerate(shared) if index in marked]
    ax = plot_captioned(images[shared], captions, min(12, max(1, len(shared))), framed, ax)
    ax.set_title(f"missed by all of {len(mistakes)} seeds: true→answers")
    return ax


def plot_robustness(
    kinds: dict[str, dict[str, list[float]]], amounts: dict[str, list[float]], units: dict[str, str]
) -> Figure:
    """Test accuracy (%) by amount of distortion: a panel per kind, a line per net."""
    figure, panels = plt.subplots(2, 2, figsize=(8, 6), layout="constrained", sharey=True)
    for ax, (kind, lines) in zip(panels.flat, kinds.items(), strict=True):
        for (name, accuracy), color in zip(lines.items(), itertools.cycle(COLORS)):
            ax.plot(amounts[kind], accuracy, ".-", color=color, label=name)
        ax.set(xlabel=f"{kind}: {units[kind]}", ylabel="test accuracy (%)")
        ax.grid(alpha=0.3)
    panels.flat[0].legend(loc="lower center", fontsize=9)
    return figure
