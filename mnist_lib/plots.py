"""Plots of runs and seeds. Each takes data and an optional `ax`, and returns the `ax`.

Nothing here trains. Imported apart from the library's other names (`from mnist_lib import plots`),
since matplotlib takes long to import.
"""

import itertools
import math
import statistics

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .history import TARGET, History, describe

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLORS = ("#0072B2", "#B34700", "#007A5A", "#8A4F7D")
THIS, GREY = COLORS[0], "0.4"


def axes(height: float = 3.8) -> Axes:
    """Axes of a new figure, 8 inches wide: as wide as a notebook's column."""
    return plt.subplots(figsize=(8, height), layout="constrained")[1]


def show(drawn: Axes | Figure, alt: str) -> None:
    """Display a plot's figure in a notebook, with a text for those who cannot see it."""
    from IPython.display import display

    figure = drawn.get_figure() if isinstance(drawn, Axes) else drawn
    display(figure, metadata={"image/png": {"alt": alt}})
    plt.close(figure)


def plot_curves(history: History, others: list[History] | None = None) -> Figure:
    """Accuracy and loss of a run over epochs, beside each other, over the author's runs."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    plot_accuracy({"this run": history}, others, left)
    plot_loss({"this run": history}, others, right)
    return figure


def plot_accuracy(
    runs: dict[str, History], others: list[History] | None = None, ax: Axes | None = None
) -> Axes:
    """Test accuracy (%) of runs over epochs, best and last epoch marked, and the 99.44% line.

    `others` are drawn in grey behind: the author's two runs.
    """
    ax = ax or axes()
    _plot_others(others, "accuracy", ax)
    for (name, run), color in zip(runs.items(), itertools.cycle(COLORS)):
        ax.plot(_epochs(run), [e.accuracy for e in run], ".-", color=color, label=name)
        for epoch, mark in ((run.best, "*"), (run.final, "o")):
            size = {"color": color, "markersize": 12, "markerfacecolor": "none"}
            word = "best" if mark == "*" else "last"
            ax.plot(epoch.epoch, epoch.accuracy, mark, label=f"{word} {epoch.score}", **size)
    ax.axhline(TARGET / 100, color="black", linestyle=":", linewidth=1.2)
    first = next(iter(runs.values()))
    ax.set(title=f"Test accuracy on {describe(first)}", ylabel="test accuracy (%)")
    return _epochs_axis(ax)


def plot_loss(
    runs: dict[str, History], others: list[History] | None = None, ax: Axes | None = None
) -> Axes:
    """Mean test loss (nats, log scale) of runs over epochs."""
    ax = ax or axes()
    _plot_others(others, "test_loss", ax)
    for (name, run), color in zip(runs.items(), itertools.cycle(COLORS)):
        ax.plot(_epochs(run), [e.test_loss for e in run], ".-", color=color, label=name)
    ax.set_yscale("log")
    for axis_ticks in (ax.yaxis.set_major_formatter, ax.yaxis.set_minor_formatter):
        axis_ticks("{x:g}")
    first = next(iter(runs.values()))
    ax.set(title=f"Test loss on {describe(first)}", ylabel="test loss (nats)")
    return _epochs_axis(ax)


def _plot_others(others: list[History] | None, value: str, ax: Axes) -> None:
    for number, run in enumerate(others or (), 1):
        values = [getattr(epoch, value) for epoch in run]
        style = {"color": GREY, "linestyle": ("-", "--")[number % 2], "linewidth": 1}
        ax.plot(_epochs(run), values, label=f"the author's run {number}", **style)


def plot_luck(
    studies: dict[str, list[History]], this: History | None = None, ax: Axes | None = None
) -> Axes:
    """Every run's last and best epoch: a dot and a circle a run, a row a study.

    A bar shows the standard error of an accuracy over 10,000 test images, either way. `this` run,
    if given, is a star in a row of its own.
    """
    ax = ax or axes()
    rows = studies | ({"this run": [this]} if this else {})
    for row, runs in enumerate(rows.values()):
        order = sorted(runs, key=lambda run: run.final.correct)
        for number, run in enumerate(order):
            height = row + 0.7 * ((number + 0.5) / len(order) - 0.5)
            last, best = run.final.accuracy, run.best.accuracy
            ax.plot([last, best], [height, height], color="0.75", linewidth=1, zorder=1)
            ax.plot(best, height, "o", color=GREY, markerfacecolor="none", markersize=5)
            mark, size = ("*", 13) if run is this else ("o", 5)
            ax.plot(last, height, mark, color=THIS, markersize=size)
    goal = TARGET / 100
    ax.axvline(goal, color="black", linestyle=":", linewidth=1.2)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.4, -0.95)
    error = 100 * math.sqrt(TARGET / 1e4 * (1 - TARGET / 1e4) / 1e4)
    ax.errorbar(goal, -0.75, xerr=error, color="black", capsize=3)
    title = (
        f"dotted: the target, {goal}%; bar: ± {error:.3f}, the standard error over 10,000 digits"
    )
    ax.set_title(title, fontsize=10)
    ax.plot([], [], "o", color=THIS, markersize=5, label="last epoch")
    circle = {"color": GREY, "markerfacecolor": "none", "markersize": 5}
    ax.plot([], [], "o", label="best epoch, picked on the test set", **circle)
    ax.legend(loc="lower left", fontsize=9)
    ax.set_xlabel("test accuracy (%); one dot is one seed")
    return ax


def plot_band(
    studies: dict[str, list[History]], this: History | None = None, ax: Axes | None = None
) -> Axes:
    """Mean and range over the seeds of each study, epoch by epoch, and `this` run, if given."""
    ax = ax or axes()
    for (name, runs), color in zip(studies.items(), itertools.cycle(COLORS)):
        at = _epochs(runs[0])
        values = [[run.epochs[epoch - 1].accuracy for run in runs] for epoch in at]
        mean = [statistics.fmean(v) for v in values]
        ax.fill_between(
            at, [min(v) for v in values], [max(v) for v in values], color=color, alpha=0.2
        )
        text = f"{name}: mean and range of {len(runs)} seeds" if len(runs) > 1 else name
        ax.plot(at, mean, color=color, label=text)
    if this:
        ax.plot(_epochs(this), [e.accuracy for e in this], ".--", color="black", label="this run")
    ax.axhline(TARGET / 100, color="black", linestyle=":", linewidth=1.2)
    ax.set(ylim=(98.4, 99.7), xlabel="epoch", ylabel="test accuracy (%)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="lower right", fontsize=9)
    return ax


def plot_frontier(
    studies: list[list[History]], published: list[dict] = (), ax: Axes | None = None
) -> Axes:
    """Accuracy after the last epoch over the net's parameters: a dot a study, its seeds' mean.

    Bars reach one standard deviation over the seeds, either way. `published` numbers, dicts with
    "parameters", "accuracy" (%) and "sd" (points, None of a single run), are open circles. A ring
    marks the fewest parameters whose mean reaches the target.
    """
    ax = ax or axes(4.4)
    circle = {"fmt": "o", "color": GREY, "markerfacecolor": "none", "capsize": 3, "linewidth": 1}
    for number, other in enumerate(published):
        label = "" if number else "published, most the best epoch of one run"
        place = (other["parameters"], other["accuracy"])
        ax.errorbar(*place, yerr=other["sd"], label=label, zorder=1, **circle)
    points = []
    for runs in sorted(studies, key=lambda runs: runs[0].record["parameters"]):
        last = [run.final.accuracy for run in runs]
        sd = statistics.stdev(last) if len(last) > 1 else math.nan
        points.append((runs[0].record["parameters"], statistics.fmean(last), sd))
    style = {"color": THIS, "capsize": 4, "label": "this library: mean ± sd over seeds, last epoch"}
    ax.errorbar(*zip(*points, strict=True), fmt="o", **style)
    goal = TARGET / 100
    ax.axhline(goal, color="black", linestyle=":", linewidth=1.2)
    reached = [(count, mean) for count, mean, _ in points if mean >= goal]
    if reached:
        ring = {"markersize": 16, "markerfacecolor": "none", "color": "black", "linestyle": ""}
        label = f"{reached[0][0]:,}: the fewest whose mean reaches {goal}%"
        ax.plot(*reached[0], "o", label=label, **ring)
    ax.set_xscale("log")
    ax.set_xticks([700, 1000, 2000, 3000, 5000, 8000, 13_322, 20_000])
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_minor_formatter("")
    ax.set(xlabel="parameters (log scale)", ylabel="test accuracy (%)")
    ax.legend(loc="lower right", fontsize=9)
    return ax


def plot_ideas(ideas: dict[str, tuple[float, ...]], ax: Axes | None = None) -> Axes:
    """Differences (points) with their standard errors, a dot an idea; one error either way.

    An idea with a third value has a circle there: what was predicted before the runs.
    """
    ax = ax or axes()
    for row, (difference, error, *predicted) in enumerate(ideas.values()):
        ax.errorbar(difference, row, xerr=error, fmt="o", color=THIS, capsize=3)
        ax.plot(predicted, [row] * len(predicted), "o", color=GREY, markerfacecolor="none")
    ax.axvline(0, color="black", linestyle=":", linewidth=1.2)
    ax.set_yticks(range(len(ideas)), list(ideas))
    ax.invert_yaxis()
    ax.set_xlabel("difference of accuracy on held-out images (points), ± one standard error")
    return ax


def plot_calibration(
    labels: torch.Tensor, log_probabilities: dict[str, torch.Tensor], ax: Axes | None = None
) -> Axes:
    """How often nets are right when they are so sure: labels (N,), log-probabilities (N, 10).

    A dot for each tenth of confidence that has images; the area shows how many. On the dotted line
    a net is as often right as it is sure.
    """
    ax = ax or axes()
    ax.plot([0, 100], [0, 100], color="black", linestyle=":", linewidth=1.2)
    for (name, output), color in zip(log_probabilities.items(), itertools.cycle(COLORS)):
        confidence, predictions = output.cpu().exp().max(dim=1)
        right = (predictions == labels.cpu()).float()
        tenth = (10 * confidence).long().clamp(max=9)
        bins = [tenth == number for number in range(10) if (tenth == number).any()]
        sure, correct = ([100 * v[b].mean().item() for b in bins] for v in (confidence, right))
        ax.plot(sure, correct, color=color, label=name)
        ax.scatter(sure, correct, [8 + 2 * b.sum().item() ** 0.5 for b in bins], color=color)
    ax.set(xlabel="confidence (%)", ylabel="right (%)")
    ax.legend(loc="lower right", fontsize=9)
    return ax


def plot_robustness(
    curves: dict[str, dict[str, list[float]]],
    amounts: dict[str, list[float]],
    units: dict[str, str],
) -> Figure:
    """Test accuracy (%) over how much the digits are distorted: a panel a kind, a line a net."""
    figure, panels = plt.subplots(2, 2, figsize=(8, 6), layout="constrained", sharey=True)
    for ax, (kind, lines) in zip(panels.flat, curves.items(), strict=True):
        for (name, accuracy), color in zip(lines.items(), itertools.cycle(COLORS)):
            ax.plot(amounts[kind], accuracy, ".-", color=color, label=name)
        ax.set(xlabel=f"{kind}: {units[kind]}", ylabel="test accuracy (%)")
        ax.grid(alpha=0.3)
    panels.flat[0].legend(loc="lower center", fontsize=9)
    return figure


def _epochs(history: History) -> list[int]:
    return [epoch.epoch for epoch in history]


def _epochs_axis(ax: Axes) -> Axes:
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.set_xlabel("epoch")
    ax.grid(alpha=0.3)
    ax.legend(loc="best", fontsize=9)
    return ax
