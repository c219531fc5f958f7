"""Records shipped with the library: the author's runs, recorded seeds, folds and mistakes."""

import csv
import functools
import json
from collections import Counter
from importlib import resources

from ..base.errors import check
from ..base.tables import Table
from ..history import Epoch, History, describe
from .parse import parse_log


def _read(name: str) -> str:
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def logged_runs() -> list[History]:
    """Both runs of the assignment's net that its author published.

    The first is the assignment's log, 19 epochs, verbatim in `logged_run.txt`. Its 17th test line
    shows 99.44%, though the assignment says epoch 18 reached it first. It is the 26th execution of
    S4/EVA4_Assignment4.ipynb in github.com/Nildk123/EVA_2; the second, `second_run.csv`, the 29th.
    """
    second = []
    for row in csv.DictReader(_read("second_run.csv").splitlines()):
        number, correct = int(row.pop("epoch")), int(row.pop("correct"))
        measured = {name: float(text) for name, text in row.items()}  # losses and seconds
        second.append(Epoch(number, 10_000, correct, batches=1875, **measured))
    return [parse_log(_read("logged_run.txt")), History(tuple(second))]


def logged_run() -> History:
    """The 19 epochs of the assignment's log."""
    return logged_runs()[0]


@functools.cache
def recorded() -> tuple[History, ...]:
    """All recorded runs, without times and training losses; `record["study"]` names the study."""
    name = "recorded.jsonl"
    return tuple(History.from_json(line, name) for line in _read(name).splitlines())


def recorded_studies() -> dict[str, list[History]]:
    """The recorded seeds by recipe; `faster`, "notebook" and fresh seeds are from another machine.

    "notebook" is the committed notebook's. The frontier's seeds, from any machine, are by recipe
    and net, as in "small p998". Seeds 10 to 29, predicted before they were run, are under "steady,
    fresh seeds" and "fast, fresh seeds".
    """
    studies = {}
    for run in recorded():
        studies.setdefault(run.record["study"], []).append(run)
    return studies


def recorded_runs(history: History) -> list[History]:
    """The recorded seeds of a run's recipe; empty unless its recipe and data are unchanged.

    Fresh seeds, if there are any: they had no part in choosing the recipe.
    """
    if history.recipe is None or describe(history) != "MNIST":
        return []
    studies = (runs for name, runs in recorded_studies().items() if name != "notebook")
    same = [runs for runs in studies if runs[0].recipe == history.recipe]
    return same[-1] if same else []


def held_out() -> dict[str, dict[int, float]]:
    """Accuracy (%) on held-out training images after the last epoch, by recipe and fold, from 0.

    Each of the twelve folds is 5,000 of the 60,000 images, read by a net that was trained on the
    others. Beside recipes stand steps between two of them, as in "steady, averaging 0".
    """
    folds = {}
    for row in csv.DictReader(_read("held_out.csv").splitlines()):
        folds.setdefault(row["recipe"], {})[int(row["fold"])] = int(row["correct"]) / 50
    return folds


@functools.cache
def label_errors() -> tuple[dict, ...]:
    """The MNIST test images whose label fewer than three of five people confirm, with their votes.

    Each has the image's `index`, the label `given`, the one a model `guessed`, and the `votes` for
    given, guessed and neither. From Northcutt, Athalye and Mueller 2021 (arXiv 2103.14749).
    """
    return tuple(json.loads(_read("label_errors.json"))["errors"])


@functools.cache
def recorded_mistakes() -> dict[str, dict[int, dict[int, int]]]:
    """The recorded nets' wrong answers on test images, by recipe, seed and image index."""
    mistakes = {}
    for run in map(json.loads, _read("mistakes.jsonl").splitlines()):
        wrong = dict(zip(run["wrong"], run["said"], strict=True))
        mistakes.setdefault(run["recipe"]["name"], {})[run["seed"]] = wrong
    return mistakes


def shared_mistakes(recipe: str) -> dict[int, int]:
    """How many of a recipe's recorded seeds get a test image wrong, by index, most first."""
    mistakes = recorded_mistakes()
    check("recipe", recipe, recipe in mistakes, f"one of {', '.join(mistakes)}")
    counts = Counter(index for wrong in mistakes[recipe].values() for index in wrong)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def own_digits_table() -> Table:
    """Recorded accuracy of `predict` on digits other than MNIST's, next to plain resizing."""
    rows = {}
    for row in csv.DictReader(_read("own_digits.csv").splitlines()):
        share = f"{100 * int(row['correct']) / int(row['images']):.1f}"
        line = {"digits": row["digits"], "images": f"{int(row['images']):,}"}
        rows.setdefault(row["digits"], line)[f"{row['way']}, % right"] = share
    return Table(list(rows.values()))
