"""Records shipped with the library: the author's runs, recorded seeds and folds; a run checked."""

import csv
import functools
from importlib import resources

from ..history import Epoch, History, check_history, describe
from .parse import parse_log

# By how many points a run may differ from the same seed on another machine: rounding errors grow
# into a different run, and different seeds differ by as much.
BOUNDS = {
    "best epoch": (lambda run: run.best.accuracy, 0.15),
    "last epoch": (lambda run: run.final.accuracy, 0.25),
    "mean of the last five": (lambda run: run.mean_of_last_five, 0.15),
}


def shipped(name: str) -> str:
    """The text of a data file that comes with the library."""
    return (resources.files(__package__) / name).read_text(encoding="utf-8")


def logged_runs() -> list[History]:
    """Both runs of the assignment's net that its author published.

    The first is the assignment's log, 19 epochs, verbatim in `logged_run.txt`. Its 17th test line
    shows 99.44%, though the assignment says epoch 18 reached it first. It is the 26th execution of
    S4/EVA4_Assignment4.ipynb in github.com/Nildk123/EVA_2; the second, `second_run.csv`, the 29th.
    """
    second = []
    for row in csv.DictReader(shipped("second_run.csv").splitlines()):
        number, correct = int(row.pop("epoch")), int(row.pop("correct"))
        measured = {name: float(text) for name, text in row.items()}  # losses and seconds
        second.append(Epoch(number, 10_000, correct, batches=1875, **measured))
    return [parse_log(shipped("logged_run.txt")), History(tuple(second))]


def logged_run() -> History:
    """The 19 epochs of the assignment's log."""
    return logged_runs()[0]


@functools.cache
def recorded() -> tuple[History, ...]:
    """All recorded runs, without times and training losses; `record["study"]` names the study."""
    name = "recorded.jsonl"
    return tuple(History.from_json(line, name) for line in shipped(name).splitlines())


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
    size = history.record.get("parameters")  # a net of one's own may be trained by any recipe
    return same[-1] if same and size in (None, same[-1][0].record["parameters"]) else []


def held_out() -> dict[str, dict[int, float]]:
    """Accuracy (%) on held-out training images after the last epoch, by recipe and fold, from 0.

    Each of the twelve folds is 5,000 of the 60,000 images, read by a net that was trained on the
    others. Beside recipes stand steps between two of them, as in "steady, averaging 0".
    """
    folds = {}
    for row in csv.DictReader(shipped("held_out.csv").splitlines()):
        folds.setdefault(row["recipe"], {})[int(row["fold"])] = int(row["correct"]) / 50
    return folds


def check_run(history: History) -> str:
    """Whether a run agrees with the committed notebook's, if it has the same recipe, seed and data.

    Exact on a machine that rounds alike, with the same torch and threads; within BOUNDS on others.
    The text has the recorded figures, so a test of the notebook's outputs fails unless they agree.
    For any other run, it has the number of test images right in each epoch.
    """
    check_history(history)
    (committed,) = recorded_studies()["notebook"]
    recorded, record = committed.record, history.record
    if any(record.get(name) != recorded[name] for name in ("recipe", "seed", "data")):
        return f"test images right, by epoch: {' '.join(str(epoch.correct) for epoch in history)}"
    where = ("machine", "threads", "torch")
    exact = all(place.get(n) == recorded[n] for place in history.environments for n in where)
    lines = []
    for name, (figure, bound) in BOUNDS.items():
        expected, actual = figure(committed), figure(history)
        agrees = abs(actual - expected) <= (1e-9 if exact else bound)
        lines.append(f"{name}: recorded {expected:.2f}%, agrees: {agrees}")
        if not agrees:
            limit = "the same" if exact else f"within {bound} points"
            lines.append(f"{name}: this run {actual:.3f}%, not {limit}")
    return "\n".join(lines)
