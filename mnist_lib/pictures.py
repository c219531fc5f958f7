"""Pictures of digits: grids, what a recipe makes of them, what a net sees and gets wrong.

Each takes data and an optional `ax`, and returns the `ax`.
"""

from collections import Counter
from collections.abc import Container

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .augment import augment, denormalize, random_affine
from .errors import check_whole
from .plots import COLORS, axes
from .receptive_field import LayerTable
from .recipe import Recipe

LABEL = WRONG = COLORS[1]


def plot_digits(
    images: torch.Tensor,
    labels: torch.Tensor,
    of: str = "MNIST",
    columns: int = 12,
    ax: Axes | None = None,
) -> Axes:
    """A grid of uint8 images (N, 28, 28), each with its label in its corner.

    `of`, here and below: what the images are, for the title.
    """
    ax = _tiles(images, columns, ax)
    ax.set_title(f"Digits of {of}")
    for index, label in enumerate(labels.tolist()):
        row, column = divmod(index, columns)
        ax.text(28 * column + 1, 28 * row + 6, label, color=LABEL, fontsize=8)
    return ax


def plot_inputs(
    inputs: torch.Tensor, title: str, columns: int = 12, ax: Axes | None = None
) -> Axes:
    """A grid of a net's inputs, normalised as `normalize` does: (N, 1, height, width)."""
    ax = _tiles(denormalize(inputs), columns, ax)
    ax.set_title(title)
    return ax


def plot_hard(
    images: torch.Tensor, labels: torch.Tensor, losses: torch.Tensor, ax: Axes | None = None
) -> Axes:
    """24 of the images (N, 28, 28) as they come, and below the 24 whose losses (N,) are highest."""
    hardest = losses.topk(min(24, len(losses))).indices
    chosen = torch.cat([torch.arange(min(24, len(losses))), hardest])
    ax = plot_digits(images[chosen], labels[chosen], columns=12, ax=ax)
    ax.axhline(56, color=WRONG, linewidth=2)
    ax.set_title("any 24 training digits; below the line, those with the highest loss")
    return ax


def plot_augmented(
    images: torch.Tensor, recipe: Recipe, seed: int = 0, ax: Axes | None = None
) -> Axes:
    """A row for each of a few images (N, 28, 28): as it is, then as eleven epochs may show it.

    The square is the part that the recipe's net looks at.
    """
    digits = images.repeat_interleave(12, dim=0)
    moves = random_affine(len(digits), recipe, torch.Generator().manual_seed(seed))
    moves[::12] = 0  # the first of each row as it is
    ax = plot_inputs(augment(digits, moves, recipe, side=28), "", columns=12, ax=ax)
    at = (28 - recipe.crop) / 2 - 0.5
    for number in range(len(digits)):
        row, column = divmod(number, 12)
        corner = (28 * column + at, 28 * row + at)
        square = {"fill": False, "edgecolor": COLORS[0], "linestyle": ":"}
        ax.add_patch(Rectangle(corner, recipe.crop, recipe.crop, **square))
    ax.set_title(
        f"each digit as it is, then as {recipe.name} sees it: turned up to {recipe.rotation:g}°, "
        f"shifted {recipe.shift:g} px, resized {recipe.scale:.0%}",
        fontsize=10,
    )
    return ax


def plot_receptive_fields(layers: LayerTable, image: torch.Tensor, ax: Axes | None = None) -> Axes:
    """What one output of each layer sees, as nested squares in the middle of an image (28, 28)."""
    ax = _tiles(image[None], 1, ax or axes(4.5))
    names = {}
    for layer in layers:
        names.setdefault(layer.receptive_field, layer.name)
    for number, (side, name) in enumerate(names.items()):
        color = COLORS[number % len(COLORS)]
        corner = (13.5 - side / 2, 13.5 - side / 2)
        ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=1.5))
        text = f"{name}: {side} x {side}"
        ax.text(31, 3 * number - 1, text, color=color, va="center")
    ax.set(xlim=(-3.5, 45), ylim=(30.5, -3.5))
    ax.set_title("What one output of each layer sees")
    return ax


