"""The records that ship with the library: the author's runs, recorded seeds, ideas and mistakes."""

import csv
import functools
import json
from collections import Counter
from importlib import resources

from .errors import check
from .history import Epoch, History, describe
from .parse import parse_log
from .tables import Table


def _text(name: str) -> str:
    """A file in this folder."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def _lines(name: str) -> list[str]:
    return _text(name).splitlines()


def logged_runs() -> list[History]:
    """Both runs of the assignment's net that its author published.

    The first is the assignment's log, 19 epochs, shipped verbatim as `logged_run.txt`. 99.44% is
    its 17th test line, though the assignment's text says that epoch 18 reached it first. The
    second, `second_run.csv`, is the 29th execution of the same notebook, S4/EVA4_Assignment4.ipynb
    of github.com/Nildk123/EVA_2; the log is its 26th.
    """
    second = tuple(
        Epoch(
            epoch=int(row["epoch"]),
            images=10_000,
            correct=int(row["correct"]),
            test_loss=float(row["test_loss"]),
            last_batch_loss=float(row["last_batch_loss"]),
            batches=1875,
            seconds=float(row["seconds"]),
        )
        for row in csv.DictReader(_lines("second_run.csv"))
    )
    return [parse_log(_text("logged_run.txt")), History(second)]


def logged_run() -> History:
    """The 19 epochs of the assignment's log."""
    return logged_runs()[0]


@functools.cache
def recorded() -> tuple[History, ...]:
    """All recorded runs; `record["study"]` says of which study."""
    return tuple(History.from_json(line, "recorded.jsonl") for line in _lines("recorded.jsonl"))


def recorded_studies() -> dict[str, list[History]]:
    """The recorded seeds by recipe, all from one machine.

    Those of the small nets, from any machine, are by recipe and net, as in "small p998". "notebook"
    is the run of the committed notebook.
    """
    studies = {}
    for run in recorded():
        studies.setdefault(run.record["study"], []).append(run)
    return studies


def recorded_runs(history: History) -> list[History]:
    """The recorded seeds of a run's recipe; none if its recipe or data was changed."""
    if history.recipe is None or describe(history) != "MNIST":
        return []
    seeds = [run for run in recorded() if run.record["study"] != "notebook"]
    return [run for run in seeds if run.recipe == history.recipe]


def recorded_ideas() -> dict[str, tuple[float, float, float]]:
    """What `steady` gains if an idea is removed or changed, on held-out training images.

    By idea, in points of accuracy: the mean difference over folds, its standard error, and the
    prediction made before the runs.
    """
    return {
        row["idea"]: (float(row["difference"]), float(row["error"]), float(row["predicted"]))
        for row in csv.DictReader(_lines("ideas.csv"))
    }


@functools.cache
def label_errors() -> tuple[dict, ...]:
    """The MNIST test images whose label five people doubt, with their votes.

    `index` of the test image; the label `given` and the one `guessed` by a model; `votes` for
    given, guessed and neither. From Northcutt, Athalye and Mueller 2021 (arXiv 2103.14749): images
    whose label fewer than three of five people confirm.
    """
    return tuple(json.loads(_text("label_errors.json"))["errors"])


@functools.cache
def recorded_mistakes() -> dict[str, dict[int, dict[int, int]]]:
    """The test images that recorded nets get wrong: by recipe and seed, the answer by index."""
    found = {}
    for run in map(json.loads, _lines("mistakes.jsonl")):
        wrong = dict(zip(run["wrong"], run["said"], strict=True))
        found.setdefault(run["recipe"]["name"], {})[run["seed"]] = wrong
    return found


def shared_mistakes(recipe: str) -> dict[int, int]:
    """How many recorded seeds of a recipe get a test image wrong, by index, most first."""
    mistakes = recorded_mistakes()
    check("recipe", recipe, recipe in mistakes, f"one of {', '.join(mistakes)}")
    counts = Counter(index for wrong in mistakes[recipe].values() for index in wrong)
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def own_digits_table() -> Table:
    """Recorded: how well `predict` reads digits that are not MNIST's, beside plain resizing."""
    rows = {}
    for row in csv.DictReader(_lines("own_digits.csv")):
        share = f"{100 * int(row['correct']) / int(row['images']):.1f}"
        line = {"digits": row["digits"], "images": f"{int(row['images']):,}"}
        rows.setdefault(row["digits"], line)[f"{row['way']}, % right"] = share
    return Table(list(rows.values()))
