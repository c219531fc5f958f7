"""The search on held-out folds: what its ideas gained, in tables and plots, and against chance."""

import itertools
import re
import statistics
import textwrap
from dataclasses import dataclass

from evidence import ideas, markdown, search_lines
from matplotlib.axes import Axes
from scipy.stats import t

from mnist_lib.base.tables import Table, mean_and_error, standard_error
from mnist_lib.curves import COLORS, DOTTED, axes

# The ways in which a gain was predicted. A text that fits none was reworded, and does not count.
FORMS = {
    "gains with a sign": re.compile(r"(?P<gain>[+-]\d\.\d+)$"),
    "gains in words": re.compile(r"(?P<size>\d\.\d+) (?P<side>less|more)|the same|as steady"),
    "accuracies": re.compile(r"(?P<accuracy>9\d\.\d+)"),
}

DOT = {"marker": "o", "linestyle": "", "color": COLORS[0], "markersize": 6}
CHOSEN = DOT | {"marker": "D", "color": "black", "markersize": 7}
CIRCLE = DOT | {"color": "black", "markerfacecolor": "none", "markersize": 10, "zorder": 3}
TEXT = 11  # points: can be read at half the size


@dataclass(frozen=True)
class Gain:
    """What an idea gains over its part's first idea: points of accuracy, over shared folds."""

    folds: int
    mean: float
    error: float | None  # the standard error of the mean; None for a single fold
    form: str | None = None  # of the prediction: one of FORMS
    predicted: float | None = None  # a gain, in points

    @property
    def reach(self) -> float:
        """Half the width of the 95% interval."""
        return t.ppf(0.975, self.folds - 1) * self.error

    @property
    def p(self) -> float:
        """How often chance alone gives as large a gain or loss."""
        return 2 * t.sf(abs(self.mean) / self.error, self.folds - 1)


def parts() -> list[str]:
    """The parts of the search, in order."""
    return list(dict.fromkeys(run["search"] for run in search_lines()))


def gains(search: str, folds: int = 3) -> dict[str, Gain]:
    """The gain of each later idea of a part that shares at least so many folds with the first.

    The prediction is the idea's last. An accuracy is turned into a gain over the same folds.
    """
    found = {}
    for idea, runs in list(ideas(search).items())[1:]:
        shared = [run for run in runs if run["gain"] is not None]
        if len(shared) < folds:
            continue
        mean = statistics.fmean(run["gain"] for run in shared)
        first = statistics.fmean(run["accuracy"] for run in shared) - mean
        texts = [run["predicted"] for run in runs if run["predicted"]]
        form, predicted = _predicted(texts[-1], first) if texts else (None, None)
        error = standard_error([run["gain"] for run in shared])
        found[idea] = Gain(len(shared), mean, error, form, predicted)
    return found


def _predicted(text: str, first: float) -> tuple[str | None, float | None]:
    """A prediction's form, and its gain over the first idea, whose accuracy is `first`."""
    for form, pattern in FORMS.items():
        if said := pattern.match(text):
            numbers = said.groupdict()
            if "accuracy" in numbers:
                return form, float(numbers["accuracy"]) - first
            if "gain" in numbers:
                return form, float(numbers["gain"])
            size = float(numbers["size"] or 0)
            return form, -size if numbers["side"] == "less" else size
    return None, None


def discoveries(p_values: list[float], rate: float = 0.05) -> list[bool]:
    """Which of many tests count, if at most `rate` of those may be false (Benjamini-Hochberg)."""
    ordered = sorted(p_values)
    passed = [p for rank, p in enumerate(ordered, 1) if p <= rate * rank / len(ordered)]
    return [p <= max(passed, default=-1) for p in p_values]


def search_table(search: str) -> str:
    """What came of the ideas of a part of the search: means over folds."""
    rows, found = [], ideas(search)
    several = len({run.get("parameters") for runs in found.values() for run in runs}) > 1
    for idea, runs in found.items():
        gain = [run["gain"] for run in runs if run["gain"] is not None]
        losses = [run["loss"] for run in runs if "loss" in run]
        predicted = dict.fromkeys(run["predicted"] for run in runs if run["predicted"])
        sizes = dict.fromkeys(f"{run['parameters']:,}" for run in runs) if several else ()
        rows.append(
            {
                "idea": idea,
                "predicted": ", ".join(predicted),
                "folds": f"{len(gain)} of {len(runs)}" if len(gain) < len(runs) else str(len(runs)),
                "parameters": ", ".join(sizes),
                "passes": f"{runs[0]['passes']:.2f}" if "passes" in runs[0] else "",
                "accuracy %": f"{statistics.fmean(run['accuracy'] for run in runs):.3f}",
                "against the first": mean_and_error(gain) if gain and rows else "",
                "loss": f"{statistics.fmean(losses):.4f}" if losses else "",
            }
        )
    filled = [name for name in rows[0] if any(row[name] for row in rows)]
    return markdown(Table([{name: row[name] for name in filled} for row in rows], left=2))


