"""Plots of seeds, folds, calibration and a run's digits: each draws on `ax`, or a new figure."""

import itertools
import statistics

import torch
from matplotlib.axes import Axes
from scipy.special import stdtrit
from torch import Tensor

from mnist_lib import LayerTable, Recipe, augment, random_affine
from mnist_lib.augment import denormalize
from mnist_lib.base.arrays import as_labels
from mnist_lib.base.tables import share_interval, standard_error
from mnist_lib.curves import COLORS, DOTTED, GOAL, GREY, THIS, axes
from mnist_lib.figures.pictures import CENTRED, frame, tiles
from mnist_lib.history import TARGET, History

LABEL = {"color": COLORS[0], "fontsize": 11, "weight": "bold"}
Studies = dict[str, list[History]]  # each study's runs, by its name
LINES = ("-", "--", "-.", ":")
STYLES = [
    {"color": color, "linestyle": line, "marker": mark}
    for color, line, mark in zip(COLORS, LINES, "os^D", strict=True)
]
# Points of accuracy, 95%: 1.96 times the standard error of a run's accuracy over 10,000 digits, 34
# of each writer. The writers are QMNIST's (Yadav and Bottou, "Cold Case", 2019).
BY_WRITER = 0.17


def plot_luck(
    studies: Studies, this: History | None = None, title: str = "", ax: Axes | None = None
) -> Axes:
    """Last and best epochs: a dot and a circle per run, a row per study, a star for `this` run.

    A row counts the runs that end at the target. The bar is `BY_WRITER`.
    """
    ax = ax or axes(4.2)
    rows = studies | ({"this run": [this]} if this else {})
    circle = {"color": GREY, "markerfacecolor": "none", "markersize": 8}
    for row, runs in enumerate(rows.values()):
        order = sorted(runs, key=lambda run: run.final.correct)
        for number, run in enumerate(order):
            height = row + 0.7 * ((number + 0.5) / len(order) - 0.5)
            last, best = run.final.accuracy, run.best.accuracy
            ax.plot([last, best], [height, height], color="0.75", linewidth=1, zorder=1)
            ax.plot(best, height, "o", **circle)
            mark, size = ("*", 13) if run is this else ("o", 5)
            ax.plot(last, height, mark, color=THIS, markersize=size)
    ax.axvline(TARGET / 100, **GOAL)
    ended = [f"{sum(run.ends_at_target for run in runs)} of {len(runs)}" for runs in rows.values()]
    texts = [f"{name}\n{count} end there" for name, count in zip(rows, ended, strict=True)]
    ax.set_yticks(range(len(rows)), texts)
    ax.set_ylim(len(rows) - 0.4, -1.1)
    ax.errorbar(TARGET / 100, -0.7, xerr=BY_WRITER, color="black", capsize=3)
    ax.annotate(
        f"95% of test sets by other writers: ±{BY_WRITER}",
        (TARGET / 100, -0.8),
        ha="center",
        va="bottom",
        fontsize=8,
    )
    ax.set_title(title, fontsize=10)
    ax.plot([], [], "o", color=THIS, markersize=5, label="last epoch")
    ax.plot([], [], "o", label="best epoch, picked on the test set", **circle)
    ax.legend(loc="lower left", fontsize=8)
    ax.set_xlabel("test accuracy (%); one dot is one seed")
    return ax


def plot_band(
    studies: Studies, this: History | None = None, title: str = "", ax: Axes | None = None
) -> Axes:
    """Mean accuracy over each study's seeds, ± 2 sd, by passes over the training images.

    `this` run is drawn over them.
    """
    ax = ax or axes(4.2)
    for (name, runs), color, line in zip(studies.items(), itertools.cycle(COLORS), LINES):
        at = passes(runs[0])
        values = list(zip(*([epoch.accuracy for epoch in run] for run in runs), strict=True))
        means = [statistics.fmean(each) for each in values]
        if len(runs) > 1:
            twice = [2 * statistics.stdev(each) for each in values]
            pairs = list(zip(means, twice, strict=True))
            ends = [mean - sd for mean, sd in pairs], [mean + sd for mean, sd in pairs]
            ax.fill_between(at, *ends, color=color, alpha=0.2)
            name = f"{name}: mean ± 2 sd of {len(runs)} seeds"
        ax.plot(at, means, line, color=color, label=name)
    if this:
        accuracy = [epoch.accuracy for epoch in this]
        ax.plot(passes(this), accuracy, ".--", color="black", label="this run")
    ax.axhline(TARGET / 100, **GOAL)
    ax.set(ylim=(98.4, 99.7), xscale="log", ylabel="test accuracy (%)")
    ax.set_xlabel("passes over the training images (log scale)")
    ax.set_title(title, fontsize=10)
    ax.set_xticks([0.3, 0.5, 1, 2, 5, 10, 19], minor=False)
    ax.xaxis.set_major_formatter("{x:g}")
    ax.xaxis.set_minor_formatter("")
    ax.get_figure().legend(loc="outside lower center", ncols=2, fontsize=8)
    return ax


def passes(run: History) -> list[float]:
    """How often a run has seen its training images after each epoch, on average."""
    record = run.record
    batch = record["recipe"]["batch_size"] / record["train_images"]
    return list(itertools.accumulate(epoch.batches * batch for epoch in run))


