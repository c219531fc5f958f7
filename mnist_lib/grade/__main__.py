"""Grade a class: `python -m mnist_lib.grade SUBMISSIONS` reads its notebooks and logs, a row each.

It reads .ipynb, .log, .txt and .md, in subfolders, too, and executes nothing. A row is that of the
last whole run; the CSV file has one for each. A flag is a reason to look, not a verdict.
"""

import argparse
import csv
import io
import os
import statistics
import sys
from collections import Counter
from pathlib import Path

from tqdm import tqdm

from ..base.errors import MnistLibError, RunError, check, exit_in_a_sentence
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
HEADS = {"parameters": "params", "mean_of_last_five": "mean 5", "best_epoch": "at"}
FOR_CSV = {"whole", "best", "last", "test_images", "unread"}  # columns not on a terminal


def find(paths: list[Path]) -> tuple[list[Path], list[str]]:
    """The files named, the notebooks and logs in the folders named, and what else lies there."""
    inside = [(path, file) for path in paths for file in path.rglob("*") if file.is_file()]
    seen = {f for path, f in inside if not any(p[0] == "." for p in f.relative_to(path).parts)}
    read = {file for file in seen if file.suffix.lower() in KINDS}
    others = Counter(file.suffix or file.name for file in seen - read - {*paths})
    files = sorted(read.union(path for path in paths if not path.is_dir()))
    return files, [f"{count} {kind}" for kind, count in others.items()]


def rows_of(path: Path, args: argparse.Namespace, seen: dict[tuple, dict]) -> list[dict]:
    """A row for each run of a submission, or one that says why there is none.

    `seen` keeps the first row with each run's counts: another submission with them is flagged.
    """
    rows = []
    try:
        runs, unread, on_mnist, cells = read_submission(path)
    except MnistLibError as error:
        runs, unread = [], [str(error)]
    for number, run in enumerate(runs, 1):
        epochs, last = run.epochs, run.epochs[-1]
        best = max(epochs, key=lambda epoch: epoch.accuracy)
        size, flags = parameters(cells, run)
        flags += leaks(cells, run)
        if last.images == FULL_TRAINING_SET:
            flags.append(f"{last.line}: the test set has 60,000 images, as the training set")
        start, ended = epochs[0], rows[-1]["last_percent"] if rows else 100
        fresh = len(epochs) > 1 and start.number in (None, 0, 1)
        if fresh and start.accuracy >= min(99.35, max(98.9, ended - 0.05)):
            flags.append(f"{start.line}: begins at {start.accuracy:.2f}%, as if trained before")
        if last.images is None and all(epoch.kind == "val" for epoch in epochs):
            flags.append(f"{last.line}: a validation set's accuracy, perhaps not the test set's")
        if last.stop and last.stop not in unread:
            flags.append(last.stop)
        told = [epoch.number for epoch in epochs if epoch.number is not None]
        length = max(len(told), *told) if told else len(epochs)
        if alone := length == 1 and not last.bar:
            flags.append(f"{last.line}: one test line does not tell how long the training was")
        if length > args.epochs and not told:
            flags.append(f"{last.line}: no epoch has a number: perhaps more than one run")
        if best.accuracy >= 99.7:
            flags.append(f"{best.line}: {best.accuracy:.2f}% is hardly possible")
        digits = max(len(f"{epoch.accuracy:g}".partition(".")[2]) for epoch in epochs)
        close = any(abs(e.accuracy - args.target) <= 0.5 / 10**digits for e in (best, last))
        if rounded := not last.images and digits < 2 and close:
            flags.append(f"{last.line}: too few decimals to tell whether the target is reached")
        judged = on_mnist and last.images in (None, FULL_TEST_SET) and not rounded
        fits = [size < args.parameters if isinstance(size, int) else "?"]
        fits.append("?" if alone else length <= args.epochs)
        row = {
            "file": str(path),
            "run": number,
            "runs": len(runs),
            "whole": not last.stop,
            "parameters": size,
            "epochs": "?" if alone else length,
            "best": best.correct,
            "best_percent": best.accuracy,
            "best_epoch": epochs.index(best) + 1 if length == len(epochs) else best.number,
            "last": last.correct,
            "last_percent": last.accuracy,
            "mean_of_last_five": statistics.fmean(epoch.accuracy for epoch in epochs[-5:]),
            "test_images": last.images,
            "within_budget": False if False in fits else "?" if "?" in fits else True,
            "touches": best.accuracy >= args.target if judged else "?",
            "ends": last.accuracy >= args.target if judged and not last.stop else "?",
            "adds": best.accuracy - last.accuracy,
            "rank": 1 + sum(s.final.accuracy > last.accuracy for s in SEEDS) if judged else "?",
            "flags": flags,
            "unread": unread,
        }
        rows.append(row)
        counts = tuple(epoch.correct for epoch in epochs)
        other = seen.setdefault(counts, row)
        roots = [given if given.is_dir() else given.parent for given in args.submissions]
        before = Path(other["file"])
        same = path.parent == before.parent not in roots and path.suffix != before.suffix  # README
        if len(counts) >= 3 and None not in counts and before != path and not same:
            row["flags"].append(f"the same {len(counts)} counts as {other['file']}")
            other["flags"].append(f"the same {len(counts)} counts as {row['file']}")
    return rows or [{"file": str(path), "flags": [], "unread": unread or ["no test line"]}]


