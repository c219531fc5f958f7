"""Pictures of digits, in a grid, and those that a net gets wrong.

Each draws on `ax`, or on a new figure, and returns the axes; `of` names the images in the title.
"""

from collections.abc import Container

import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from ..base.arrays import as_labels
from ..base.errors import check_whole
from ..curves import COLORS, axes

CENTRED = {"ha": "center", "va": "center"}
CAPTION = 13  # pixels above a digit for two lines of text


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
