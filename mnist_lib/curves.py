"""Curves of a run: accuracy and loss over epochs; and how a notebook shows a figure.

A plot takes data and an optional `ax`, and returns the `ax`. `import mnist_lib` leaves it out.
"""

import itertools

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .history import TARGET, History, describe

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#B34700", "#007A5A", "#8A4F7D")
THIS, GREY = COLORS[0], "0.4"
DOTTED = {"color": "black", "linestyle": ":", "linewidth": 1.2}
Runs = dict[str, History]  # by the name that a legend gives them


def axes(height: float = 3.8) -> Axes:
    """Axes of a new figure, 8 inches wide like a notebook's column, `height` inches high."""
    return plt.subplots(figsize=(8, height), layout="constrained")[1]


def show(drawn: Axes | Figure, alt: str) -> None:
    """Display a plot's figure in a notebook, with an `alt` text for those who cannot see it."""
    from IPython.display import display

    figure = drawn.get_figure() if isinstance(drawn, Axes) else drawn
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def plot_curves(history: History, others: list[History] = ()) -> Figure:
    """Accuracy and loss of a run over epochs, side by side, over the author's runs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    plot_accuracy({"this run": history}, others, left)
    plot_loss({"this run": history}, others, right)
    return figure


def plot_accuracy(runs: Runs, others: list[History] = (), ax: Axes | None = None) -> Axes:
    """Test accuracy (%) over epochs, best and last marked, 99.44% dotted; the `others` are grey."""
    ax = _plot_runs(runs, others, "accuracy", ax)
    for run, color in zip(runs.values(), itertools.cycle(COLORS)):
        style = {"color": color, "markersize": 12, "markerfacecolor": "none"}
        for word, epoch, mark in (("best", run.best, "*"), ("last", run.final, "o")):
            ax.plot(epoch.epoch, epoch.accuracy, mark, label=f"{word} {epoch.score}", **style)
    ax.axhline(TARGET / 100, **DOTTED)
    return _label(ax, "test accuracy (%)")


def plot_loss(runs: Runs, others: list[History] = (), ax: Axes | None = None) -> Axes:
    """Mean test loss (nats, log scale) of runs over epochs, over that of the `others`."""
    ax = _plot_runs(runs, others, "test_loss", ax)
    ax.set_yscale("log")
    ax.yaxis.set_major_formatter("{x:g}")
    ax.yaxis.set_minor_formatter("{x:g}")
    return _label(ax, "test loss (nats)")


def _plot_runs(runs: Runs, others: list[History], value: str, ax: Axes | None) -> Axes:
    ax = ax or axes()
    ax.set_title(f"Test {value.removeprefix('test_')} on {describe(next(iter(runs.values())))}")
    for number, run in enumerate(others, 1):
        style = {"color": GREY, "linestyle": ("-", "--")[number % 2], "linewidth": 1}
        ax.plot(*over_epochs(run, value), label=f"the author's run {number}", **style)
    for (name, run), color in zip(runs.items(), itertools.cycle(COLORS)):
        ax.plot(*over_epochs(run, value), ".-", color=color, label=name)
    return ax


def over_epochs(run: History, value: str) -> tuple[list[int], list[float]]:
    """The numbers of a run's epochs, from 1, and a `value` of each, such as "accuracy"."""
    return [epoch.epoch for epoch in run], [getattr(epoch, value) for epoch in run]


def _label(ax: Axes, ylabel: str) -> Axes:
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set(xlabel="epoch", ylabel=ylabel)
    ax.grid(alpha=0.3)
    ax.legend(loc="best", fontsize=9)
    return ax
