"""One recipe over many seeds: `python -m mnist_lib.study runs/fast.jsonl --recipe fast`.

Every run is a process of its own with a fixed number of threads, so that its numbers do not depend
on how many run beside it. (Two of one thread each together do more than one of two.) The file gets
one line a run. A seed that is in it is not trained again, and a run that was stopped goes on after
its last whole epoch: stop a study and start it as you like.
"""

import argparse
import ast
import dataclasses
import multiprocessing
import os
import shutil
import sys
from concurrent.futures import FIRST_COMPLETED, wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import torch

from .data import FOLDS, load_mnist
from .errors import MnistLibError, ParameterError, RunError, check, check_whole
from .files import append_line, as_folder, check_writable
from .history import History, load_study
from .machine import pool
from .net import make_net, set_seed
from .recipe import Recipe, differences, get_recipe
from .training import train
from .verdict import summary


def study(
    file: Path,
    recipe: Recipe,
    seeds: list[int],
    processes: int = 2,
    threads: int = 1,
    validation: bool = False,
    data_dir: str | None = None,
) -> list[History]:
    """Train the recipe's net once for each seed; histories in order of the seeds.

    With `validation`, seed n trains on 55,000 of the training images and is tested on the 5,000
    others of fold n (modulo 12): the test set is not looked at.

    Each run becomes a line of `file`, a .jsonl. Raises ParameterError if that holds another
    recipe's runs, or runs tested on other images; RunError if a run's process is killed.
    """
    check_whole("processes", processes)
    check_whole("threads", threads)
    file = as_folder("file", file)
    check("file", str(file), bool(file.name), "the name of a file")
    if file.suffix != ".jsonl":
        file = file.with_name(f"{file.name}.jsonl")
    under_way = file.with_suffix("")  # where the runs that are not done keep their checkpoints
    source = "validation" if validation else "mnist"
    if under_way.is_file():
        raise ParameterError(f"{under_way} is a file where the checkpoints go: name another file")
    done = _runs(file, recipe, source)
    jobs = [
        (under_way / f"seed-{seed}", recipe, seed, threads, validation, data_dir)
        for seed in dict.fromkeys(seeds)
        if seed not in done
    ]
    if jobs:
        check_writable(under_way)
        load_mnist(data_dir, source="mnist")  # one download, one refusal; not one a process
    others = multiprocessing.active_children()
    with pool(processes) as workers:
        try:
            running = set()
            # No more than can run: what is submitted cannot be called back.
            while running or jobs:
                while jobs and len(running) < processes:
                    running.add(workers.submit(_run, jobs.pop(0)))
                ended, running = wait(running, return_when=FIRST_COMPLETED)
                for run in ended:
                    folder, history = run.result()
                    append_line(file, history.to_json())
                    shutil.rmtree(folder, ignore_errors=True)
                    score = f"best {history.best.score}, final {history.final.score}"
                    print(f"{file}, seed {history.record['seed']}: {score}", flush=True)
        except BrokenProcessPool:  # which has ended the other runs by itself
            raise RunError(
                f"a run was killed, perhaps for want of memory; {file} keeps the runs that ended, "
                f"{under_way} the others' checkpoints: the same command goes on"
            ) from None
        except BaseException:
            for process in multiprocessing.active_children():
                if process not in others:
                    process.terminate()  # their checkpoints stay
            raise
    done = _runs(file, recipe, source)
    for seed in done:  # a study may have been killed between the two lines above
        shutil.rmtree(under_way / f"seed-{seed}", ignore_errors=True)
    if under_way.is_dir() and not any(under_way.glob("seed-*")):
        shutil.rmtree(under_way, ignore_errors=True)
    return [done[seed] for seed in seeds]


def _runs(file: Path, recipe: Recipe, source: str) -> dict[int, History]:
    """The runs of a study's file by seed. Raises ParameterError if one is of another study."""
    runs = load_study(file) if file.exists() else []
    for line, run in enumerate(runs, 1):
        differing = differences(run.record.get("recipe"), dataclasses.asdict(recipe))
        if run.source != source:
            differing.append(f"the images are of {run.source} there, of {source} here")
        if "seed" not in run.record:
            differing.append("it has no seed")
        if differing:
            raise ParameterError(
                f"{file}, line {line}, is a run of another study: {'; '.join(differing)}; name "
                "another file"
            )
    return {run.record["seed"]: run for run in reversed(runs)}


def _run(job) -> tuple[Path, History]:
    folder, recipe, seed, threads, validation, data_dir = job
    torch.set_num_threads(threads)
    data = load_mnist(data_dir, source="mnist")
    if validation:
        data = data.hold_out(seed % FOLDS)
    set_seed(seed)
    return folder, train(make_net(recipe), data, recipe, seed, verbose=False, folder=folder)


def _seeds(text: str) -> list[int]:
    first, _, last = text.partition("-")
    whole = first.isdecimal() and (last or first).isdecimal() and len(text) < 40
    seeds = range(int(first), int(last or first) + 1) if whole else ()
    if 0 < len(seeds) <= 10_000:
        return list(seeds)
    raise argparse.ArgumentTypeError(
        f"must be a seed or a range such as 0-9, of 10,000 at most, got {text!r}"
    )


def _setting(text: str) -> tuple[str, bool | int | float | str]:
    name, _, value = text.partition("=")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def main() -> None:
    parser = argparse.ArgumentParser(prog="mnist_lib.study", description=__doc__)
    parser.add_argument("file", type=Path, help="where the runs are kept, one line each")
    parser.add_argument("--recipe", default="assignment", help="the recipe's name")
    parser.add_argument(
        "--set", nargs="*", type=_setting, default=[], help="fields of the recipe, as in epochs=3"
    )
    parser.add_argument("--seeds", type=_seeds, default="0-9", help="one seed or a range: 0-9")
    parser.add_argument("--processes", type=int, default=2, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="train on 55,000 images and test on the 5,000 others, fold by fold; no test set",
    )
    parser.add_argument("--data-dir", help="where MNIST is; see load_mnist")
    args = parser.parse_args()
    wanted, cores = args.processes * args.threads, os.cpu_count() or 1
    if wanted > cores:
        print(
            f"{args.processes} processes of {args.threads} threads each want {wanted} cores, and "
            f"there are {cores}: they will wait for each other",
            file=sys.stderr,
        )
    try:
        recipe = get_recipe(args.recipe, **dict(args.set))
        run_by = (args.processes, args.threads, args.validation, args.data_dir)
        histories = study(args.file, recipe, args.seeds, *run_by)
    except MnistLibError as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{parser.prog}: stopped; the same command goes on with it")
    print(summary(histories))


if __name__ == "__main__":
    main()
