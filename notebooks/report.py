"""From the records: the tables of the README files, the README's picture, the library's share."""

import json
import re
import statistics
from dataclasses import replace
from pathlib import Path

import frontier
import plots
from evidence import BRIDGE, MACHINE, RECORDS, ROOT, csv_rows, markdown, of_machine, recipe_of

from mnist_lib import RECIPES, History, load_study, logged_runs, luck_table, recorded_studies
from mnist_lib.base.tables import Table, count_and_interval, mean_and_error, mean_and_sd
from mnist_lib.grade import records

STUDIES = ("assignment", "steady", "long", "fast", "faster")  # recipes with a file of their own
LUCK = "The author's recipe touches the target by luck; with care the net ends there as a rule"
FRESH = ("steady, fresh seeds", "fast, fresh seeds")
KEPT = ("recipe", "seed", "machine", "threads", "torch", "parameters", "train_images", "data")


def write() -> list[Path]:
    """Make all that comes from the records; returns the documents whose tables were written."""
    for name, text in (("recorded.jsonl", recorded()), ("held_out.csv", held_out())):
        Path(records.__file__).with_name(name).write_text(text, encoding="utf-8")
    draw_luck(RECORDS / "luck.png")
    frontier.draw(RECORDS / "frontier.png")
    return tables()


def tables(*documents: Path) -> list[Path]:
    """Write the tables of these documents from the records; by default, of both README files.

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
    """What the library carries: seeds by recipe; of STUDIES only the README's machine's, if any."""
    studies = {name: of_machine(name) for name in STUDIES}
    for run in load_study(RECORDS / "fresh.jsonl"):
        studies.setdefault(f"{run.recipe.name}, fresh seeds", []).append(run)
    studies |= frontier.small_nets() | {"notebook": load_study(RECORDS / "notebook.jsonl")}
    lines = []
    for study, runs in studies.items():
        for run in runs:
            rounded = {"last_batch_loss": 0.0, "seconds": 0.0, "train_correct": None}
            epochs = (replace(e, test_loss=round(e.test_loss, 4), **rounded) for e in run)
            record = {"study": study} | {name: run.record[name] for name in KEPT}
            lines.append(History(tuple(epochs), run.source, record).to_json())
    return "".join(lines)


def held_out() -> str:
    """What the library carries of the folds: the bridge, and each recipe on all twelve."""
    bridge, recipes = (load_study(RECORDS / name) for name in ("bridge.jsonl", "folds.jsonl"))
    changed = [row["recipe"] for row in csv_rows("predictions.csv")]
    changed = [words for words in changed if words.startswith("steady, ")]
    found = {
        words: [run for run in bridge if run.recipe == recipe_of(words)]
        for words in (*BRIDGE, *changed)
    }
    changed = [words for words in changed if len(found[words]) >= 8]  # not if only predicted yet
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
    names = ("assignment", *FRESH, "steady", "fast", "long", "faster", "distilled assignment")
    studies = {name: recorded_studies()[name] for name in names}
    for (name, runs), luck in zip(studies.items(), luck_table(studies).rows, strict=True):
        recipe = runs[0].recipe
        passes = recipe.first + (recipe.epochs - 1) * recipe.hardest  # in training sets
        text = f"`{recipe.name}`{name.removeprefix(recipe.name).removesuffix(' assignment')}"
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
        "end at 99.44% or more": count_and_interval(
            sum(run.ends_at_target for run in runs), len(runs)
        ),
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


def machines_table() -> str:
    """Each recipe on each machine, and with each number of threads."""
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
    touched, reached = sum(run.touched for run in runs), sum(run.ends_at_target for run in runs)
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


TABLES = {"recipes": recipes_table, "frontier": frontier.table, "files": files_table}
