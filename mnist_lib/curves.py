"""Curves of a run: accuracy and loss over epochs; and how a notebook shows a figure.

A plot takes data and an optional `ax`, and returns the `ax`. `import mnist_lib` leaves it out.
"""

import base64
import html
import io

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .history import TARGET, History, describe

# Paul Tol's high-contrast colours (personal.sron.nl/~pault), and a lighter blue: they differ for
# colour-blind readers, and in grey print.
COLORS = ("#004488", "#BB5566", "#DDAA33", "#6699CC")
THIS, GREY = COLORS[0], "0.4"
DOTTED = {"color": "black", "linestyle": ":", "linewidth": 1.2}
GOAL = {"label": f"target, {TARGET / 100}%", **DOTTED}


def axes(height: float = 3.8) -> Axes:
    """Axes of a new figure, 8 inches wide like a notebook's column, `height` inches high."""
    return plt.subplots(figsize=(8, height), layout="constrained")[1]


def show(drawn: Axes | Figure, alt: str) -> None:
    """Display a plot's figure in a notebook, with an `alt` text for those who cannot see it."""
    from IPython.display import display

    figure = drawn.get_figure() if isinstance(drawn, Axes) else drawn
    figure.savefig(file := io.BytesIO(), bbox_inches="tight")
    png = base64.b64encode(file.getvalue()).decode()
    # JupyterLab and nbconvert show no PNG's alternative text, and a PDF takes no HTML: so both.
    image = f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{png}">'
    display({"text/html": image, "image/png": png, "text/plain": alt}, raw=True)
    plt.close(figure)


def plot_curves(history: History, others: list[History] = ()) -> Figure:
    """Accuracy and loss of a run over epochs, side by side, over the author's runs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.8), layout="constrained")
    plot_accuracy(history, others, left)
    plot_loss(history, others, right)
    return figure


def plot_accuracy(history: History, others: list[History] = (), ax: Axes | None = None) -> Axes:
    """Test accuracy (%) over epochs, best and last marked, 99.44% dotted; the `others` are grey.

    The axis may cut off the first two epochs, where they lie below the later ones.
    """
    ax = _plot_runs(history, others, "accuracy", ax)
    style = {"color": THIS, "markersize": 12, "markerfacecolor": "none"}
    for word, epoch, mark in (("best", history.best, "*"), ("last", history.final, "o")):
        ax.plot(epoch.epoch, epoch.accuracy, mark, label=f"{word} {epoch.score}", **style)
    ax.axhline(TARGET / 100, **GOAL)
    later = [epoch.accuracy for run in (history, *others) for epoch in run.epochs[2:]]
    if later and min(later) < TARGET / 100:
        ax.set_ylim(bottom=min(later) - 0.1)
    return _label(ax, "test accuracy (%)")


def plot_loss(history: History, others: list[History] = (), ax: Axes | None = None) -> Axes:
    """Mean test loss (nats, log scale) of a run over epochs, over that of the `others`."""
    ax = _plot_runs(history, others, "test_loss", ax)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    return _label(ax, "test loss (nats)")


def _plot_runs(history: History, others: list[History], value: str, ax: Axes | None) -> Axes:
    ax = ax or axes()
    ax.set_title(f"Test {value.removeprefix('test_')} on {describe(history)}")
    for number, run in enumerate(others, 1):
        style = {"color": ("0.45", "0.7")[number % 2], "linestyle": ("-", "--")[number % 2]}
        values = [getattr(epoch, value) for epoch in run]
        ax.plot(range(1, len(run) + 1), values, label=f"the author's run {number}", **style)
    values = [getattr(epoch, value) for epoch in history]
    ax.plot(range(1, len(history) + 1), values, ".-", color=THIS, label="this run")
    return ax


def _label(ax: Axes, ylabel: str) -> Axes:
    last = int(max(line.get_xdata()[-1] for line in ax.get_lines()))
    ax.set_xticks(range(last, 0, -max(1, round(last / 6))))
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.grid(alpha=0.3)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=2, fontsize=9)
    return ax