def cell(value, digits: int = 4) -> str:
    """A value as text that neither a terminal obeys nor a spreadsheet takes for a formula."""
    if isinstance(value, bool):
        return "yes" if value else "NO"
    if isinstance(value, float):
        return f"{value:.{digits}f}"
    text = "; ".join(value) if isinstance(value, list) else str("" if value is None else value)
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return f"'{text}" if text.startswith(tuple("=+-@")) else text


def as_text(rows: list[dict], args: argparse.Namespace) -> str:
    """The rows for a terminal, and below them their flags, what is not read, and a legend."""
    names = [name for name in max(rows, key=len) if name not in FOR_CSV]
    heads = {n: HEADS.get(n, n.replace("_percent", " %").removeprefix("within_")) for n in names}
    table, notes = [], []
    folder = os.path.commonpath([Path(row["file"]).absolute().parent for row in rows])
    files = [os.path.relpath(row["file"], folder) for row in rows]
    short = [f if len(f) <= 22 else f"{f[:11]}…{f.removesuffix('.ipynb')[-10:]}" for f in files]
    for row, file, name in zip(rows, files, short, strict=True):
        unread, name = row["unread"], name if short.count(name) == 1 else file
        shown = row | {"file": name, "flags": len(row["flags"]) or ""}
        table.append({head: cell(shown.get(name), 2) for name, head in heads.items()})
        notes += [f"{file}: flag: {flag}" for flag in row["flags"]]
        notes += [f"{file}: not read: {text}" for text in unread[:3]]
        notes += [f"{file}: not read: {len(unread) - 3} lines more"] if unread[3:] else []
    luck = statistics.fmean(seed.best.accuracy - seed.final.accuracy for seed in SEEDS)
    legend = f"""
at: the best epoch; budget: fewer than {args.parameters:,} parameters, at most {args.epochs} epochs
touches, ends: the best, the last epoch has {args.target:g}%; adds: the best less the last, points
rank: the last epoch's among {len(SEEDS)} recorded seeds, whose best adds {luck:.3f}; ?: not told"""
    return "\n".join([str(Table(table)), "", *map(cell, notes), *legend.splitlines()])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="mnist_lib.grade", description=__doc__)
    add, epochs = parser.add_argument, get_recipe("assignment").epochs
    add("submissions", nargs="+", type=Path, help="folders or files")
    add("--target", type=float, default=TARGET / 100, help="accuracy, per cent; by default 99.44")
    add("--parameters", type=int, default=BUDGET, help=f"exclusive limit; by default {BUDGET:,}")
    add("--epochs", type=int, default=epochs, help=f"most epochs allowed; by default {epochs}")
    add("--csv", type=Path, metavar="FILE", help="write a row for each run, for a spreadsheet")
    args = parser.parse_args(arguments)
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="replace")  # a student's letters that a code page lacks
    with exit_in_a_sentence(parser.prog):
        check("--csv", args.csv, (args.csv or Path("x.csv")).suffix.lower() == ".csv", "FILE.csv")
        (files, others), seen = find(args.submissions), {}
        files = tqdm(files, "reading", delay=1, leave=False)
        submissions = [rows_of(path, args, seen) for path in files]
        rows = [row for each in submissions for row in each]
        rest = [cell(f"not read: {', '.join(others)}")] * bool(others)
        if not seen:
            notes = [cell(f"{row['file']}: {row['unread'][0]}") for row in rows]
            raise RunError("\n".join(["there is no run to grade", *notes, *rest]))
        if args.csv:
            text = io.StringIO()
            writer = csv.DictWriter(text, max(rows, key=len), lineterminator="\n")
            writer.writeheader()
            writer.writerows({name: cell(row[name]) for name in row} for row in rows)
            write_file(args.csv, lambda aside: aside.write_text(text.getvalue(), "utf-8-sig"))
        whole = [[row for row in each if row.get("whole")] or each for each in submissions]
        print(as_text([each[-1] for each in whole], args), *rest, sep="\n")


if __name__ == "__main__":
    main()
