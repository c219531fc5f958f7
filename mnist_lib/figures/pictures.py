"""Pictures of digits: grids, augmentation, receptive fields and what a net gets wrong.

Each draws on `ax`, or on a new figure, and returns the axes; `of` names the images in the title.
"""

from collections.abc import Container

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from ..augment import augment, denormalize, random_affine
from ..base.arrays import as_labels
from ..base.errors import check_whole
from ..curves import COLORS, axes
from ..recipe import Recipe
from .layers import LayerTable

LABEL = {"color": COLORS[0], "fontsize": 11, "weight": "bold"}
CENTRED = {"ha": "center", "va": "center"}
CAPTION = 13  # pixels above a digit for two lines of text


def plot_digits(
    images: Tensor, labels: Tensor, of: str = "MNIST", columns: int = 12, ax: Axes | None = None
) -> Axes:
    """A grid of uint8 images (N, 28, 28), each with its label in the corner."""
    ax = tiles(images, columns, ax, f"Digits of {of}")
    for place, label in enumerate(labels.tolist()):
        left, top = _corner(place, columns)
        ax.text(left, top, label, va="top", **LABEL)
    return ax


def plot_hard(images: Tensor, labels: Tensor, losses: Tensor, ax: Axes | None = None) -> Axes:
    """The first 24 images (N, 28, 28) and, below them, the 24 with the highest losses (N,)."""
    count = min(24, len(losses))
    chosen = torch.cat([torch.arange(count), losses.cpu().topk(count).indices])
    ax = plot_digits(images[chosen], labels[chosen], columns=-(-count // 2), ax=ax)
    ax.axhline(55.5, color=COLORS[1], linewidth=2)
    ax.set_title(f"any {count} training digits; below the line, those with the highest loss")
    return ax


def plot_augmented(images: Tensor, recipe: Recipe, seed: int = 0, ax: Axes | None = None) -> Axes:
    """A row per image (N, 28, 28): the original, then eleven random augmentations."""
    digits = images.repeat_interleave(12, dim=0)
    moves = random_affine(len(digits), recipe, torch.Generator().manual_seed(seed))
    moves[::12] = 0  # the first in each row is the original
    ax = tiles(denormalize(augment(digits, moves, recipe, side=28)), 12, ax, "")
    margin = (28 - recipe.crop) / 2  # around the square: the part that the recipe's net sees
    for place in range(len(digits)):
        left, top = _corner(place, 12)
        frame(ax, left + margin, top + margin, recipe.crop, linestyle=":", linewidth=1)
    moved = f"shifted {recipe.shift:g} px, resized {recipe.scale:.0%}"
    seen = f"then as {recipe.name} sees it: turned up to {recipe.rotation:g}°, {moved}"
    ax.set_title(f"each digit as it is, {seen}", fontsize=10)
    return ax


def plot_receptive_fields(layers: LayerTable, image: Tensor, ax: Axes | None = None) -> Axes:
    """The layers' receptive fields, as nested squares around the middle of an image (28, 28)."""
    ax = tiles(image[None], 1, ax or axes(4.5), "What one output of each layer sees")
    ax.get_images()[0].set_alpha(0.3)  # so that the squares stand out from the ink
    names = {layer.receptive_field: layer.name for layer in reversed(layers)}  # the first wins
    edge = max(28, *names) / 2
    line = {"arrowstyle": "-", "color": "0.5", "shrinkB": 0}
    squares = sorted([*names.items(), (28, "the image")], reverse=True)
    for row, (side, name) in enumerate(squares):
        style = {"edgecolor": "black", "linestyle": ":"} if name == "the image" else {}
        frame(ax, 14 - side / 2, 14 - side / 2, side, **style)
        corner, beside = (13.5 + side / 2, 13.5 - side / 2), (17 + edge, 13.5 - edge + 2.4 * row)
        text = f"{name}: {side} x {side}"
        ax.annotate(text, corner, beside, va="center", fontsize=11, arrowprops=line)
    ax.set(xlim=(13 - edge, 31 + edge), ylim=(14 + edge, 13 - edge))
    return ax


def plot_confusion(
    labels: Tensor, predictions: Tensor, of: str = "MNIST", ax: Axes | None = None
) -> Axes:
    """Confusion matrix of labels and predictions (N,); only mistakes are coloured."""
    ax = ax or axes(5.6)
    true, predicted = (as_labels(answers, len(labels)).cpu() for answers in (labels, predictions))
    counts = torch.bincount(10 * true + predicted, minlength=100).view(10, 10)
    mistakes = counts.clone().fill_diagonal_(0)
    ax.imshow(mistakes.numpy(), cmap="Reds")
    for true, predicted in counts.nonzero().tolist():
        strong = mistakes[true, predicted] > 0.6 * mistakes.max()
        color = "white" if strong else "0.4" if true == predicted else "black"
        ax.text(predicted, true, counts[true, predicted].item(), color=color, **CENTRED)
    ax.set_title(f"{mistakes.sum().item()} mistakes in {len(labels):,} test images of {of}")
    ax.set(xlabel="predicted", ylabel="true", xticks=range(10), yticks=range(10))
    return ax


def plot_mistakes(
    images: Tensor,
    labels: Tensor,
    log_probabilities: Tensor,
    of: str = "MNIST",
    rows: int = 4,
    marked: Container[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """The misclassified images, ten a row, most confident first: `true→predicted`, confidence.

    Takes images (N, 28, 28), labels (N,), log-probabilities (N, 10); frames the `marked` indices.
    """
    confidence, predictions = log_probabilities.cpu().exp().max(dim=1)
    labels = as_labels(labels, len(predictions)).cpu()
    wrong = torch.nonzero(predictions != labels).flatten()
    wrong = wrong[confidence[wrong].argsort(descending=True)][: 10 * rows]
    captions = [f"{labels[i]}→{predictions[i]}\n{confidence[i]:.0%}" for i in wrong.tolist()]
    framed = [place for place, index in enumerate(wrong.tolist()) if index in marked]
    ax = plot_captioned(images.cpu()[wrong], captions, 10, framed, ax)
    ax.set_title(f"mistakes on {of}: true→predicted, confidence")
    return ax


def plot_captioned(
    images: Tensor,
    captions: list[str],
    columns: int = 10,
    framed: Container[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """Images (N, 28, 28), each below its caption; the `framed` positions (from 0) get a frame."""
    ax = tiles(F.pad(images.cpu(), (0, 0, CAPTION, 0)), columns, ax, "")
    for place, caption in enumerate(captions):
        left, top = _corner(place, columns, height=28 + CAPTION)
        ax.text(left + 14, top + CAPTION / 2, caption, fontsize=11, **CENTRED)
        if place in framed:
            frame(ax, left, top + CAPTION, 28)
    return ax


def _corner(place: int, columns: int, height: int = 28) -> tuple[int, int]:
    """The left and top pixel of a tile in a grid."""
    row, column = divmod(place, columns)
    return 28 * column, height * row


def frame(ax: Axes, left: float, top: float, side: float, **style) -> None:
    """Draw a square frame around the `side` pixels from `left` and `top`."""
    style = {"edgecolor": COLORS[0], "linewidth": 1.5, "clip_on": False} | style
    ax.add_patch(Rectangle((left - 0.5, top - 0.5), side, side, fill=False, **style))


def tiles(
    images: Tensor, columns: int, ax: Axes | None, title: str, empty: float = 0, **style
) -> Axes:
    """Draw images (N, height, width) as a grid of `columns`, without axes, padded with `empty`."""
    check_whole("columns", columns)
    count, height, width = images.shape
    rows = max(1, -(-count // columns))
    full = F.pad(images.cpu(), (0, 0, 0, 0, 0, rows * columns - count), value=empty)
    grid = full.view(rows, columns, height, width).transpose(1, 2)
    canvas = grid.reshape(rows * height, columns * width).numpy()
    ax = ax or axes(0.4 + min(7.8 * len(canvas) / len(canvas.T), 6))
    if not style:  # digits, dark on white
        canvas, style = 255 - canvas, {"cmap": "gray", "vmin": 0, "vmax": 255}
    ax.imshow(canvas, interpolation="nearest", **style)
    ax.set_title(title)
    ax.set_axis_off()
    return ax
