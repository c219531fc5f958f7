"""From the records: the tables of the README files, the README's picture, the library's share."""

import csv
import json
import re
import statistics
from dataclasses import replace
from pathlib import Path

import plots
from matplotlib.axes import Axes
from scipy.special import stdtrit

from mnist_lib import (
    RECIPES,
    History,
    Recipe,
    load_study,
    logged_runs,
    luck_table,
    recorded_studies,
)
from mnist_lib.base.tables import (
    Table,
    count_and_interval,
    mean_and_error,
    mean_and_sd,
    standard_error,
)
from mnist_lib.curves import COLORS, GOAL, GREY, THIS, axes
from mnist_lib.grade import records
from mnist_lib.history import TARGET

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "notebooks" / "records"
STUDIES = ("assignment", "steady", "long", "fast", "faster")  # recipes with a file of their own
FRONTIER = (
    "With a third of the assignment's parameters the mean is at the target, give or take 0.04"
)
LUCK = "The author's recipe touches the target by luck; with care the net ends there as a rule"
FRESH = ("steady, fresh seeds", "fast, fresh seeds")
MACHINE = ("b2", "dab6")  # the machine of the README's figures: both names round alike
KEPT = ("recipe", "seed", "machine", "threads", "torch", "parameters", "train_images", "data")


def write() -> list[Path]:
    """All that is made of the records; the documents whose tables were written."""
    for name, text in (("recorded.jsonl", recorded()), ("held_out.csv", held_out())):
        Path(records.__file__).with_name(name).write_text(text, encoding="utf-8")
    draw_luck(RECORDS / "luck.png")
    draw_frontier(RECORDS / "frontier.png")
    return tables()


def tables(*documents: Path) -> list[Path]:
    """Write the tables of these documents, of README and records without any, from the records.

    A table stands between `<!-- table: NAME -->` and `<!-- /table -->`; NAME is one of TABLES.
    """
    documents = documents or (ROOT / "README.md", RECORDS / "README.md")
    for document in documents:
        text = document.read_text(encoding="utf-8")
        marked = re.compile(r"(<!-- table: (.+?) -->\n).*?(<!-- /table -->)", re.DOTALL)
        text = marked.sub(lambda m: f"{m[1]}{TABLES[m[2]]()}\n{m[3]}", text)
        document.write_text(text, encoding="utf-8")
    return list(documents)


def recorded() -> str:
    """What the library carries: seeds by recipe, on the README's machine if any are its."""
    studies = {name: _of_machine(name) for name in STUDIES}
    for run in load_study(RECORDS / "fresh.jsonl"):
        studies.setdefault(f"{run.recipe.name}, fresh seeds", []).append(run)
    studies |= frontier() | {"notebook": load_study(RECORDS / "notebook.jsonl")}
    lines = []
    for study, runs in studies.items():
        for run in runs:
            rounded = {"last_batch_loss": 0.0, "seconds": 0.0, "train_correct": None}
            epochs = (replace(e, test_loss=round(e.test_loss, 4), **rounded) for e in run)
            record = {"study": study} | {name: run.record[name] for name in KEPT}
            lines.append(History(tuple(epochs), run.source, record).to_json())
    return "".join(lines)


def _of_machine(recipe: str) -> list[History]:
    runs = load_study(RECORDS / f"{recipe}.jsonl")
    return [run for run in runs if run.record["machine"] in MACHINE] or runs


