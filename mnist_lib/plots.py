"""Plots of data, runs and mistakes. Each takes data and an optional `ax`, and returns the `ax`.

Nothing here trains, and nothing calls `show`. Imported apart from the library's other names
(`from mnist_lib import plots`), since matplotlib takes long to import.
"""

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes

from .data import MEAN, STD
from .errors import check_whole
from .history import History
from .recipe import Recipe
from .tables import TARGET, describe
from .training import learning_rates

THIS, LOGGED, GOAL, WRONG = "tab:blue", "0.55", "tab:green", "tab:red"


def plot_digits(
    images: torch.Tensor,
    labels: torch.Tensor,
    of: str = "MNIST",
    columns: int = 16,
    ax: Axes | None = None,
) -> Axes:
    """A grid of uint8 images (N, 28, 28), each with its label in its corner.

    `of`, here and below: what the images are, for the title.
    """
    ax = _tiles(images, columns, ax)
    ax.set_title(f"Digits of {of}")
    for index, label in enumerate(labels.tolist()):
        row, column = divmod(index, columns)
        ax.text(28 * column + 1, 28 * row + 6, label, color="tab:orange", fontsize=8)
    return ax


def plot_inputs(
    inputs: torch.Tensor, title: str, columns: int = 16, ax: Axes | None = None
) -> Axes:
    """A grid of a net's inputs, normalised as `normalize` does: (N, 1, height, width)."""
    grey = (255 * (STD * inputs.squeeze(1) + MEAN)).round().clamp(0, 255)
    ax = _tiles(grey.to(torch.uint8), columns, ax)
    ax.set_title(title)
    return ax


def plot_accuracy(history: History, logged: History | None = None, ax: Axes | None = None) -> Axes:
    """Test accuracy (%) over epochs, the 99.44% line, best and final epoch marked."""
    ax = ax or plt.gca()
    ax.axhline(TARGET / 100, color=GOAL, linewidth=1, label=f"target {TARGET / 100}%")
    if logged:
        ax.plot(_epochs(logged), [e.accuracy for e in logged], color=LOGGED, label="logged run")
    accuracy = [epoch.accuracy for epoch in history]
    ax.plot(_epochs(history), accuracy, ".-", color=THIS, label="this run")
    best, final = history.best, history.final
    ax.plot(best.epoch, best.accuracy, "*", color=THIS, markersize=14, label=f"best {best.score}")
    circle = {"color": THIS, "markersize": 10, "markerfacecolor": "none"}
    ax.plot(final.epoch, final.accuracy, "o", label=f"final {final.score}", **circle)
    # Early epochs far below would flatten the part that matters.
    ax.set_ylim(bottom=max(min(accuracy) - 0.1, 98.4) if max(accuracy) > 98.5 else None)
    ax.set(title=f"Test accuracy on {describe(history)}", ylabel="test accuracy (%)")
    return _epochs_axis(ax, history, logged)


def plot_loss(history: History, logged: History | None = None, ax: Axes | None = None) -> Axes:
    """Mean test loss (nats, log scale) over epochs."""
    ax = ax or plt.gca()
    if logged:
        ax.plot(_epochs(logged), [e.test_loss for e in logged], color=LOGGED, label="logged run")
    ax.plot(_epochs(history), [e.test_loss for e in history], ".-", color=THIS, label="this run")
    ax.set_yscale("log")
    for axis_ticks in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        axis_ticks("{x:g}")
    ax.set(title=f"Test loss on {describe(history)}", ylabel="test loss (nats)")
    return _epochs_axis(ax, history, logged)


def plot_learning_rate(recipe: Recipe, ax: Axes | None = None) -> Axes:
    """The recipe's learning rate over epochs."""
    ax = ax or plt.gca()
    steps = recipe.epoch_steps(100 * recipe.batch_size)
    at = [epoch + step / count for epoch, count in enumerate(steps) for step in range(count)]
    ax.plot(at, learning_rates(recipe, len(at)), color=THIS)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(title="Learning rate", xlabel="epoch", ylabel="learning rate", ylim=(0, None))
    return ax


def plot_confusion(
    labels: torch.Tensor, predictions: torch.Tensor, of: str = "MNIST", ax: Axes | None = None
) -> Axes:
    """Confusion matrix of labels and predictions (N,); colour marks the mistakes alone."""
    ax = ax or plt.gca()
    counts = torch.bincount(10 * labels.cpu() + predictions.cpu(), minlength=100).view(10, 10)
    mistakes = counts.clone().fill_diagonal_(0)
    ax.imshow(mistakes.numpy(), cmap="Reds")
    for true in range(10):
        for predicted in range(10):
            if count := counts[true, predicted].item():
                strong = mistakes[true, predicted] > 0.6 * mistakes.max()
                color = "white" if strong else "0.6" if true == predicted else "black"
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
    columns: int = 12,
    rows: int = 5,
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
    ax.set_title(f"Mistakes on {of}, the most confident first: true→predicted, confidence")
    return ax


def _epochs(history: History) -> list[int]:
    return [epoch.epoch for epoch in history]


def _epochs_axis(ax: Axes, history: History, logged: History | None) -> Axes:
    ax.set_xlim(0.5, max(len(history), len(logged or ())) + 0.5)
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("epoch")
    ax.grid(alpha=0.3)
    ax.legend(loc="best", fontsize=9)
    return ax


def _tiles(images: torch.Tensor, columns: int, ax: Axes | None) -> Axes:
    """Images (N, height, width) as one picture, `columns` beside each other."""
    check_whole("columns", columns)
    ax = ax or plt.gca()
    count, height, width = images.shape
    rows = max(1, -(-count // columns))
    canvas = torch.zeros(rows * columns, height, width, dtype=torch.uint8)
    canvas[:count] = images.cpu()
    canvas = canvas.view(rows, columns, height, width).transpose(1, 2)
    picture = 255 - canvas.reshape(rows * height, columns * width)
    ax.imshow(picture.numpy(), cmap="gray", vmin=0, vmax=255)
    ax.set_axis_off()
    return ax
