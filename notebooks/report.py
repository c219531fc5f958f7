"""From the records: the tables of the README files, the README's picture, the library's share."""

import csv
import json
import math
import re
import statistics
from dataclasses import replace
from pathlib import Path

from matplotlib.axes import Axes

from mnist_lib import RECIPES, History, load_study, logged_runs, recorded_studies
from mnist_lib.base.tables import Table, mean_and_sd, standard_error
from mnist_lib.curves import DOTTED, GREY, THIS, axes
from mnist_lib.figures import plots
from mnist_lib.grade import records
from mnist_lib.history import TARGET

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "notebooks" / "records"
STUDIES = ("assignment", "steady", "long", "fast", "sprint")  # recipes with a file of their own
MACHINE = ("b2", "dab6")  # the machine of the README's figures: both names round alike
KEPT = ("recipe", "seed", "machine", "threads", "torch", "parameters", "train_images", "data")


def write() -> list[Path]:
    """All that is made of the records; the documents whose tables were written."""
    for name, text in (("recorded.jsonl", recorded()), ("ideas.csv", recorded_ideas())):
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
    """What the library carries: seeds on the README's machine by recipe, the small nets' on any."""
    studies = {name: _of_machine(name) for name in STUDIES}
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
    return [run for run in runs if run.record["machine"] in MACHINE]


def recorded_ideas() -> str:
    """What the library carries of the search: `steady` with one idea less, or another."""
    lines = ["idea,difference,error,predicted"]
    for idea, runs in list(ideas("ablation").items())[1:]:
        gain = [run["gain"] for run in runs]
        mean, error = statistics.fmean(gain), standard_error(gain)
        lines.append(f"{idea},{mean:.4f},{error:.4f},{runs[0]['predicted']}")
    return "\n".join(lines) + "\n"


def recipes_table() -> str:
    """Each recipe on the README's machine: means and sd over the seeds, all counted."""
    authors = logged_runs()
    rows = [_recipe_row("the author's two runs", len(authors[0]), authors)]
    for name in STUDIES:
        recipe = RECIPES[name]
        passes = recipe.first + (recipe.epochs - 1) * recipe.hardest  # in training sets
        rows.append(_recipe_row(f"`{name}`", passes, _of_machine(name), _seconds(name)))
    return markdown(Table(rows))


def _recipe_row(name: str, passes: float, runs: list[History], seconds: str = "") -> dict[str, str]:
    return {
        "recipe": name,
        "epochs": str(len(runs[0])),
        "passes": f"{passes:.2f}",
        "last epoch %": mean_and_sd((run.final.accuracy for run in runs), 2),
        "end at 99.44% or more": f"{sum(run.reached for run in runs)} of {len(runs)}",
        "touch it": f"{sum(run.touched for run in runs)} of {len(runs)}",
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
                "end at 99.44% or more": f"{sum(run.reached for run in runs)} of {len(runs)}",
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


def draw_luck(path: Path) -> None:
    """The README's picture, from the records that ship with the library."""
    studies = {name: recorded_studies()[name] for name in ("assignment", "steady", "fast")}
    authors = {"the author's two runs": logged_runs()}
    plots.plot_luck(authors | studies).get_figure().savefig(path, dpi=110)


def draw_frontier(path: Path) -> None:
    """The README's other picture."""
    drawn = plot_frontier(list(frontier_studies().values()), published())
    drawn.get_figure().savefig(path, dpi=110)


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
    ax.axhline(goal, **DOTTED)
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


TABLES = {"recipes": recipes_table, "frontier": frontier_table, "files": files_table}