def plot_bridge(
    folds: dict[str, dict[int, float]], title: str = "", ax: Axes | None = None
) -> Axes:
    """From `assignment` to `steady`, and `steady` with a part changed: accuracy on eight folds.

    Takes `held_out()`. A bar is the 95% interval of the difference to the recipe that is changed:
    the row above, and below the line `steady`.
    """
    ax = ax or axes(5)
    names = [name for name in folds if name == "assignment" or ", " in name]
    middle = names.index("steady, again")
    before = None
    for row, name in enumerate(names):
        after = [folds[name][fold] for fold in range(8)]
        place, color, text = statistics.fmean(after), COLORS[row > middle], name
        if before:
            gains = [b - a for a, b in zip(before, after, strict=True)]
            gain, margin = statistics.fmean(gains), stdtrit(7, 0.975) * standard_error(gains)
            ax.plot([place - gain, place], [row, row], color=color, linewidth=4, alpha=0.35)
            text += f"\n{gain:+.2f} points ({gain - margin:+.2f} to {gain + margin:+.2f})"
        ax.errorbar(place, row, xerr=margin if before else None, fmt="o", color=color, capsize=3)
        ax.annotate(text, (1.01, row), xycoords=("axes fraction", "data"), va="center", fontsize=8)
        before = after if row <= middle else before
    ax.axvline(TARGET / 100, **GOAL)
    ax.axhline(middle + 0.5, color="0.8", linewidth=1)
    ax.invert_yaxis()
    ax.set(yticks=[], xlabel="accuracy on held-out training images (%), mean of eight folds")
    ax.get_figure().suptitle(title, fontsize=10)
    ax.legend(loc="lower left", fontsize=8)
    return ax


def calibration(labels: Tensor, log_probabilities: Tensor) -> list[tuple[int, float, int, int]]:
    """Lower end, mean confidence (%), right answers, images in each non-empty tenth of confidence.

    Takes labels (N,) and log-probabilities (N, 10).
    """
    confidence, predictions = log_probabilities.cpu().exp().max(dim=1)
    right = predictions == as_labels(labels, len(predictions)).cpu()
    tenths = (10 * confidence).long().clamp(max=9)
    bins = [(at, confidence[tenths == at], right[tenths == at]) for at in tenths.unique().tolist()]
    return [(10 * at, 100 * c.mean().item(), r.sum().item(), len(r)) for at, c, r in bins]


def plot_calibration(
    labels: Tensor,
    log_probabilities: dict[str, Tensor],
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Accuracy by confidence for labels (N,) and each net's log-probabilities (N, 10).

    A mark per tenth of confidence, several nets' side by side, with the exact 95% interval; n below
    the axis is the number of images. On the dotted line a net is as often right as it is sure.
    """
    ax = ax or axes(4.4)
    ax.plot([0, 100], [0, 100], label="as often right as it is sure", **DOTTED)
    lowest, middle = 90, (len(log_probabilities) - 1) / 2
    nets = zip(log_probabilities.items(), itertools.cycle(STYLES))
    for row, ((name, output), style) in enumerate(nets):
        bins = calibration(labels, output)
        lower, sure, right, images = (list(each) for each in zip(*bins, strict=True))
        share = 100 * torch.tensor(right) / torch.tensor(images)
        beside = torch.tensor(sure) + 1.4 * (row - middle)
        style = style | {"linestyle": "none", "label": name, "capsize": 3, "markersize": 7}
        ax.errorbar(beside, share, margins(share, right, images), **style)
        height, below = -0.18 - 0.08 * row, ax.get_xaxis_transform()
        for at, count in zip(lower, images, strict=True):
            ax.text(at + 5, height, f"{count:,}", transform=below, ha="center", va="top")
        ax.text(-0.01, height, f"{name}, n", transform=ax.transAxes, ha="right", va="top")
        lowest = min(lowest, lower[0])
    ax.set(xlim=(lowest - 1, 101), ylim=(-3, 103), xticks=range(lowest, 101, 10))
    ax.set(xlabel="confidence (%)", ylabel="right (%), with 95% interval")
    ax.set_title(title, fontsize=10)
    ax.grid(axis="x", alpha=0.3)
    ax.legend(loc="lower right", fontsize=9)
    return ax


def margins(shares: Tensor, counts: list[int], totals: list[int]) -> Tensor:
    """How far the exact 95% intervals of counts in totals reach below and above the shares (%)."""
    ends = torch.tensor([share_interval(*pair) for pair in zip(counts, totals, strict=True)])
    low, high = 100 * ends.T
    return torch.stack([shares - low, high - shares]).clamp(min=0)


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


def plot_digits(
    images: Tensor, labels: Tensor, of: str = "MNIST", columns: int = 12, ax: Axes | None = None
) -> Axes:
    """A grid of uint8 images (N, 28, 28), each with its label in the corner."""
    ax = tiles(images, columns, ax, f"Digits of {of}")
    for place, label in enumerate(labels.tolist()):
        left, top = 28 * (place % columns), 28 * (place // columns)
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


def plot_augmented(images: Tensor, recipe: Recipe, seed: int = 0, ax: Axes | None = None) -> Axes:
    """A row per image (N, 28, 28): the original, then eleven random augmentations."""
    digits = images.repeat_interleave(12, dim=0)
    moves = random_affine(len(digits), recipe, torch.Generator().manual_seed(seed))
    moves[::12] = 0  # the first in each row is the original
    ax = tiles(denormalize(augment(digits, moves, recipe, side=28)), 12, ax, "")
    margin = (28 - recipe.crop) / 2  # around the square: the part that the recipe's net sees
    for place in range(len(digits)):
        row, column = divmod(place, 12)
        frame(ax, 28 * column + margin, 28 * row + margin, recipe.crop, linestyle=":", linewidth=1)
    moved = f"shifted {recipe.shift:g} px, resized {recipe.scale:.0%}"
    seen = f"then as {recipe.name} sees it: turned up to {recipe.rotation:g}°, {moved}"
    ax.set_title(f"each digit as it is, {seen}", fontsize=10)
    return ax