# What predictions.csv says of a recipe, as its fields.
SETTINGS = {
    "one-cycle rate to 0.15": {"schedule": "one_cycle", "learning_rate": 0.15, "warm_up": 0.3},
    "constant rate of 0.05": {"schedule": "constant", "learning_rate": 0.05, "warm_up": 0.0},
    "augmented as steady": {"rotation": 6.0, "shift": 0.75, "scale": 0.05},
    "not augmented": {"rotation": 0.0, "shift": 0.0, "scale": 0.0},
    "averaging 0": {"averaging": 0.0},
    "without Nesterov": {"nesterov": False},
    "crop 28": {"crop": 28},
    "batches of 32": {"batch_size": 32},
    "rate to 0.075": {"learning_rate": 0.075},
    "3 epochs of all images": {"epochs": 3, "hardest": 1.0},
    "7 epochs of all images": {"epochs": 7, "hardest": 1.0},
    "again": {},
    "net assignment": {"net": "assignment"},
    "net p2976": {"net": "p2976"},
    "net p2986": {"net": "p2986"},
    "10 epochs": {"epochs": 10},
    "60 epochs": {"epochs": 60},
    "120 epochs": {"epochs": 120},
    "averaging 0.999": {"averaging": 0.999},
    "crop 24": {"crop": 24},
    "distilled": {"name": "distilled", "rotation": 8.0, "shift": 1.0, "scale": 0.07},
}
# From `assignment` to `steady`; then, in predictions.csv, come changes to `steady`.
BRIDGE = (
    "assignment",
    "assignment, one-cycle rate to 0.15",
    "assignment, one-cycle rate to 0.15, augmented as steady",
    "steady, again",
)


def recipe_of(words: str) -> Recipe:
    """The recipe in the words of predictions.csv, as in "steady, averaging 0"."""
    name, *settings = words.split(", ")
    return replace(RECIPES[name], **{k: v for t in settings for k, v in SETTINGS[t].items()})


def held_out() -> str:
    """What the library carries of the folds: the bridge, and each recipe on all twelve."""
    bridge, recipes = (load_study(RECORDS / name) for name in ("bridge.jsonl", "folds.jsonl"))
    changed = [row["recipe"] for row in csv_rows("predictions.csv")]
    changed = [words for words in changed if words.startswith("steady, ")]
    found = {
        words: [run for run in bridge if run.recipe == recipe_of(words)]
        for words in (*BRIDGE, *changed)
    }
    changed.sort(key=lambda words: statistics.fmean(r.final.correct for r in found[words]))
    found = {words: found[words] for words in (*BRIDGE, *changed)}
    for name in STUDIES[1:]:
        found[name] = [run for run in recipes if run.recipe == RECIPES[name]]
    lines = ["recipe,fold,correct"]
    for words, runs in found.items():
        for run in sorted(runs, key=lambda run: run.record["seed"]):
            lines.append(f'"{words}",{run.record["seed"]},{run.final.correct}')
    return "\n".join(lines) + "\n"


def recipes_table() -> str:
    """Each recipe on the README's machine, and the fresh seeds: means and sd, all seeds counted."""
    authors = logged_runs()
    rows = [_recipe_row("the author's two runs", len(authors[0]), authors)]
    # Two values have no spread worth the name.
    rows[0]["last epoch %"] = ", ".join(f"{run.final.accuracy:.2f}" for run in authors)
    names = ("assignment", *FRESH, "steady", "fast", "long", "faster")
    studies = {name: recorded_studies()[name] for name in names}
    for (name, runs), luck in zip(studies.items(), luck_table(studies).rows, strict=True):
        recipe = runs[0].recipe
        passes = recipe.first + (recipe.epochs - 1) * recipe.hardest  # in training sets
        text = f"`{recipe.name}`{name.removeprefix(recipe.name)}"
        if f"{name}, fresh seeds" in FRESH:
            text += ", first seeds"
        row = _recipe_row(text, passes, runs, _seconds(recipe.name))
        row["held out %"] = luck["held out, %"]
        rows.append(row | {name: luck[name] for name in ("sd over epochs", "sd over seeds")})
    return markdown(Table(rows))


def _recipe_row(name: str, passes: float, runs: list[History], seconds: str = "") -> dict[str, str]:
    return {
        "recipe": name,
        "epochs": str(len(runs[0])),
        "passes": f"{passes:.2f}",
        "last epoch %": mean_and_sd((run.final.accuracy for run in runs), 2),
        "held out %": "",
        "sd over epochs": "",
        "sd over seeds": "",
        "end at 99.44% or more": count_and_interval(sum(run.reached for run in runs), len(runs)),
        "touch it": count_and_interval(sum(run.touched for run in runs), len(runs)),
        "seconds": seconds,
    }


