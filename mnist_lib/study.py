"""Recipes x nets x seeds: `python -m mnist_lib.study runs/fast.jsonl --recipe fast --seeds 0-9`.

Each run is a process of a fixed number of threads, so that its numbers do not depend on how many
run side by side. (Two of one thread each together do more than one of two.) The file gets one line
a run. What is in it is not trained again, and a run that was stopped goes on after its last whole
epoch: stop a study and start it as you like. With --scheduler the runs are made by the
workers of a Dask cluster; with --verify a recorded run is made again.
"""

import argparse
import ast
import contextlib
import dataclasses
import hashlib
import math
import os
import shutil
import statistics
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import joblib
from tqdm import tqdm

from .data import load_mnist
from .errors import MnistLibError, ParameterError, RunError, check, check_whole
from .files import LOCK, append_line, as_path, check_writable
from .history import History, check_history, load_history, load_study, summary
from .jobs import Job, run_here, run_on_cluster
from .recipe import Recipe, check_recipe, get_recipe


def study(
    file: str | os.PathLike,
    recipes: Recipe | list[Recipe],
    seeds: list[int],
    processes: int | None = None,
    threads: int = 1,
    validation: bool = False,
    data_dir: str | None = None,
    scheduler: str | None = None,
) -> list[History]:
    """Train each recipe's net once for each seed; histories recipe by recipe, in order of seeds.

    With `validation`, seed n trains on 55,000 of the training images and is tested on the 5,000
    others of fold n (modulo 12): the test set is not looked at.

    Runs `processes` at a time, as many as there are cores for if None; or on all workers of the
    Dask cluster whose `scheduler` has that address, such as "tcp://10.0.0.1:8786". These look for
    MNIST as `load_mnist` does, each on its own machine.

    Each run becomes a line of `file`, a .jsonl. Raises ParameterError for arguments that do not
    fit; RunError if a run diverges or is killed, or the cluster gives one up. Runs that ended are
    kept, and the same call goes on.
    """
    file = as_path("file", file)
    check("file", str(file), bool(file.name), "the name of a file")
    if file.is_dir():
        raise ParameterError(f"{file} is a folder: name a file, such as {file / 'seeds.jsonl'}")
    if file.suffix != ".jsonl":
        file = file.with_name(f"{file.name}.jsonl")
    under_way = file.with_suffix(".unfinished")  # where runs that are not done keep checkpoints
    if under_way.is_file():
        raise ParameterError(f"{under_way} is a file where the checkpoints go: name another file")
    check_whole("threads", threads)
    if processes is not None and scheduler is not None:
        raise ParameterError("processes are of this machine, a scheduler has its own: name one")
    processes = max(1, joblib.cpu_count() // threads) if processes is None else processes
    check_whole("processes", processes)
    wanted = {}
    for recipe in [recipes] if isinstance(recipes, Recipe) else recipes:
        check_recipe(recipe)
        for seed in seeds:
            source = "validation" if validation else "mnist"
            name = f"{recipe.name}-{recipe.net}-{_digest(recipe)}-{source}-seed-{seed}"
            folder = under_way / name
            job = Job(recipe, seed, source, threads, data_dir, None if scheduler else folder)
            wanted[job.key] = job
    done = runs_by_key(file)
    jobs = [job for key, job in wanted.items() if key not in done]
    if jobs:
        if scheduler is None:
            load_mnist(data_dir, source="mnist")  # one download, one refusal; not one a process
        check_writable(under_way)
        _run_jobs(jobs, file, processes, scheduler)
        done = runs_by_key(file)
    for key in done.keys() & wanted.keys():  # a study may have been killed after a run's line
        if wanted[key].folder:
            shutil.rmtree(wanted[key].folder, ignore_errors=True)
    with contextlib.suppress(OSError):  # other runs are under way, or there are files of others
        (under_way / LOCK).unlink(missing_ok=True)
        under_way.rmdir()
    return [done[key] for key in wanted]


def _run_jobs(jobs: list[Job], file: Path, processes: int, scheduler: str | None) -> None:
    made = run_on_cluster(jobs, scheduler) if scheduler else run_here(jobs, processes)
    kept = [_whole_epochs(job) for job in jobs]
    for job, count in zip(jobs, kept, strict=True):
        if count:
            print(f"{_name(job)}: goes on after epoch {count}", flush=True)
    ended = set()

    def epochs() -> int:
        return sum(job.recipe.epochs if job.key in ended else _whole_epochs(job) for job in jobs)

    total = sum(job.recipe.epochs for job in jobs)
    bar = tqdm(total=total, initial=sum(kept), unit="epoch", smoothing=0)
    try:
        # Closed here: else the runs would go on until the traceback is forgotten.
        with contextlib.closing(made), bar, _shown(bar, epochs):
            for job, history in made:
                append_line(file, history.to_json())
                ended.add(job.key)
                score = f"best {history.best.score}, final {history.final.score}"
                tqdm.write(f"{_name(job)}: {score}", file=sys.stdout)
    except RunError as error:
        raise RunError(
            f"{error}; {file} keeps the runs that ended: once the cause is gone, the same command "
            "goes on"
        ) from error


def _name(job: Job) -> str:
    return f"{job.recipe.name}, net {job.recipe.net}, seed {job.seed}"


def _whole_epochs(job: Job) -> int:
    """How many epochs of the run its folder has. On a cluster there is none."""
    try:
        return len(load_history(job.folder)) if job.folder else 0
    except MnistLibError:
        return 0  # not begun


@contextlib.contextmanager
def _shown(bar: tqdm, count: Callable[[], int]) -> Iterator[None]:
    """Keep the bar at what `count()` gives, once a second."""
    stopped = threading.Event()

    def show():
        while not stopped.wait(1):
            if (now := count()) != bar.n:
                bar.n = now
                bar.refresh()

    thread = threading.Thread(target=show, daemon=True)
    thread.start()
    try:
        yield
        bar.n = count()
    finally:
        stopped.set()
        thread.join()


def _digest(recipe: Recipe) -> str:
    """Tells recipes of one name from each other."""
    return hashlib.sha256(repr(recipe).encode()).hexdigest()[:8]


def runs_by_key(file: Path) -> dict[tuple, History]:
    """The runs of a study's file, each by its recipe, seed and source, as `Job.key`."""
    runs = {}
    for run in load_study(file) if file.exists() else []:
        if run.recipe:  # of a version with other fields: none of ours
            runs.setdefault((run.recipe, run.record.get("seed"), run.source), run)
    return runs


def verify(run: History, others: list[History] = (), verbose: bool = True) -> tuple[bool, str]:
    """Train a recorded run again: whether it holds, and what came of it, in a sentence or two.

    It holds if every epoch has the same count and losses to the bit. Another machine, which rounds
    otherwise, cannot give those: there the last epoch's accuracy must lie within what two seeds
    differ by, 2.8 sd of those `others` of the same recipe and source: by chance farther in one case
    of 20.

    Raises ParameterError if `run` has no recipe and seed of this version, or is not of MNIST.
    """
    check_history(run)
    recipe, seed = run.recipe, run.record.get("seed")
    if recipe is None or seed is None:
        raise ParameterError("the run has no recipe and seed to train again")
    check("source", run.source, run.source in ("mnist", "validation"), "mnist or validation")
    again = Job(recipe, seed, run.source, run.record.get("threads", 1)).run(verbose)
    if _bits(again) == _bits(run):
        return True, f"the same bits: {run.final.score} after {len(run)} epochs"
    there, here = (_maker(r) for r in (run, again))
    said = f"final {run.final.score} there, {again.final.score} here"
    if there == here:
        return False, f"NOT the same bits, though the machine is the same, {here}: {said}"
    kind = recipe, run.source
    accuracies = [r.final.accuracy for r in others if (r.recipe, r.source) == kind]
    said = f"other bits, as expected of another machine ({there} there, {here} here): {said}"
    if len(accuracies) < 3:
        return False, f"{said}; too few seeds of the recipe to say how much is chance"
    most = 1.96 * math.sqrt(2) * statistics.stdev(accuracies)
    difference = again.final.accuracy - run.final.accuracy
    holds = abs(difference) <= most
    return holds, (
        f"{said}. That is {difference:+.2f} points, {'within' if holds else 'NOT within'} the "
        f"{most:.2f} that two seeds differ by"
    )


def _bits(run: History) -> list[tuple]:
    return [(epoch.correct, epoch.test_loss, epoch.last_batch_loss) for epoch in run]


def _maker(run: History) -> str:
    names = ("machine", "threads", "device", "torch")
    machine, threads, device, torch = (run.record.get(name, "unknown") for name in names)
    return f"{machine}, {device}, threads: {threads}, torch {torch}"


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


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mnist_lib.study", description=__doc__)
    parser.add_argument("file", type=Path, help="where the runs are kept, one line each")
    parser.add_argument("--recipe", nargs="+", default=["assignment"], help="recipes by name")
    parser.add_argument("--net", nargs="+", help="nets by name, in place of the recipes' own")
    parser.add_argument(
        "--set", nargs="*", type=_setting, default=[], help="fields of the recipes, as in epochs=3"
    )
    parser.add_argument("--seeds", type=_seeds, default="0-9", help="one seed or a range: 0-9")
    parser.add_argument("--processes", type=int, help="runs at a time; as many as cores")
    parser.add_argument("--threads", type=int, default=1, help="of each run")
    parser.add_argument(
        "--validation",
        action="store_true",
        help="train on 55,000 images and test on the 5,000 others, fold by fold; no test set",
    )
    parser.add_argument("--data-dir", help="where MNIST is; see load_mnist")
    parser.add_argument("--scheduler", help="of a Dask cluster, as in tcp://10.0.0.1:8786")
    parser.add_argument(
        "--verify", type=int, metavar="LINE", help="train the run in this line of the file again"
    )
    return parser


def _verify_line(file: Path, line: int) -> None:
    runs = load_study(file)
    check_whole("verify", line, most=len(runs))
    holds, said = verify(runs[line - 1], runs)
    print(f"{file}, line {line}: {said}")
    if not holds:
        sys.exit(1)


def main() -> None:
    parser = _parser()
    args = parser.parse_args()
    wanted, there = (args.processes or 1) * args.threads, joblib.cpu_count()
    if args.verify is None and args.scheduler is None and wanted > there:
        print(
            f"{args.processes or 1} processes of {args.threads} threads each want {wanted} cores, "
            f"and there are {there}: they will wait for each other",
            file=sys.stderr,
        )
    try:
        if args.verify is not None:
            return _verify_line(args.file, args.verify)
        recipes = [get_recipe(name, **dict(args.set)) for name in args.recipe]
        if args.net:
            recipes = [dataclasses.replace(r, net=net) for r in recipes for net in args.net]
        run_by = (args.processes, args.threads, args.validation, args.data_dir, args.scheduler)
        histories = study(args.file, recipes, args.seeds, *run_by)
    except MnistLibError as error:
        sys.exit(f"{parser.prog}: {error}")
    except KeyboardInterrupt:
        sys.exit(f"{parser.prog}: stopped; the same command goes on with it")
    for recipe in recipes:
        runs = [run for run in histories if run.recipe == recipe]
        print(f"{recipe.name}, net {recipe.net}: {summary(runs)}")


if __name__ == "__main__":
    main()
