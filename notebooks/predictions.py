"""How predictions did: those of the search, of the frontier, and the lines of predictions.csv."""

import re
import statistics
from dataclasses import dataclass

import frontier
from evidence import GIVEN_UP, RECORDS, csv_rows, markdown, recipe_of, search_lines
from search import FORMS, gains, parts

from mnist_lib import History, load_study
from mnist_lib.base.tables import Table
from mnist_lib.history import TARGET


def predictions_table() -> str:
    """What was predicted and what came; a line of predictions.csv once all of its runs are there.

    Whether git shows that a prediction precedes its runs is stated per source, not looked up.
    """
    rows = [_group(f"the search: {form}", errors, "no") for form, errors in search_errors().items()]
    rows.append(_group("the frontier: means of its nets", frontier_errors(), "yes"))
    lines = csv_rows("predictions.csv")
    files = [
        RECORDS / f"{name}.jsonl" for name in ("fresh", "bridge", "earlier", "faster", "frontier")
    ]
    runs = [run for file in files for run in load_study(file)]
    for row, outcome in zip(lines, outcomes(lines, runs), strict=True):
        if outcome is not None:
            rows.append(_line(row, outcome))
    return markdown(Table(rows))


def search_errors() -> dict[str, list[float]]:
    """What came less what was predicted, points, for each idea of the search, by FORMS."""
    found = [gain for part in parts() for gain in gains(part, folds=1).values()]
    return {form: [g.mean - g.predicted for g in found if g.form == form] for form in FORMS}


def frontier_errors() -> list[float]:
    """The same for the mean of each recorded net that goals.csv has a goal for."""
    studies, errors = frontier.studies(), []
    for row in csv_rows("goals.csv"):
        runs = studies.get(f"{row['recipe']} {row['net']}")
        if runs and row["goal"]:
            mean = statistics.fmean(run.final.accuracy for run in runs)
            errors.append(mean - float(row["predicted"]))
    return errors


@dataclass(frozen=True)
class Outcome:
    """What came of a line of predictions.csv, and the seeds or folds that were run for it."""

    value: float
    seeds: list[int]


def outcomes(lines: list[dict[str, str]], runs: list[History]) -> list[Outcome | None]:
    """What came of each line of predictions.csv; None while runs that it speaks of are missing.

    A change given up early counts with the folds or seeds that were run, unless it is a count.
    """
    patience, bases = {}, {}
    for run in search_lines():
        if run["search"].startswith("patience"):
            bases.setdefault(run["search"], run["idea"])  # each part's first idea: never given up
            patience.setdefault(run["idea"], {})[run["fold"]] = run["accuracy"]
    found, above = [], ""
    for row in lines:
        first, last = map(int, re.findall(r"\d+", row["seeds"]))
        on_folds = "folds" in row["seeds"]
        tried = patience if on_folds else {}  # the search never takes the test set
        source = "validation" if on_folds else "mnist"
        seeds = list(range(first, last + 1))
        if row["recipe"] in tried.keys() - {*bases.values()}:
            seeds = [seed for seed in seeds if seed in tried[row["recipe"]]]
        if row["recipe"] in GIVEN_UP and not row["what"].startswith("of "):
            recipe = recipe_of(row["recipe"])
            seeds = sorted(run.record["seed"] for run in runs if run.recipe == recipe)
        _, _, other = row["what"].partition("difference to ")
        base = above if other == "the line above" else other
        ours, theirs = (
            _accuracies(words, source, seeds, runs, tried) for words in (row["recipe"], base)
        )
        above = row["recipe"]
        complete = seeds and len(ours) == len(seeds) and len(theirs) == len(seeds) * bool(other)
        found.append(Outcome(_value(row["what"], ours, theirs), seeds) if complete else None)
    return found


def _accuracies(
    words: str, source: str, seeds: list[int], runs: list[History], tried: dict[str, dict]
) -> list[float]:
    """Accuracies (%) of a recipe in the words of predictions.csv, a seed each, if recorded."""
    if not words:
        return []
    made = tried.get(words)
    if made is None:
        recipe = recipe_of(words)
        same = (run for run in runs if run.source == source and run.recipe == recipe)
        made = {run.record["seed"]: run.final.accuracy for run in same}
    return [made[seed] for seed in seeds if seed in made]


def _value(what: str, ours: list[float], theirs: list[float]) -> float:
    if what.startswith("of "):
        return sum(accuracy >= TARGET / 100 for accuracy in ours)
    base = statistics.fmean(theirs) if theirs else 0
    return round(statistics.fmean(ours) - base, 6)  # so that an interval's end is inside


def _group(name: str, errors: list[float], before: str) -> dict[str, str]:
    """A row for predictions that had no interval."""
    errors = [round(error, 6) for error in errors]  # so that 0.1 + 0.2 - 0.3 is nothing
    rms = statistics.fmean(error**2 for error in errors) ** 0.5
    return {
        "prediction": name,
        "predicted": f"{len(errors)} values",
        "came": f"{sum(error < 0 for error in errors)} lower",
        "came less predicted": f"mean {statistics.fmean(errors):+.3f}, rms {rms:.3f}",
        "in the interval": "none given",
        "git shows it came first": before,
    }


def _line(row: dict[str, str], outcome: Outcome) -> dict[str, str]:
    """A row for a line of predictions.csv."""
    low, high, value = float(row["low"]), float(row["high"]), outcome.value
    runs = row["seeds"] if "folds" in row["seeds"] else f"seeds {row['seeds']}"
    first, last = map(int, re.findall(r"\d+", runs))
    if len(outcome.seeds) <= last - first:
        runs += f", stopped after {', '.join(map(str, outcome.seeds))}"
    return {
        "prediction": f"{row['recipe']}, {runs}: {row['what']}",
        "predicted": f"{row['predicted']} ({row['low']} to {row['high']})",
        "came": f"{value:.0f}" if row["what"].startswith("of ") else f"{value:.3f}",
        "came less predicted": f"{value - float(row['predicted']):+.3f}",
        "in the interval": "inside" if low <= value <= high else "outside",
        "git shows it came first": "yes",
    }