def plot_confusion(
    labels: torch.Tensor, predictions: torch.Tensor, of: str = "MNIST", ax: Axes | None = None
) -> Axes:
    """Confusion matrix of labels and predictions (N,); colour marks the mistakes alone."""
    ax = ax or axes(5.6)
    counts = torch.bincount(10 * labels.cpu() + predictions.cpu(), minlength=100).view(10, 10)
    mistakes = counts.clone().fill_diagonal_(0)
    ax.imshow(mistakes.numpy(), cmap="Reds")
    for true in range(10):
        for predicted in range(10):
            if count := counts[true, predicted].item():
                strong = mistakes[true, predicted] > 0.6 * mistakes.max()
                color = "white" if strong else "0.4" if true == predicted else "black"
                ax.text(predicted, true, count, ha="center", va="center", color=color, fontsize=8)
    wrong = mistakes.sum().item()
    ax.set(
        title=f"{wrong} mistakes in {len(labels):,} test images of {of}",
        xlabel="predicted",
        ylabel="true",
        xticks=range(10),
        yticks=range(10),
    )
    return ax


def plot_mistakes(
    images: torch.Tensor,
    labels: torch.Tensor,
    log_probabilities: torch.Tensor,
    of: str = "MNIST",
    columns: int = 10,
    rows: int = 4,
    marked: Container[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """The misclassified images, most confident mistakes first, as `true→predicted confidence`.

    Shapes: images (N, 28, 28), labels (N,), log-probabilities (N, 10). The `marked` indices get a
    frame.
    """
    confidence, predictions = log_probabilities.cpu().exp().max(dim=1)
    labels = labels.cpu()
    wrong = torch.nonzero(predictions != labels).flatten()
    wrong = wrong[confidence[wrong].argsort(descending=True)][: columns * rows]
    captions = [f"{labels[i]}→{predictions[i]} {confidence[i]:.0%}" for i in wrong.tolist()]
    framed = [place for place, index in enumerate(wrong.tolist()) if index in marked]
    ax = plot_captioned(images.cpu()[wrong], captions, columns, framed, ax)
    ax.set_title(f"mistakes on {of}: true→predicted, confidence")
    return ax


def plot_captioned(
    images: torch.Tensor,
    captions: list[str],
    columns: int = 10,
    framed: Container[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """Images (N, 28, 28), each below its caption; the `framed` places, from 0 on, get a frame."""
    # Room above each digit for its caption.
    ax = _tiles(torch.nn.functional.pad(images.cpu(), (0, 0, 9, 0)), columns, ax)
    for place, caption in enumerate(captions):
        row, column = divmod(place, columns)
        middle = {"ha": "center", "va": "center"}
        ax.text(28 * column + 14, 37 * row + 5, caption, color=WRONG, fontsize=8, **middle)
        if place in framed:
            _frame(ax, 28 * column, 37 * row + 9, 28)
    return ax


def plot_shared(
    images: torch.Tensor,
    labels: torch.Tensor,
    mistakes: dict[int, dict[int, int]],
    marked: Container[int] = (),
    ax: Axes | None = None,
) -> Axes:
    """The images (N, 28, 28) that every seed gets wrong, as `true→answers`, the commonest first.

    `mistakes`, of each seed: index and answer, as in `recorded_mistakes`. The `marked` indices get
    a frame.
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


def plot_filters(weights: torch.Tensor, columns: int = 8, ax: Axes | None = None) -> Axes:
    """Filters (N, height, width) of a layer: orange above zero, purple below, white at zero."""
    ax = ax or axes(1.6)
    tall = torch.nn.functional.pad(weights.detach().cpu(), (0, 1, 0, 1), value=float("nan"))
    most = weights.abs().max().item()
    picture = _canvas(tall, columns, float("nan")).numpy()
    ax.imshow(picture, cmap="PuOr_r", vmin=-most, vmax=most, interpolation="nearest")
    ax.set_axis_off()
    return ax


def plot_feature_maps(maps: dict[str, torch.Tensor], ax: Axes | None = None) -> Axes:
    """A row of maps (C, H, W) for each layer, the first 16 of its channels, each as bright as can.

    Dark is a strong answer. All are drawn equally large, whatever their number of pixels.
    """
    ax = ax or axes(0.3 + 0.52 * len(maps))
    for row, (name, layer) in enumerate(maps.items()):
        for column, values in enumerate(layer[:16].clamp(min=0)):
            corners = (column, column + 0.92, row + 0.92, row)
            style = {"cmap": "gray_r", "vmin": 0, "interpolation": "nearest"}
            ax.imshow(values.numpy(), extent=corners, vmax=max(values.max().item(), 1e-9), **style)
        size = " x ".join(map(str, layer.shape))
        ax.text(16.1, row + 0.46, f"{name}: {size}", va="center", fontsize=9)
    ax.set(xlim=(0, 20), ylim=(len(maps), 0), aspect="equal")
    ax.set_axis_off()
    return ax


def plot_fields(
    fields: dict[str, torch.Tensor], sides: dict[str, int], ax: Axes | None = None
) -> Axes:
    """What moves the middle output of each layer, pixel by pixel: fields (28, 28), with a sum of 1.

    The square is the theoretical field, of so many pixels a side, around the pixels that do.
    """
    ax = ax or axes(2.4)
    for place, (name, field) in enumerate(fields.items()):
        ax.imshow(field.numpy(), cmap="Blues", extent=(30 * place, 30 * place + 28, 28, 0))
        used = torch.nonzero(field)
        top, left = used.amin(dim=0).tolist()
        side = min(sides[name], 28)
        _frame(ax, 30 * place + min(left, 28 - side) + 0.5, min(top, 28 - side) + 0.5, side)
        held = field.flatten().sort(descending=True).values.cumsum(dim=0)
        most = 1 + (held < 0.9).sum().item()
        text = f"{name}: {sides[name]} x {sides[name]}\n90% in {most} pixels"
        ax.text(30 * place + 14, -1, text, ha="center", va="bottom", fontsize=8)
    ax.set(xlim=(-0.5, 30 * len(fields) - 1.5), ylim=(28.5, -9))
    ax.set_axis_off()
    return ax


def plot_saliency(images: torch.Tensor, slopes: torch.Tensor, ax: Axes | None = None) -> Axes:
    """Images (N, 28, 28), and below each the size of the gradient (N, 28, 28), at most 1."""
    grey = torch.cat([images.cpu(), (255 * slopes).byte()])
    ax = _tiles(grey, len(images), ax)
    ax.set_title("digits, and below each the pixels that move the answer")
    return ax


def _frame(ax: Axes, left: float, top: float, side: float) -> None:
    corner = (left - 0.5, top - 0.5)
    ax.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=COLORS[0], linewidth=1.5))


def _tiles(images: torch.Tensor, columns: int, ax: Axes | None) -> Axes:
    """Images (N, height, width) as one picture, `columns` beside each other."""
    check_whole("columns", columns)
    count, height, width = images.shape
    rows = max(1, -(-count // columns))
    ax = ax or axes(0.4 + min(7.8 * rows * height / (columns * width), 6))
    picture = 255 - _canvas(images.cpu(), columns, 0).numpy()
    ax.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_axis_off()
    return ax


def _canvas(images: torch.Tensor, columns: int, empty: float) -> torch.Tensor:
    """Images (N, height, width) beside and below each other; unfilled places `empty`."""
    count, height, width = images.shape
    rows = max(1, -(-count // columns))
    canvas = images.new_full((rows * columns, height, width), empty)
    canvas[:count] = images
    canvas = canvas.view(rows, columns, height, width).transpose(1, 2)
    return canvas.reshape(rows * height, columns * width)
