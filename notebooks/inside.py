"""What a trained net sees, how sure it is and how robust: measurements, and figures of them.

A plot draws on `ax`, or on new axes, and returns them; `plot_prediction` and `plot_robustness`
return a whole figure.
"""

import contextlib
import csv
import functools
import itertools
import json
from collections import Counter
from collections.abc import Container, Iterator

import matplotlib.pyplot as plt
import torch
import torch.nn as nn
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from plots import STYLES, calibration, margins
from torch import Tensor

from mnist_lib import evaluation, get_recipe
from mnist_lib.augment import MOVES, augment, denormalize, normalize
from mnist_lib.base.arrays import as_images, as_labels
from mnist_lib.base.errors import ParameterError, check
from mnist_lib.base.tables import Table
from mnist_lib.curves import COLORS, axes
from mnist_lib.digits.prepare import Prediction
from mnist_lib.figures.layers import hook_leaves
from mnist_lib.figures.pictures import frame, plot_captioned, tiles
from mnist_lib.grade.records import shipped

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
    inputs = normalize(images).requires_grad_()
    with evaluation.in_mode(net, training=False), torch.enable_grad():
        output = net(inputs).log_softmax(dim=1) if logits else net(inputs)
        best = output.max(dim=1).values.sum()
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
) -> list[int]:
    """Mistakes on uint8 images (N, 28, 28) with labels (N,), at each amount of distortion."""
    images = as_images(images)
    labels = as_labels(labels, len(images)).cpu()
    changed = (distort(images, kind, amount) for amount in amounts)
    answers = (evaluation.infer(net, images).argmax(dim=1).cpu() for images in changed)
    return [(answer != labels).sum().item() for answer in answers]


def expected_calibration_error(labels: Tensor, log_probabilities: Tensor) -> float:
    """Mean gap (points) in `calibration`, weighted by images (Naeini, Cooper, Hauskrecht 2015)."""
    bins = calibration(labels, log_probabilities)
    return sum(abs(100 * right - sure * images) for _, sure, right, images in bins) / len(labels)


def plot_filters(weights: Tensor, columns: int = 8, ax: Axes | None = None) -> Axes:
    """A layer's filters (N, height, width): yellow is positive, blue negative, grey zero."""
    count, height, width = weights.shape
    spaced = F.pad(weights.detach(), (1, 0, 1, 0), value=torch.nan)
    most = weights.abs().max().item()
    style = {"cmap": "cividis", "vmin": -most, "vmax": most}
    title = f"{count} filters of {height} x {width} weights"
    ax = tiles(spaced, columns, ax, title, torch.nan, **style)
    ax.get_figure().colorbar(ax.get_images()[0], ax=ax, label="weight", pad=0.01)
    return ax


def plot_feature_maps(maps: dict[str, Tensor], ax: Axes | None = None) -> Axes:
    """A row per layer: the first 16 channels of its map (C, H, W), each scaled to its maximum.

    Darker is stronger. All are drawn the same size, whatever their resolution.
    """
    ax = ax or axes(0.3 + 0.5 * len(maps))
    style = {"cmap": "gray_r", "vmin": 0, "interpolation": "nearest"}
    for row, (name, layer) in enumerate(maps.items()):
        for column, values in enumerate(layer[:16].clamp(min=0)):
            corners = (column, column + 0.9, row + 0.9, row)
            ax.imshow(values.numpy(), extent=corners, vmax=max(values.max().item(), 1e-9), **style)
            frame(ax, column + 0.5, row + 0.5, 0.9, edgecolor="0.7", linewidth=0.5)
        size = " x ".join(map(str, layer.shape))
        ax.text(16.1, row + 0.45, f"{name}: {size}", va="center", fontsize=11)
    ax.set(xlim=(0, 21), ylim=(len(maps), 0), aspect="equal")
    ax.set_title("What each layer passes on, up to 16 channels")
    ax.set_axis_off()
    return ax


def plot_fields(fields: dict[str, Tensor], sides: dict[str, int], ax: Axes | None = None) -> Axes:
    """Each layer's `effective_receptive_field`, and a frame around the pixels that its output sees.

    The frame is smaller than the receptive field, `sides` wide, where that reaches beyond the image
    or beyond its crop. A layer missing from `sides`, as when the net has no layer table, shows its
    name alone. The dotted square is the image's border.
    """
    check("fields", fields, bool(fields), "those of at least one layer")
    ax = ax or axes(2.7)
    for place, (name, field) in enumerate(fields.items()):
        left = 31 * place
        ax.imshow(field.numpy(), cmap="Blues", extent=(left, left + 28, 28, 0))
        frame(ax, left + 0.5, 0.5, 28, edgecolor="black", linestyle=":")
        seen = torch.nonzero(field)
        top, start = seen.amin(dim=0).tolist()
        side = (seen.amax(dim=0) - seen.amin(dim=0)).max().item() + 1
        frame(ax, left + start + 0.5, top + 0.5, side)
        rest = 1 - field.flatten().sort(descending=True).values.cumsum(dim=0)
        share = (1 + (rest > 0.1).sum().item()) / side**2
        size = f"{name}: {sides[name]} x {sides[name]}" if name in sides else name
        text = f"{size}\nin sight: {side} x {side}\n90% in {share:.0%} of it"
        ax.text(left + 14, -1, text, ha="center", va="bottom", fontsize=10)
    ax.set(xlim=(-0.5, 31 * len(fields) - 2.5), ylim=(28.5, -0.5))
    ax.set_title("The pixels that move a layer's middle output, darker if more", y=1.5)
    ax.set_axis_off()
    return ax


