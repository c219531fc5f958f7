"""Recipes x nets x seeds: `python -m mnist_lib.study runs/fast.jsonl --recipe fast --seeds 0-9`.

Each run is a process with a fixed number of threads, so its numbers do not depend on how many run
side by side. (Two runs on one thread each do more than one on two.) The file gets a line per run. A
run that is in the file is not trained again, and one that was stopped resumes after its last whole
epoch: stop and start a study as you like. With --scheduler the workers of a Dask cluster make the
runs; with --verify a recorded run is made again.
"""

import ast
import dataclasses
import sys
from argparse import ArgumentParser, ArgumentTypeError
from pathlib import Path

import joblib

from ..base.errors import check_whole, exit_in_a_sentence
from ..base.files import read_text
from ..history import History, load_study, summary
from ..recipe import get_recipe
from .studies import study
from .verify import verify


def seed_range(text: str) -> list[int]:
    """Seeds from "3" or "0-9"."""
    first, _, last = text.partition("-")
    whole = first.isdecimal() and (last or first).isdecimal() and len(text) < 40
    seeds = range(int(first), int(last or first) + 1) if whole else ()
    if 0 < len(seeds) <= 10_000:
        return list(seeds)
    raise ArgumentTypeError(f"must be a seed or a range such as 0-9, 10,000 at most, got {text!r}")


def setting(text: str) -> tuple[str, bool | int | float | str]:
    """A recipe's field and its value from "epochs=3"."""
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="mnist_lib.study", description=__doc__)
    add = parser.add_argument
    add("file", type=Path, help="where the runs are kept, one line each")
    many = {"action": "extend", "default": []}  # a flag given twice adds to what it has
    add("--recipe", nargs="+", **many, help="recipes by name; by default assignment")
    add("--net", nargs="+", **many, help="nets by name, instead of the recipes' own")
    add("--set", nargs="*", type=setting, **many, help="recipes' fields: epochs=3; the last counts")
    add("--seeds", type=seed_range, **many, help="one seed or a range; by default 0-9")
    add("--processes", type=int, help="runs at a time; by default one per core")
    add("--threads", type=int, default=1, help="of each run")
    folds = "train on 55,000 images and test on the 5,000 others, fold by fold; no test set"
    add("--validation", action="store_true", help=folds)
    add("--data-dir", help="where MNIST is; see load_mnist")
    add("--scheduler", help="of a Dask cluster, as in tcp://10.0.0.1:8786")
    add("--verify", type=int, metavar="LINE", help="train the run in this line of the file again")
    return parser


def main() -> None:
    parser = _parser()
    with exit_in_a_sentence(parser.prog, "stopped; the same command goes on with it"):
        args = parser.parse_args()
        if args.verify is not None:
            lines, where = read_text(args.file).splitlines(), f"{args.file}, line {args.verify}"
            check_whole("verify", args.verify, most=len(lines))
            run = History.from_json(lines[args.verify - 1], where)
            holds, result = verify(run, load_study(args.file))
            print(f"{where}: {result}")
            if not holds:
                sys.exit(1)
            return
        wanted, cores = (args.processes or 1) * args.threads, joblib.cpu_count()
        if args.scheduler is None and wanted > cores:
            crowd = f"{args.processes or 1} processes of {args.threads} threads each want {wanted}"
            print(f"{crowd} cores of {cores}: they will wait for each other", file=sys.stderr)
        recipes = [get_recipe(name, **dict(args.set)) for name in args.recipe or ["assignment"]]
        if args.net:
            recipes = [dataclasses.replace(r, net=net) for r in recipes for net in args.net]
        how = (args.processes, args.threads, args.validation, args.data_dir, args.scheduler)
        histories = study(args.file, recipes, args.seeds or range(10), *how)
        for recipe in dict.fromkeys(recipes):
            runs = [run for run in histories if run.recipe == recipe]
            print(f"{recipe.name}, net {recipe.net}: {summary(runs)}")


if __name__ == "__main__":
    main()
