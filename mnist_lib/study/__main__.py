"""Recipes x nets x seeds: `python -m mnist_lib.study runs/fast.jsonl --recipe fast --seeds 0-9`.

Each run is a process with a fixed number of threads, so its numbers do not depend on how many run
side by side. (Two runs on one thread each do more than one on two.) The file gets a line per run. A
run that is in the file is not trained again, and one that was stopped resumes after its last whole
epoch: stop and start a study as you like. Machines that share a study take some seeds and a file
each; `cat a.jsonl b.jsonl > all.jsonl` joins the files, and a line that is in both counts once.
With --scheduler a Dask cluster's workers make the runs, each whole or not at all; with --verify one
is made again.
"""

import sys
from argparse import ArgumentParser

from ..base.errors import check, check_whole, exit_in_a_sentence
from ..base.files import as_path, read_text
from ..history import History, load_study, summary
from ..recipe import get_recipe
from .studies import study, study_file
from .verify import verify


def seeds_of(text: str) -> list[int]:
    """Seeds from "3", "0-9" or "0-2,5"."""
    seeds = []
    for part in text.replace(",", " ").split() or [text]:
        first, _, last = part.partition("-")
        whole = first.isdecimal() and (last or first).isdecimal() and len(part) < 40
        holds = whole and int(first) <= int(last or first) < int(first) + 10_000
        check("seeds", part, holds, "a list such as 0-2,5, 10,000 at most in a range")
        seeds += range(int(first), int(last or first) + 1)
    return seeds


def main() -> None:
    parser = ArgumentParser(prog="mnist_lib.study", description=__doc__)
    add = parser.add_argument
    add("file", nargs="?", help="where the runs are kept, one line each")
    many = {"action": "extend", "default": []}  # a flag given twice adds to what it has
    add("--recipe", nargs="+", **many, help="recipes by name; by default assignment")
    add("--net", nargs="+", **many, help="by name; your own as my_nets:TinyNet, a file each")
    add("--set", nargs="*", **many, help="recipes' fields: epochs=3 rotation=0; the last one wins")
    add("--seeds", nargs="+", **many, help="seeds and ranges, as in 0-2,5; by default 0-9")
    add("--processes", type=int, help="runs at a time; by default cores / threads")
    add("--threads", type=int, default=1, help="CPU threads of each run; by default 1")
    folds = "train on 55,000 training images, test on the other 5,000: fold n for seed n, modulo 12"
    add("--validation", action="store_true", help=folds)
    add("--data-dir", help="where MNIST is; see load_mnist")
    add("--scheduler", help="a Dask cluster's address, tcp://10.0.0.1:8786 (pip install '.[dask]')")
    add("--verify", type=int, metavar="LINE", help="train the run in this line of the file again")
    with exit_in_a_sentence(parser.prog):
        args = parser.parse_args()
        if args.file is None and args.seeds and {*args.seeds[-1]} - {*"0123456789-,"}:
            args.file = args.seeds.pop()  # it may stand after the seeds
        file = as_path("file", args.file)
        file = file if file.is_file() else study_file(file)
        changes, names, nets = " ".join(args.set), args.recipe or [None], args.net or [None]
        recipes = [get_recipe(name, changes, net=net) for name in names for net in nets]
        if args.verify is not None:
            lines, where = read_text(file).splitlines(), f"{file}, line {args.verify}"
            check_whole("verify", args.verify, most=len(lines))
            run = History.from_json(lines[args.verify - 1], where)
            holds, result = verify(run, load_study(file), data_dir=args.data_dir)
            print(f"{where}: {result}")
            return None if holds else sys.exit(1)
        how = (args.processes, args.threads, args.validation, args.data_dir, args.scheduler)
        histories = study(file, recipes, seeds_of(" ".join(args.seeds) or "0-9"), *how)
        for recipe in dict.fromkeys(recipes):
            runs = [run for run in histories if run.recipe == recipe]
            print(f"{recipe.name}, net {recipe.net}: {summary(runs)}")


if __name__ == "__main__":
    main()
