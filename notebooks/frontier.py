"""The frontier: how accurate nets below the assignment's limit are, in tables and a picture."""

import statistics
from pathlib import Path

from evidence import RECORDS, csv_rows, markdown, of_machine
from matplotlib.axes import Axes
from scipy.special import stdtrit

from mnist_lib import History, load_study
from mnist_lib.base.tables import Table, count_and_interval, mean_and_sd, standard_error
from mnist_lib.curves import COLORS, GOAL, GREY, THIS, axes
from mnist_lib.history import TARGET

TITLE = "With a third of the assignment's parameters the mean is at the target, give or take 0.04"


def small_nets() -> dict[str, list[History]]:
    """The recorded seeds of the small nets, by recipe and net."""
    found = {}
    for run in load_study(RECORDS / "frontier.jsonl"):
        found.setdefault(f"{run.recipe.name} {run.recipe.net}", []).append(run)
    return found


def published() -> list[dict]:
    """Other people's numbers: parameters, accuracy (%), and the sd (points) where it is known."""
    return [
        {
            "parameters": int(row["parameters"]),
            "accuracy": float(row["accuracy"]),
            "sd": float(row["sd"]) if row["sd"] else None,
        }
        for row in csv_rows("published.csv")
    ]


def studies() -> dict[str, list[History]]:
    """The frontier's runs by recipe and net: the assignment's net with `long`, and the others."""
    return {"long assignment": of_machine("long")} | small_nets()


def table() -> str:
    """The frontier's nets: what was wanted, what was predicted, what came, and what it took."""
    found = studies()
    rows = []
    for row in csv_rows("goals.csv"):
        runs = found.get(f"{row['recipe']} {row['net']}")
        if not runs:
            continue
        last = [run.final.accuracy for run in runs]
        hours = sum(run.seconds * run.record["threads"] for run in runs) / 3600
        rows.append(
            {
                "recipe": f"`{row['recipe']}`",
                "net": f"`{row['net']}`",
                "parameters": f"{runs[0].record['parameters']:,}",
                "goal %": row["goal"],
                "predicted": row["predicted"],
                "last epoch %": mean_and_sd(last),
                "lowest": f"{min(last):.2f}",
                "best epochs %": mean_and_sd(run.best.accuracy for run in runs),
                "end at 99.44% or more": count_and_interval(
                    sum(run.ends_at_target for run in runs), len(runs)
                ),
                "core-hours": f"{hours:.1f}",
                "MB a process": f"{max(run.record['memory'] for run in runs):.0f}",
            }
        )
    return markdown(Table(rows, left=2))


def published_table() -> str:
    """Other people's numbers, as they chose and published them."""
    return markdown(Table(csv_rows("published.csv"), left=2))


def draw(path: Path) -> None:
    """The README's other picture."""
    plot(list(studies().values()), published(), TITLE).get_figure().savefig(path, dpi=110)


def plot(
    nets: list[list[History]],
    published: list[dict] = (),
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Accuracy after the last epoch over the net's parameters: a dot a study, its seeds' mean.

    Bars are 95% intervals of the mean over seeds; a small tick is the mean of the best epochs, to
    compare with `published` numbers, dicts with "parameters", "accuracy" (%) and "sd" (points, None
    for a single run), which are open circles. Nets that look at several views are squares, nets
    that wide ones taught are diamonds.
    """
    ax = ax or axes(5)
    circle = {"fmt": "o", "color": GREY, "markerfacecolor": "none", "capsize": 3, "linewidth": 1}
    ax.axhline(TARGET / 100, **GOAL)
    for runs in nets:
        last = [run.final.accuracy for run in runs]
        recipe = runs[0].recipe
        kind = 1 if recipe.views > 1 else 2 if recipe.name == "distilled" else 0
        # Two studies of one net, or of two that are alike, stand beside each other.
        aside = {"views": 1.04, "tiny": 1.02, "distilled": 1.02}
        place = runs[0].record["parameters"] * aside.get(recipe.name, 0.98)
        margin = stdtrit(len(last) - 1, 0.975) * standard_error(last)
        style = {"color": COLORS[kind], "fmt": "osD"[kind], "capsize": 4}
        ax.errorbar(place, statistics.fmean(last), yerr=margin, **style)
        best = statistics.fmean(run.best.accuracy for run in runs)
        ax.plot(place, best, "_", color=COLORS[kind], markersize=9)
    for other in published:
        ax.errorbar(other["parameters"], other["accuracy"], yerr=other["sd"], zorder=3, **circle)
    kinds = [("o", "last epoch: mean of ten seeds, 95% interval", {"color": THIS})]
    kinds += [("s", "the same, four views of each test image", {"color": COLORS[1]})]
    kinds += [("D", "the same, taught by six wide nets", {"color": COLORS[2]})]
    kinds += [("_", "best epoch, picked on the test set: mean", {"color": THIS, "markersize": 9})]
    kinds += [
        (
            "o",
            "published (bars: sd), most the best epoch of one run",
            {"color": GREY, "mfc": "none"},
        )
    ]
    for mark, label, look in kinds:
        ax.plot([], [], mark, label=label, **look)
    ax.set_xscale("log")
    ax.set_xticks([700, 1000, 2000, 3000, 5000, 8000, 13_322, 20_000])
    ax.xaxis.set_major_formatter("{x:,.0f}")
    ax.xaxis.set_minor_formatter("")
    ax.set(xlabel="parameters (log scale)", ylabel="test accuracy (%)")
    ax.set_title(title, fontsize=10)
    ax.legend(loc="lower right", fontsize=8)
    return ax
