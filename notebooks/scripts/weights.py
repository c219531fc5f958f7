"""The weights that the library carries, and the mistakes of each seed: `make weights`.

Recorded seeds are trained again, one at a time, to the same bits on a machine that rounds alike.
For each recipe, the seed whose last epoch is nearest to the mean is carried, not the luckiest. If
stopped, it goes on when run again.

    PYTHONPATH=notebooks python notebooks/scripts/weights.py KEEP     those of the distilled net

KEEP is the folder that `distill.py` filled.
"""

import argparse
import json
import shutil
import statistics
from pathlib import Path

import inside
import torch
from distill import student_folder
from evidence import RECORDS, ROOT

from mnist_lib import (
    MNIST,
    History,
    RunError,
    infer,
    load_history,
    load_mnist,
    pretrained,
    recorded_studies,
    save_run,
)
from mnist_lib.base.errors import exit_in_a_sentence
from mnist_lib.base.files import HISTORY, WEIGHTS, write_file
from mnist_lib.grade import records
from mnist_lib.runs.folder import PRETRAINED
from mnist_lib.study.jobs import job_of

MISTAKES = Path(records.__file__).with_name("mistakes.jsonl")
PICTURE = RECORDS / "missed.png"
EVERY_SEED = ("steady", "fast")  # of other recipes, only the seed that is carried


def carried(runs: list[History]) -> History:
    """The run whose last epoch is nearest to the mean; of several the one of the lowest seed."""
    mean = statistics.fmean(run.final.correct for run in runs)
    return min(runs, key=lambda run: (abs(run.final.correct - mean), run.record["seed"]))


def counts(run: History) -> list[int]:
    return [epoch.correct for epoch in run]


def train_again(run: History) -> Path:
    """The folder of a whole run like the recorded one. RunError if its counts differ."""
    folder = ROOT / "runs" / "weights" / f"{run.recipe.name}-seed{run.record['seed']}"
    net, history = job_of(run, folder).run()
    same = counts(history) == counts(run)
    print(f"{folder.name}: {history.final.score}, as recorded: {same}", flush=True)
    if not same:
        raise RunError("this machine rounds otherwise than the records': nothing is written")
    save_run(folder, history, net)
    return folder


def mistakes(folder: Path, data: MNIST) -> str:
    """A run's record as a line of JSON: which test images it gets wrong, and what it says."""
    said = infer(pretrained(folder), data.test_images).argmax(dim=1)
    wrong = torch.nonzero(said != data.test_labels).flatten()
    record = load_history(folder).record
    return json.dumps(record | {"wrong": wrong.tolist(), "said": said[wrong].tolist()}) + "\n"


def carry(folder: Path, name: str) -> None:
    """Copy the run in `folder` to where `pretrained(name)` finds it."""
    (PRETRAINED / name).mkdir(parents=True, exist_ok=True)
    for file in (HISTORY, WEIGHTS):
        shutil.copy(folder / file, PRETRAINED / name / file)


def main() -> None:
    parser = argparse.ArgumentParser(
        "weights", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("keep", type=Path, nargs="?", help="the folder that distill.py filled")
    keep = parser.parse_args().keep
    with exit_in_a_sentence(parser.prog):
        of_distilled(keep) if keep else of_recipes()


def of_distilled(keep: Path) -> None:
    """Carry the distilled net from the folder that distill.py filled."""
    run = carried(recorded_studies()["distilled assignment"])
    folder = student_folder(keep, run)
    if counts(load_history(folder)) != counts(run):
        raise RunError(f"{folder} is not the recorded run: nothing is written")
    carry(folder, "distilled")


def of_recipes() -> None:
    """Train the recorded seeds again; write each recipe's weights, and the seeds' mistakes."""
    data = load_mnist(source="mnist")
    studies = {name: recorded_studies()[name] for name in ("assignment", *EVERY_SEED)}
    again = {name: train_again(carried(runs)) for name, runs in studies.items()}
    folders = [train_again(run) for name in EVERY_SEED for run in studies[name]]
    for name, folder in again.items():
        carry(folder, name)
    lines = "".join(mistakes(folder, data) for folder in folders)
    write_file(MISTAKES, lambda path: path.write_text(lines, encoding="utf-8"))
    doubted = {error["index"] for error in inside.label_errors()}
    missed = inside.recorded_mistakes()["steady"]
    drawn = inside.plot_shared(data.test_images, data.test_labels, missed, doubted)
    drawn.get_figure().savefig(PICTURE, dpi=110)


if __name__ == "__main__":
    main()
