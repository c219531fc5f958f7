"""Grade a class: `python -m mnist_lib.grade SUBMISSIONS` reads its notebooks and logs, a row each.

A row tells of a submission's last whole run; the CSV file has a row a run. Nothing is executed. A
flag is a reason to look, not a verdict.
"""

import argparse
import csv
import io
import os
import re
import statistics
from pathlib import Path

from tqdm import tqdm

from ..base.errors import MnistLibError, RunError, exit_in_a_sentence
from ..base.files import write_file
from ..base.tables import Table
from ..data import FULL_TEST_SET, FULL_TRAINING_SET
from ..history import TARGET
from ..recipe import get_recipe
from .notebooks import leaks, parameters, read_submission
from .records import recorded_studies
from .verdict import BUDGET

SEEDS = recorded_studies()["assignment"]
KINDS = (".ipynb", ".log", ".txt", ".md")
TOO_GOOD = 99.7  # per cent, at the best epoch
COLUMNS = {  # of the table on a terminal
    "run": "{run} of {runs}",
    "params": "{parameters}",
    "epochs": "{epochs}",
    "best %": "{best_percent:.2f} at {best_epoch}",
    "last %": "{last_percent:.2f}",
    "mean 5": "{mean_of_last_five:.2f}",
    "budget": "{within_budget}",
    "touches": "{touches}",
    "ends": "{ends}",
    "adds": "{best_adds:.2f}",
    "rank": "{rank}",
}
ANSWERS = {True: "yes", False: "NO", None: "?"}


def find(paths: list[Path]) -> list[Path]:
    """The notebooks and logs among files and in folders."""
    files = [path for path in paths if not path.is_dir()]
    for folder, folders, names in (found for path in paths for found in os.walk(path)):
        folders[:] = [name for name in folders if name != ".ipynb_checkpoints"]
        files += [Path(folder, name) for name in names if name.lower().endswith(KINDS)]
    return sorted(path for path in files if not path.is_fifo())


def rows_of(path: Path, args: argparse.Namespace) -> list[dict]:
    """A row for each run of a submission; if it has none, one that says why."""
    try:
        runs, unread, on_mnist, cells = read_submission(path)
    except MnistLibError as error:
        runs, unread = [], [str(error)]
    rows = [] if runs else [{"file": str(path), "flags": [], "unread": unread or ["no test line"]}]
    for number, run in enumerate(runs, 1):
        epochs, last = run.epochs, run.epochs[-1]
        best = max(epochs, key=lambda epoch: epoch.accuracy)
        size, flags = parameters(cells, run)
        flags += leaks(cells, run)
        if last.images == FULL_TRAINING_SET:
            flags.append(f"{last.line}: the test set has 60,000 images, as the training set")
        if best.accuracy >= TOO_GOOD:
            flags.append(f"{best.line}: {best.accuracy:.2f}% is hardly possible")
        judged = on_mnist and last.images in (None, FULL_TEST_SET)
        within = size < args.parameters if isinstance(size, int) else None
        rows.append(
            {
                "file": str(path),
                "run": number,
                "runs": len(runs),
                "whole": ANSWERS[not last.stop],
                "parameters": size,
                "epochs": len(epochs),
                "best": best.correct,
                "best_percent": round(best.accuracy, 4),
                "best_epoch": epochs.index(best) + 1,
                "last": last.correct,
                "last_percent": round(last.accuracy, 4),
                "mean_of_last_five": round(statistics.fmean(e.accuracy for e in epochs[-5:]), 4),
                "test_images": last.images,
                "within_budget": ANSWERS[within if len(epochs) <= args.epochs else False],
                "touches": ANSWERS[best.accuracy >= args.target if judged else None],
                "ends": ANSWERS[last.accuracy >= args.target if judged else None],
                "best_adds": round(best.accuracy - last.accuracy, 4),
                "rank": 1 + sum(seed.final.accuracy > last.accuracy for seed in SEEDS)
                if judged
                else "?",
                "flags": flags,
                "unread": unread,
                "counts": tuple(epoch.correct for epoch in epochs),
            }
        )
    return rows


def flag_equals(rows: list[dict]) -> None:
    """Flag runs of three epochs or more whose counts another submission has, too."""
    first: dict[tuple, dict] = {}
    for row in rows:
        counts = row.pop("counts", ())
        other = first.setdefault(counts, row)
        if len(counts) >= 3 and None not in counts and other["file"] != row["file"]:
            for one, two in ((row, other), (other, row)):
                one["flags"].append(f"the same {len(counts)} counts as {two['file']}")


def as_text(rows: list[dict]) -> str:
    """The rows for a terminal, and below them their flags and what is not read."""
    shown, notes = [], []
    for row in rows:
        name = row["file"]
        cells = {head: form.format(**row) if "run" in row else "" for head, form in COLUMNS.items()}
        shown.append({"file": name[-25:], **cells, "flags": str(len(row["flags"]) or "")})
        notes += [f"{name}: flag: {flag}" for flag in row["flags"]]
        notes += [f"{name}: not read: {text}" for text in row["unread"][:3]]
        if more := row["unread"][3:]:
            notes.append(f"{name}: not read: {len(more)} lines more")
    luck = statistics.fmean(seed.best.accuracy - seed.final.accuracy for seed in SEEDS)
    notes.append(
        f"By luck alone the best epoch adds {luck:.3f} points, in the mean of {len(SEEDS)}"
    )
    notes.append("recorded seeds. A rank is the last epoch's, among these and itself.")
    return "\n".join(map(printable, [*str(Table(shown)).split("\n"), "", *notes]))


def printable(text: str) -> str:
    """The text, which others wrote, without what a terminal would obey."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def as_csv(rows: list[dict]) -> str:
    """The rows for a spreadsheet, in which no text begins a formula."""
    out = io.StringIO()
    writer = csv.DictWriter(out, max(rows, key=len))
    writer.writeheader()
    for row in rows:
        cells = {name: "; ".join(v) if isinstance(v, list) else v for name, v in row.items()}
        writer.writerow(
            {
                name: re.sub(r"^([=+@\t-])", r"'\1", v) if isinstance(v, str) else v
                for name, v in cells.items()
            }
        )
    return out.getvalue()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="mnist_lib.grade", description=__doc__)
    add, epochs = parser.add_argument, get_recipe("assignment").epochs
    add("submissions", nargs="+", type=Path, help="folders or files")
    add("--target", type=float, default=TARGET / 100, help="per cent; by default 99.44")
    add("--parameters", type=int, default=BUDGET, help=f"fewer than these; by default {BUDGET:,}")
    add("--epochs", type=int, default=epochs, help=f"at most; by default {epochs}")
    add("--csv", type=Path, metavar="FILE", help="a row a run, for a spreadsheet")
    args = parser.parse_args(arguments)
    with exit_in_a_sentence(parser.prog):
        files = tqdm(find(args.submissions), "reading", delay=1, leave=False)
        submissions = [rows_of(path, args) for path in files]
        rows = [row for each in submissions for row in each]
        if not any("run" in row for row in rows):
            notes = [printable(f"{row['file']}: {row['unread'][0]}") for row in rows]
            raise RunError("\n".join(["there is no run to grade", *notes]))
        flag_equals(rows)
        if args.csv:
            text = as_csv(rows).encode("utf-8", "replace")
            write_file(args.csv, lambda aside: aside.write_bytes(text))
        whole = [[row for row in each if row.get("whole") == "yes"] or each for each in submissions]
        print(as_text([each[-1] for each in whole]))


if __name__ == "__main__":
    main()
