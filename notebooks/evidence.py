"""The evidence: what lies in records/, read; and the words of its tables and predictions."""

import csv
import json
from dataclasses import replace
from pathlib import Path

from mnist_lib import RECIPES, History, Recipe, load_study
from mnist_lib.base.tables import Table

ROOT = Path(__file__).parents[1]
RECORDS = ROOT / "notebooks" / "records"
MACHINE = ("b2", "dab6")  # the machine of the README's figures: both names round alike
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
    "10 epochs": {"epochs": 10},
    "60 epochs": {"epochs": 60},
    "120 epochs": {"epochs": 120},
    "averaging 0.999": {"averaging": 0.999},
    "crop 24": {"crop": 24},
    "distilled without mixing": {"name": "distilled"},
}
# A recipe that was given up before all of its seeds, in words that are left.
GIVEN_UP = {"patient": "small, net p2976, 120 epochs, averaging 0.999"}
# From `assignment` to `steady`; then, in predictions.csv, come changes to `steady`.
BRIDGE = (
    "assignment",
    "assignment, one-cycle rate to 0.15",
    "assignment, one-cycle rate to 0.15, augmented as steady",
    "steady, again",
)


def recipe_of(words: str) -> Recipe:
    """The recipe in the words of predictions.csv, as in "steady, averaging 0"."""
    if words in GIVEN_UP:
        return replace(recipe_of(GIVEN_UP[words]), name=words)
    name, *settings = words.split(", ")
    return replace(RECIPES[name], **{k: v for t in settings for k, v in SETTINGS[t].items()})


def of_machine(recipe: str) -> list[History]:
    runs = load_study(RECORDS / f"{recipe}.jsonl")
    return [run for run in runs if run.record["machine"] in MACHINE] or runs


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


def markdown(table: Table) -> str:
    """A table in Markdown."""
    head, *body = table.cells()
    rule = ["---" if n < table.left else "---:" for n in range(len(head))]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, rule, *body))


def csv_rows(name: str) -> list[dict[str, str]]:
    """The rows of a .csv of the records, each by column."""
    return list(csv.DictReader((RECORDS / name).read_text(encoding="utf-8").splitlines()))
