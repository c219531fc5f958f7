"""Plots of seeds and measurements: each draws on `ax`, or a new figure, and returns it."""

import itertools
import statistics

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..curves import COLORS, DOTTED, GREY, THIS, axes, over_epochs
from ..history import TARGET, History
from .measures import calibration

Studies = dict[str, list[History]]  # each study's runs, by its name


def plot_luck(studies: Studies, this: History | None = None, ax: Axes | None = None) -> Axes:
    """Last and best epochs: a dot and a circle per run, a row per study, a star for `this` run.

    The bar shows ± the standard error of an accuracy over 10,000 test images.
    """
    ax = ax or axes()
    rows = studies | ({"this run": [this]} if this else {})
    circle = {"color": GREY, "markerfacecolor": "none", "markersize": 5}
    for row, runs in enumerate(rows.values()):
        order = sorted(runs, key=lambda run: run.final.correct)
        for number, run in enumerate(order):
            height = row + 0.7 * ((number + 0.5) / len(order) - 0.5)
            last, best = run.final.accuracy, run.best.accuracy
            ax.plot([last, best], [height, height], color="0.75", linewidth=1, zorder=1)
            ax.plot(best, height, "o", **circle)
            mark, size = ("*", 13) if run is this else ("o", 5)
            ax.plot(last, height, mark, color=THIS, markersize=size)
    goal = TARGET / 100
    ax.axvline(goal, **DOTTED)
    ax.set_yticks(range(len(rows)), list(rows))
    ax.set_ylim(len(rows) - 0.4, -0.95)
    error = 100 * (TARGET / 1e4 * (1 - TARGET / 1e4) / 1e4) ** 0.5
    ax.errorbar(goal, -0.75, xerr=error, color="black", capsize=3)
    bar = f"bar: ± {error:.3f}, the standard error over 10,000 digits"
    ax.set_title(f"dotted: the target, {goal}%; {bar}", fontsize=10)
    ax.plot([], [], "o", color=THIS, markersize=5, label="last epoch")
    ax.plot([], [], "o", label="best epoch, picked on the test set", **circle)
    ax.legend(loc="lower left", fontsize=9)
    ax.set_xlabel("test accuracy (%); one dot is one seed")
    return ax


def plot_band(studies: Studies, this: History | None = None, ax: Axes | None = None) -> Axes:
    """Mean and range of accuracy over each study's seeds, by epoch, and `this` run."""
    ax = ax or axes()
    for (name, runs), color in zip(studies.items(), itertools.cycle(COLORS)):
        at = range(1, len(runs[0]) + 1)
        values = [[run.epochs[epoch - 1].accuracy for run in runs] for epoch in at]
        low, mean, high = ([f(v) for v in values] for f in (min, statistics.fmean, max))
        ax.fill_between(at, low, high, color=color, alpha=0.2)
        text = f"{name}: mean and range of {len(runs)} seeds" if len(runs) > 1 else name
        ax.plot(at, mean, color=color, label=text)
    if this:
        ax.plot(*over_epochs(this, "accuracy"), ".--", color="black", label="this run")
    ax.axhline(TARGET / 100, **DOTTED)
    ax.set(ylim=(98.4, 99.7), xlabel="epoch", ylabel="test accuracy (%)")
    ax.xaxis.get_major_locator().set_params(integer=True)
    ax.legend(loc="lower right", fontsize=9)
    return ax


def plot_calibration(
    labels: torch.Tensor, log_probabilities: dict[str, torch.Tensor], ax: Axes | None = None
) -> Axes:
    """Accuracy by confidence for labels (N,) and each net's log-probabilities (N, 10).

    A dot per tenth of confidence, larger for more images; on the dotted line the two are equal.
    """
    ax = ax or axes()
    ax.plot([0, 100], [0, 100], **DOTTED)
    for (name, output), color in zip(log_probabilities.items(), itertools.cycle(COLORS)):
        sure, right, images = zip(*calibration(labels, output), strict=True)
        ax.plot(sure, right, color=color, label=name)
        ax.scatter(sure, right, [8 + 2 * count**0.5 for count in images], color=color)
    ax.set(xlabel="confidence (%)", ylabel="right (%)")
    ax.legend(loc="lower right", fontsize=9)
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