def chance_table() -> str:
    """How many ideas beat or miss the first of their part by two errors, and how many by chance."""
    found = [(part, gain) for part in parts() for gain in gains(part).values()]
    counted = discoveries([gain.p for _, gain in found])
    rows = []
    for name in (*dict.fromkeys(part for part, _ in found), "all"):
        here = [
            (gain, counts)
            for (part, gain), counts in zip(found, counted, strict=True)
            if name in (part, "all")
        ]
        tested = [gain.mean for gain, counts in here if counts]
        rows.append(
            {
                "part": name,
                "ideas on three folds or more": str(len(here)),
                "gain two errors": str(sum(gain.mean > 2 * gain.error for gain, _ in here)),
                "would by chance": f"{sum(t.sf(2, gain.folds - 1) for gain, _ in here):.1f}",
                "lose two errors": str(sum(gain.mean < -2 * gain.error for gain, _ in here)),
                "gains that pass Benjamini-Hochberg": str(sum(mean > 0 for mean in tested)),
                "losses that pass it": str(sum(mean < 0 for mean in tested)),
            }
        )
    return markdown(Table(rows))


def plot_ideas(
    gained: dict[str, Gain],
    base: str,
    title: str,
    chosen: tuple[str, ...] = (),
    limits: tuple[float, float] = (-0.35, 0.3),
) -> Axes:
    """A row per idea, the largest gain on top: mean gain over the `base` (points), 95% interval.

    Diamonds are the ideas that were `chosen`, circles what was predicted. A mean outside the
    `limits` of the axis is an arrow at its edge, with the number beside it.
    """
    order = sorted(gained, key=lambda idea: gained[idea].mean, reverse=True)
    labels = [_wrap(idea, 34) for idea in order]
    lines = [1.3 + label.count("\n") for label in labels]
    places = [end - high / 2 for end, high in zip(itertools.accumulate(lines), lines, strict=True)]
    ax = axes(1.8 + 0.2 * sum(lines))
    ax.set(xlim=limits, ylim=(sum(lines), 0))
    ax.set_xlabel("gain (points of accuracy)", fontsize=TEXT)
    ax.axvline(0, label=f"the base: {_wrap(base, 50)}", **DOTTED)
    folds = sorted({gain.folds for gain in gained.values()})
    for idea, place in zip(order, places, strict=True):
        gain = gained[idea]
        _mark(ax, gain, place, CHOSEN if idea in chosen else DOT)
        if len(folds) > 1:
            at = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": TEXT}
            ax.text(1.02, place, f"{gain.folds} folds", **at)
    ax.set_yticks(places, labels)
    for label, idea in zip(ax.get_yticklabels(), order, strict=True):
        label.set_fontweight("bold" if idea in chosen else "normal")
    ax.tick_params(labelsize=TEXT)
    ax.grid(alpha=0.25)
    ax.set_axisbelow(True)
    over = f", {folds[0]} folds" if len(folds) == 1 else ""
    ax.plot([], [], label=f"mean{over}, and its 95% interval", **DOT)
    if chosen:
        ax.plot([], [], label="chosen", **CHOSEN)
    if any(gain.predicted is not None for gain in gained.values()):
        ax.plot([], [], label="predicted", **CIRCLE)
    figure = ax.get_figure()
    figure.suptitle(_wrap(title, 76), fontsize=TEXT + 1, fontweight="bold")
    figure.legend(loc="outside lower center", ncols=2, fontsize=TEXT)
    return ax


def _wrap(text: str, width: int) -> str:
    """A text in as few lines as this width allows, all about as long, without its backticks."""
    text = text.replace("`", "")
    whole = {"break_long_words": False, "break_on_hyphens": False}
    fewest = len(textwrap.wrap(text, width, **whole))
    wraps = (textwrap.wrap(text, narrower, **whole) for narrower in range(1, width + 1))
    return "\n".join(next(lines for lines in wraps if len(lines) == fewest))


def _mark(ax: Axes, gain: Gain, place: float, style: dict) -> None:
    """An idea's row: mean, interval and prediction; a mean outside the axis, at its edge."""
    low, high = ax.get_xlim()
    if low <= gain.mean <= high:
        ax.errorbar(gain.mean, place, xerr=gain.reach, capsize=3, linewidth=1.6, **style)
    else:
        below = gain.mean < low
        edge, arrow, side = (low, "<", "left") if below else (high, ">", "right")
        ax.plot(edge, place, clip_on=False, **style | {"marker": arrow, "markersize": 9})
        where = {"textcoords": "offset points", "ha": side, "va": "center", "fontsize": TEXT}
        text = f"{gain.mean:+.2f} ± {gain.reach:.2f}"
        ax.annotate(text, (edge, place), (10 if below else -10, 0), **where)
    if gain.predicted is not None:
        ax.plot(gain.predicted, place, **CIRCLE)


def plot_part(search: str, title: str, **how) -> Axes:
    """`plot_ideas` for a part of the search, from the records."""
    return plot_ideas(gains(search), next(iter(ideas(search))), title, **how)