def _seconds(recipe: str) -> str:
    """The newest time of a recipe on the README's machine, by turns with the others."""
    lines = (RECORDS / "benchmark.jsonl").read_text(encoding="utf-8").splitlines()
    for row in reversed([json.loads(line) for line in lines]):
        ours = row["machine"] in MACHINE and row.get("threads") == 2
        if ours and row["way"] == f"recipe {recipe}":
            return f"{row['seconds']:.0f}"
    return ""


def frontier() -> dict[str, list[History]]:
    """The recorded seeds of the small nets, by recipe and net."""
    studies = {}
    for run in load_study(RECORDS / "frontier.jsonl"):
        studies.setdefault(f"{run.recipe.name} {run.recipe.net}", []).append(run)
    return studies


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


def frontier_studies() -> dict[str, list[History]]:
    """Those of the frontier by recipe and net: the assignment's, of `long`, and the small ones."""
    return {"long assignment": _of_machine("long")} | frontier()


def frontier_table() -> str:
    """The frontier's nets: what was wanted, what was predicted, what came, and what it took."""
    studies = frontier_studies()
    rows = []
    for row in csv_rows("goals.csv"):
        runs = studies.get(f"{row['recipe']} {row['net']}")
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
                    sum(run.reached for run in runs), len(runs)
                ),
                "core-hours": f"{hours:.1f}",
                "MB a process": f"{max(run.record['memory'] for run in runs):.0f}",
            }
        )
    return markdown(Table(rows, left=2))


def published_table() -> str:
    """Other people's numbers, as they chose and published them."""
    return markdown(Table(csv_rows("published.csv"), left=2))