def plot_saliency(images: Tensor, slopes: Tensor, ax: Axes | None = None) -> Axes:
    """Images (N, 28, 28) and, below each, its `saliency` (N, 28, 28): the highest 3% are black."""
    black = slopes.flatten(1).quantile(0.97, dim=1)[:, None, None].clamp(min=1e-12)
    pairs = torch.cat([images.cpu(), (255 * slopes / black).clamp(max=255).byte()])
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


def plot_prediction(prediction: Prediction) -> Figure:
    """The picture as the net sees it, beside the probabilities (%) of the ten digits."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 3), layout="constrained")
    tiles(prediction.image[None], 1, left, "the picture as the net sees it")
    frame(left, 0, 0, 28, edgecolor="0.5", linewidth=1)
    percent = (100 * prediction.probabilities).tolist()
    bars = right.bar(range(10), percent, color=COLORS[0])
    right.bar_label(bars, [f"{each:.1f}" for each in percent], fontsize=8)
    right.set(xticks=range(10), ylim=(0, 108), xlabel="digit", ylabel="probability (%)")
    right.set_title(f"read as a {prediction.digit}")
    return figure


def plot_robustness(
    kinds: dict[str, dict[str, list[int]]], amounts: dict[str, list[float]], images: int
) -> Figure:
    """Mistakes (%, log scale) by amount of distortion, with 95% intervals: a panel per kind.

    A line per net; `images` is how many each has read. A net without a mistake is drawn at half of
    one.
    """
    figure, panels = plt.subplots(2, 2, figsize=(8, 7), layout="constrained", sharey=True)
    for ax, (kind, lines) in zip(panels.flat, kinds.items(), strict=True):
        at = torch.tensor(amounts[kind], dtype=torch.float)
        nets = zip(lines.items(), itertools.cycle(STYLES))
        for row, ((name, wrong), style) in enumerate(nets):
            share = 100 * torch.tensor(wrong).clamp(min=0.5) / images
            error = margins(share, wrong, [images] * len(wrong))
            beside = at + 0.012 * (row - 1) * (at[-1] - at[0])
            style = style | {"label": name, "linewidth": 1, "markersize": 5, "capsize": 2}
            ax.errorbar(beside, share, error, **style)
        best = min(lines, key=lambda name: sum(lines[name]))
        ax.set_title(f"{kind}: {best} misses the fewest in all", fontsize=11)
        ax.set(xlabel=DISTORTIONS[kind], ylabel="wrong (%, log scale)", xticks=amounts[kind])
        ax.set_yscale("log")
        ax.yaxis.set_major_formatter("{x:g}")
        ax.grid(alpha=0.3)
    panels.flat[0].legend(loc="upper center", fontsize=9)
    figure.suptitle(f"{images:,} test digits, one net of each recipe; bars are 95% intervals")
    return figure


@functools.cache
def label_errors() -> tuple[dict, ...]:
    """The MNIST test images whose label fewer than three of five people confirm, with their votes.

    Each has the image's `index`, the label `given`, the one a model `guessed`, and the `votes` for
    given, guessed and neither. From Northcutt, Athalye and Mueller 2021 (arXiv 2103.14749).
    """
    return tuple(json.loads(shipped("label_errors.json"))["errors"])


@functools.cache
def recorded_mistakes() -> dict[str, dict[int, dict[int, int]]]:
    """The recorded nets' wrong answers on test images, by recipe, seed and image index."""
    mistakes = {}
    for run in map(json.loads, shipped("mistakes.jsonl").splitlines()):
        wrong = dict(zip(run["wrong"], run["said"], strict=True))
        mistakes.setdefault(run["recipe"]["name"], {})[run["seed"]] = wrong
    return mistakes


def shared_mistakes(recipe: str) -> dict[int, int]:
    """How many of a recipe's recorded seeds get a test image wrong, by index, most first."""
    mistakes = recorded_mistakes()
    check("recipe", recipe, recipe in mistakes, f"one of {', '.join(mistakes)}")
    counts = Counter(index for wrong in mistakes[recipe].values() for index in wrong)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def own_digits_table() -> Table:
    """Recorded accuracy of `predict` on digits other than MNIST's, next to plain resizing."""
    rows = {}
    for row in csv.DictReader(shipped("own_digits.csv").splitlines()):
        share = f"{100 * int(row['correct']) / int(row['images']):.1f}"
        line = {"digits": row["digits"], "images": f"{int(row['images']):,}"}
        rows.setdefault(row["digits"], line)[f"{row['way']}, % right"] = share
    return Table(list(rows.values()))
