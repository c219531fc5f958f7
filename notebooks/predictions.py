"""How predictions did: those of the search, of the frontier, and the lines of predictions.csv."""

import re
import statistics

import frontier
from evidence import RECORDS, csv_rows, markdown, recipe_of
from search import FORMS, gains, parts

from mnist_lib import History, load_study
from mnist_lib.base.tables import Table


def predictions_table() -> str:
    """What was predicted and what came; a line of predictions.csv once all of its runs are there.

    Whether git shows a prediction to precede its runs is known of a file, not looked up.
    """
    rows = [_group(f"the search: {form}", errors, "no") for form, errors in search_errors().items()]
    rows.append(_group("the frontier: means of its nets", frontier_errors(), "yes"))
    lines = csv_rows("predictions.csv")
    files = [
        RECORDS / f"{name}.jsonl" for name in ("fresh", "bridge", "earlier", "faster", "longer")
    ]
    runs = [run for file in files if file.exists() for run in load_study(file)]
    for row, value in zip(lines, outcomes(lines, runs), strict=True):
        if value is not None:
            rows.append(_line(row, value))
    return markdown(Table(rows))


def search_errors() -> dict[str, list[float]]:
    """What came less what was predicted, points, for each idea of the search, by FORMS."""
    found = [gain for part in parts() for gain in gains(part, folds=1).values()]
    return {form: [g.mean - g.predicted for g in found if g.form == form] for form in FORMS}


def frontier_errors() -> list[float]:
    """The same for the mean of each net of goals.csv."""
    studies, errors = frontier.studies(), []
    for row in csv_rows("goals.csv"):
        runs = studies[f"{row['recipe']} {row['net']}"]
        mean = statistics.fmean(run.final.accuracy for run in runs)
        errors.append(mean - float(row["predicted"]))
    return errors


def outcomes(lines: list[dict[str, str]], runs: list[History]) -> list[float | None]:
    """What came of each line of predictions.csv; None unless `runs` has all that it speaks of."""
    found, above = [], ""
    for row in lines:
        first, last = map(int, re.findall(r"\d+", row["seeds"]))
        seeds = range(first, last + 1)
        source = "validation" if "folds" in row["seeds"] else "mnist"
        ours = _runs(row["recipe"], source, seeds, runs)
        _, _, other = row["what"].partition("difference to ")
        theirs = _runs(above if other == "the line above" else other, source, seeds, runs)
        above = row["recipe"]
        found.append(
            _outcome(row["what"], ours, theirs) if ours and (theirs or not other) else None
        )
    return found


def _runs(words: str, source: str, seeds: range, runs: list[History]) -> list[History]:
    """The runs of a recipe in the words of predictions.csv, a seed each; empty if one lacks."""
    if not words:
        return []
    recipe = recipe_of(words)
    made = {r.record["seed"]: r for r in runs if r.source == source and r.recipe == recipe}
    return [made[seed] for seed in seeds] if made.keys() >= set(seeds) else []


def _outcome(what: str, ours: list[History], theirs: list[History]) -> float:
    if what.startswith("of "):
        return sum(run.reached for run in ours)
    mean = statistics.fmean(run.final.accuracy for run in ours)
    base = statistics.fmean(run.final.accuracy for run in theirs) if theirs else 0
    return round(mean - base, 6)  # so that an interval's end is inside


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


def _line(row: dict[str, str], value: float) -> dict[str, str]:
    """A row for a line of predictions.csv."""
    low, high = float(row["low"]), float(row["high"])
    runs = row["seeds"] if "folds" in row["seeds"] else f"seeds {row['seeds']}"
    return {
        "prediction": f"{row['recipe']}, {runs}: {row['what']}",
        "predicted": f"{row['predicted']} ({row['low']} to {row['high']})",
        "came": f"{value:.3f}".removesuffix(".000"),
        "came less predicted": f"{value - float(row['predicted']):+.3f}",
        "in the interval": "inside" if low <= value <= high else "outside",
        "git shows it came first": "yes",
    }