def markdown(table: Table) -> str:
    """A table in Markdown."""
    head, *body = table.cells()
    rule = ["---" if n < table.left else "---:" for n in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def csv_rows(name: str) -> list[dict[str, str]]:
    """The rows of a .csv of the records, each by column."""
    return list(csv.DictReader((RECORDS / name).read_text(encoding="utf-8").splitlines()))


def files_table() -> str:
    """The files of runs: how many, of which recipes, on which machines."""
    rows = []
    for path in sorted(RECORDS.glob("*.jsonl")):
        if path.stem in ("search", "benchmark"):
            continue
        runs = load_study(path)
        rows.append(
            {
                "file": f"`{path.name}`",
                "recipes": ", ".join(sorted({run.record["recipe"]["name"] for run in runs})),
                "machines": ", ".join(sorted({run.record["machine"] for run in runs})),
                "runs": str(len(runs)),
                "epochs": str(sum(map(len, runs))),
            }
        )
    return markdown(Table(rows, left=3))


def search_lines() -> list[dict]:
    """The runs of the search: an idea on a fold each, in the order they were tried."""
    lines = (RECORDS / "search.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def ideas(search: str) -> dict[str, list[dict]]:
    """A part of the search: for each idea its runs, a fold each, in the order they were tried.

    Each run has its `gain`, in points, over the first idea on the same fold, if that was tried.
    """
    found = {}
    for run in search_lines():
        if run["search"] == search:
            found.setdefault(run["idea"], []).append(run)
    base = {run["fold"]: run["accuracy"] for run in next(iter(found.values()))}
    for run in (run for runs in found.values() for run in runs):
        run["gain"] = run["accuracy"] - base[run["fold"]] if run["fold"] in base else None
    return found


def machines_table() -> str:
    """Each recipe on each machine, with as many threads."""
    together = {}
    for name in STUDIES:
        for run in load_study(RECORDS / f"{name}.jsonl"):
            key = (name, run.record["machine"], run.record["threads"])
            together.setdefault(key, []).append(run)
    rows = [
        {
            "recipe": f"`{name}`",
            "machine": machine,
            "threads": str(threads),
            "seeds": str(len(runs)),
            "last epoch %": mean_and_sd(run.final.accuracy for run in runs),
            "best epoch %": mean_and_sd(run.best.accuracy for run in runs),
            "seconds a run": mean_and_sd((run.seconds for run in runs), 1),
        }
        for (name, machine, threads), runs in together.items()
    ]
    return markdown(Table(rows, left=2))


def ranks_table(runs: list[History], logged: list[History]) -> Table:
    """The logged runs among a recipe's seeds: how many reach 99.44%, and where the logged stand.

    A logged run's rank is its place among the seeds and itself: 1 if no seed is better.
    """
    adds = [run.best.accuracy - run.final.accuracy for run in runs]
    touched, reached = sum(run.touched for run in runs), sum(run.reached for run in runs)
    blank = {f"logged run {n}": "" for n in range(1, len(logged) + 1)}
    values = {
        "touch 99.44% at some epoch": count_and_interval(touched, len(runs)),
        "end at 99.44% or more": count_and_interval(reached, len(runs)),
        "best epoch, %": mean_and_sd(run.best.accuracy for run in runs),
        "last epoch, %": mean_and_sd(run.final.accuracy for run in runs),
        "choosing the best epoch adds, points ± standard error": mean_and_error(adds),
    }
    rows = [{"": name, "seeds": value} | blank for name, value in values.items()]
    ranked = {
        "rank of the best epoch": lambda run: run.best.accuracy,
        "rank of the last epoch": lambda run: run.final.accuracy,
        "rank of the mean of the last five": lambda run: run.mean_of_last_five,
    }
    for name, figure in ranked.items():
        ranks = (1 + sum(figure(run) > figure(log) for run in runs) for log in logged)
        places = (f"{rank} of {len(runs) + 1}" for rank in ranks)
        rows.append({"": name, "seeds": ""} | dict(zip(blank, places, strict=True)))
    return Table(rows)


def draw_luck(path: Path) -> None:
    """The README's picture, from the records that ship with the library."""
    studies = {name: recorded_studies()[name] for name in ("assignment", *FRESH)}
    authors = {"the author's two runs": logged_runs()}
    plots.plot_luck(authors | studies, title=LUCK).get_figure().savefig(path, dpi=110)


def draw_frontier(path: Path) -> None:
    """The README's other picture."""
    drawn = plot_frontier(list(frontier_studies().values()), published(), FRONTIER)
    drawn.get_figure().savefig(path, dpi=110)


def plot_frontier(
    studies: list[list[History]],
    published: list[dict] = (),
    title: str = "",
    ax: Axes | None = None,
) -> Axes:
    """Accuracy after the last epoch over the net's parameters: a dot a study, its seeds' mean.

    Bars are 95% intervals of the mean over seeds; a small tick is the mean of the best epochs, to
    compare with `published` numbers, dicts with "parameters", "accuracy" (%) and "sd" (points, None
    for a single run), which are open circles. Nets that look at several views are squares.
    """
    ax = ax or axes(5)
    circle = {"fmt": "o", "color": GREY, "markerfacecolor": "none", "capsize": 3, "linewidth": 1}
    ax.axhline(TARGET / 100, **GOAL)
    for runs in studies:
        last = [run.final.accuracy for run in runs]
        several = runs[0].recipe.views > 1
        # Two studies of one net, or of two that are alike, stand beside each other.
        place = runs[0].record["parameters"] * {"views": 1.04, "tiny": 1.02}.get(
            runs[0].recipe.name, 0.98
        )
        margin = stdtrit(len(last) - 1, 0.975) * standard_error(last)
        style = {"color": COLORS[several], "fmt": "os"[several], "capsize": 4}
        ax.errorbar(place, statistics.fmean(last), yerr=margin, **style)
        best = statistics.fmean(run.best.accuracy for run in runs)
        ax.plot(place, best, "_", color=COLORS[several], markersize=9)
    for other in published:
        ax.errorbar(other["parameters"], other["accuracy"], yerr=other["sd"], zorder=3, **circle)
    kinds = [("o", "last epoch: mean of ten seeds, 95% interval", {"color": THIS})]
    kinds += [("s", "the same, four views of each test image", {"color": COLORS[1]})]
    kinds += [("_", "best epoch, picked on the test set: mean", {"color": THIS, "markersize": 9})]
    kinds += [("o", "published, most the best epoch of one run", {"color": GREY, "mfc": "none"})]
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


TABLES = {"recipes": recipes_table, "frontier": frontier_table, "files": files_table}
