"""Pictures of digits: grids, what a recipe makes of them, what a net sees and gets wrong.

Each takes data and an optional `ax`, and returns the `ax`.
"""

import torch
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

from .data import MEAN, STD, augment, random_affine
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
    grey = (255 * (STD * inputs.squeeze(1) + MEAN)).round().clamp(0, 255)
    ax = _tiles(grey.to(torch.uint8), columns, ax)
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
    ax: Axes | None = None,
) -> Axes:
    """The misclassified images, most confident mistakes first, as `true→predicted confidence`.

    Shapes: images (N, 28, 28), labels (N,), log-probabilities (N, 10).
    """
    confidence, predictions = log_probabilities.cpu().exp().max(dim=1)
    labels = labels.cpu()
    wrong = torch.nonzero(predictions != labels).flatten()
    wrong = wrong[confidence[wrong].argsort(descending=True)][: columns * rows]
    # Room above each digit for its caption.
    tall = torch.nn.functional.pad(images.cpu()[wrong], (0, 0, 9, 0))
    ax = _tiles(tall, columns, ax)
    for index, image in enumerate(wrong.tolist()):
        row, column = divmod(index, columns)
        caption = f"{labels[image]}→{predictions[image]} {confidence[image]:.0%}"
        middle = {"ha": "center", "va": "center"}
        ax.text(28 * column + 14, 37 * row + 5, caption, color=WRONG, fontsize=8, **middle)
    ax.set_title(f"mistakes on {of}: true→predicted, confidence")
    return ax


def _tiles(images: torch.Tensor, columns: int, ax: Axes | None) -> Axes:
    """Images (N, height, width) as one picture, `columns` beside each other."""
    check_whole("columns", columns)
    count, height, width = images.shape
    rows = max(1, -(-count // columns))
    ax = ax or axes(0.4 + min(7.8 * rows * height / (columns * width), 6))
    canvas = torch.zeros(rows * columns, height, width, dtype=torch.uint8)
    canvas[:count] = images.cpu()
    canvas = canvas.view(rows, columns, height, width).transpose(1, 2)
    picture = 255 - canvas.reshape(rows * height, columns * width)
    ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
    ax.set_axis_off()
    return ax
